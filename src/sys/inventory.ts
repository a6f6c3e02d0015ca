/**
 * Gathers, before a decision, what the host knows of the storage a command names. A component word
 * is an absolute or relative path, or a Solaris slice name that disks.tab maps to a disk or image.
 */
import { open, readFile } from 'node:fs/promises'
import { isAbsolute, join, normalize, resolve } from 'node:path'
import { err, ok } from '../base/result.js'
import { blocks } from '../base/units.js'
import type { Device, Inventory } from '../meta/types.js'
import { type MetaResult, metaError } from '../msg/errors.js'
import { errnoOf, sysError } from './errno.js'
import { DEFAULT_GEOMETRY, type Label, LABEL_BYTES, parseLabel, parseX86, solarisPartitions } from './label.js'
import { within } from './limit.js'
import { examine, kernelUse, kernelUses, overlap, type Piece, type Storage } from './storage.js'

export interface InventoryOptions {
  readonly cwd: string
  /** disks.tab; need not exist. */
  readonly disksTab: string
  /** What state database replicas lie on. */
  readonly replicas: readonly Piece[]
  /** A device that takes longer to answer is one that does not; 0: wait. */
  readonly limitMillis: number
}

const SLICE = /^(?:\/dev\/r?dsk\/)?(c\d+(?:t[0-9A-Fa-f]+)?d\d+)s(\d+)$/
const URI = /^nbd(?:s)?(?:\+unix)?:\/\//

/** disks.tab: `cXtYdZ  /path`, `#` comments. Later lines win, as an administrator editing the end expects. */
export const parseDisksTab = (text: string): ReadonlyMap<string, string> => {
  const disks = new Map<string, string>()
  for (const line of text.split('\n')) {
    const [name, path] = line.replace(/^#.*/, '').trim().split(/\s+/)
    if (name !== undefined && path !== undefined && isAbsolute(path)) disks.set(name, path)
  }
  return disks
}

const readLabel = async (path: string, storage: Storage): Promise<Label | undefined> => {
  const h = await open(path, 'r')
  try {
    const { buffer, bytesRead } = await h.read(Buffer.alloc(LABEL_BYTES), 0, LABEL_BYTES, 0)
    const head = buffer.subarray(0, bytesRead)
    const label = parseLabel(head, storage.size)
    if (label !== undefined) return label
    for (const { first } of solarisPartitions(head)) {
      const block = await h.read(Buffer.alloc(512), 0, 512, (first + 1) * 512)
      const x86 = parseX86(block.buffer.subarray(0, block.bytesRead), first, storage.size)
      if (x86 !== undefined) return x86
    }
    return undefined
  } finally {
    await h.close()
  }
}

type Found = Omit<Device, 'usedBy' | 'isReplica'> & { readonly storage: Storage }

const slice = async (word: string, disk: string, number: number, path: string): Promise<MetaResult<Found>> => {
  const storage = await examine(path)
  if (storage === undefined) return err(metaError('notADisk', word))
  const label = await readLabel(path, storage)
  if (label === undefined) return err(metaError('sys', word, `no disk label on ${path}`))
  const part = label.slices.get(number)
  if (part === undefined) return err(metaError('sys', word, 'No such device or address'))
  return ok({
    name: `${disk}s${number}`,
    path,
    storage,
    identity: storage.identity,
    extent: { first: blocks(storage.first + part.first), blocks: part.size },
    offset: part.first,
    size: part.size,
    geometry: label.geometry,
    labelAtStart: part.holdsLabel,
    replicaEnd: blocks(0),
  })
}

const whole = async (word: string, path: string): Promise<MetaResult<Found>> => {
  const storage = await examine(path)
  if (storage === undefined) return err(metaError('notADisk', word))
  return ok({
    name: path,
    path,
    storage,
    identity: storage.identity,
    extent: { first: storage.first, blocks: storage.size },
    offset: blocks(0),
    size: storage.size,
    geometry: DEFAULT_GEOMETRY,
    labelAtStart: false,
    replicaEnd: blocks(0),
  })
}

const pathOf = (word: string, cwd: string): string => normalize(isAbsolute(word) ? word : resolve(cwd, word))

/** The names that `word` may have been configured under, whether or not its device is there now. */
export const possibleNames = (word: string, cwd: string): readonly string[] => {
  const m = SLICE.exec(word)
  return m === null ? [pathOf(word, cwd)] : [`${m[1] ?? ''}s${m[2] ?? ''}`, pathOf(word, cwd)]
}

const locate = async (
  word: string,
  disks: ReadonlyMap<string, string>,
  options: InventoryOptions,
): Promise<MetaResult<Found>> => {
  if (URI.test(word)) return err(metaError('unsupported', word, 'a remote NBD component'))
  const m = SLICE.exec(word)
  const disk = m?.[1]
  const path = disk === undefined ? undefined : disks.get(disk)
  try {
    if (disk !== undefined && path !== undefined) return await slice(word, disk, Number(m?.[2]), path)
    return await whole(word, pathOf(word, options.cwd))
  } catch (e) {
    if (errnoOf(e) === undefined) throw e
    return err(sysError(e, word))
  }
}

const examined = async (
  word: string,
  disks: ReadonlyMap<string, string>,
  uses: Awaited<ReturnType<typeof kernelUses>>,
  options: InventoryOptions,
): Promise<MetaResult<Device>> => {
  const found = await locate(word, disks, options)
  if (!found.ok) return found
  const { storage, ...device } = found.value
  const piece = { identity: device.identity, first: device.extent.first, size: device.extent.blocks }
  const replicas = options.replicas.map((r) => overlap(r, piece))
  const usedBy =
    (await kernelUse(device.path, storage, piece, uses)) ??
    (replicas.includes('part') ? ({ how: 'replica', where: 'metadevice state database' } as const) : null)
  return ok({ ...device, usedBy, isReplica: replicas.includes('same') })
}

/** Looks every word up now; the Inventory answers from that moment's picture. */
export const gather = async (words: Iterable<string>, options: InventoryOptions): Promise<Inventory> => {
  const disks = parseDisksTab(await readFile(options.disksTab, 'utf8').catch(() => ''))
  const uses = await kernelUses()
  const look = async (word: string): Promise<readonly [string, MetaResult<Device>]> => [
    word,
    await within(options.limitMillis, word, () => examined(word, disks, uses, options)),
  ]
  const seen = new Map(await Promise.all([...new Set(words)].map(look)))
  return (word) => seen.get(word) ?? err(metaError('sys', word, 'No such file or directory'))
}

/** Where a root keeps its files (design 3). */
export const places = (
  root: string | undefined,
): { readonly etc: string; readonly run: string; readonly dev: string } =>
  root === undefined
    ? { etc: '/etc/metadisk', run: '/run/metadisk', dev: '/dev/md' }
    : { etc: join(root, 'etc'), run: join(root, 'run'), dev: join(root, 'dev/md') }
