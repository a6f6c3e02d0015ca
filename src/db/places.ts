/**
 * From what `metadb -a` was given to the replicas that would be made: file, directory or block device, how many,
 * which blocks metadb will show. Looks and refuses; makes nothing.
 */
import { randomBytes } from 'node:crypto'
import { type FileHandle, open, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { type Result, err, ok } from '../base/result.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import { strerror } from '../msg/strerror.js'
import { deviceBytes } from './check.js'
import { type Listed, physicalBytes } from './format.js'
import type { ReplicaPlace } from './types.js'

export const FIRST_BLOCK = 16
export const DEFAULT_BLOCKS = 8192
export const MIN_BLOCKS = 16
export const MAX_BLOCKS = 8192
export const MAX_REPLICAS = 50
const LMDB_MAGIC = 0xbeefc0de

/** A system error in strerror(3)'s words. */
export const sysError = (e: unknown, object: string): MetaError => {
  const { code, message } = e as NodeJS.ErrnoException
  return metaError('sys', object, code === undefined ? message : strerror(code))
}
const refusal = (path: string, text: string): MetaError => metaError('sys', path, text)

const looksLikeReplica = async (file: FileHandle): Promise<boolean> => {
  const b = Buffer.alloc(28)
  const { bytesRead } = await file.read(b, 0, b.length, 0)
  return bytesRead === b.length && b.readUInt32LE(24) === LMDB_MAGIC
}

const magicAt = async (path: string): Promise<boolean> => {
  const file = await open(path, 'r')
  try {
    return await looksLikeReplica(file)
  } finally {
    await file.close()
  }
}

const isErrno = (e: unknown, code: string): boolean => (e as NodeJS.ErrnoException).code === code

/** A file that may be made: absent below a directory, or empty. */
const fileIsFree = async (path: string): Promise<MetaResult<void>> => {
  try {
    const s = await stat(path)
    if (s.isFile() && s.size === 0) return ok(undefined)
    if (s.isFile() && (await magicAt(path))) return err(metaError('replicaExists', path))
    return err(refusal(path, 'File exists'))
  } catch (e) {
    if (!isErrno(e, 'ENOENT')) return err(sysError(e, path))
  }
  try {
    if (!(await stat(dirname(path))).isDirectory()) return err(refusal(path, 'Not a directory'))
    return ok(undefined)
  } catch (e) {
    return err(sysError(e, path))
  }
}

const newId = (): string => randomBytes(16).toString('hex')

const planFiles = async (
  place: string,
  inside: boolean,
  count: number,
  blocks: number,
): Promise<MetaResult<readonly Listed[]>> => {
  const planned: Listed[] = []
  for (let i = 0; i < count; i++) {
    const path = inside ? join(place, `mddb.${i}`) : i === 0 ? place : `${place}.${i}`
    const free = await fileIsFree(path)
    if (!free.ok) return free
    planned.push({
      id: newId(),
      path,
      place,
      kind: 'file',
      index: i,
      firstBlock: FIRST_BLOCK + i * blocks,
      blocks,
      identity: null,
    })
  }
  return ok(planned)
}

const planDevice = async (
  path: string,
  rdev: bigint,
  count: number,
  blocks: number,
): Promise<MetaResult<readonly Listed[]>> => {
  try {
    const bytes = deviceBytes(rdev)
    const needed = Math.max((FIRST_BLOCK + count * blocks) * 512, physicalBytes(blocks))
    if (bytes < needed) return err(metaError('replicaTooSmall', path, String(Math.floor(bytes / 512))))
    if (count !== 1) return err(refusal(path, 'a device holds one replica (-c 1)'))
    if (await magicAt(path)) return err(metaError('replicaExists', path))
    return ok([
      { id: newId(), path, place: path, kind: 'block', index: 0, firstBlock: FIRST_BLOCK, blocks, identity: null },
    ])
  } catch (e) {
    return err(sysError(e, path))
  }
}

const planPlace = async (place: string, count: number, blocks: number): Promise<MetaResult<readonly Listed[]>> => {
  try {
    const s = await stat(place, { bigint: true })
    if (s.isBlockDevice()) return await planDevice(place, s.rdev, count, blocks)
    if (s.isDirectory()) return await planFiles(place, true, count, blocks)
    if (!s.isFile()) return err(metaError('notADisk', place))
  } catch (e) {
    if (!isErrno(e, 'ENOENT')) return err(sysError(e, place))
  }
  return planFiles(place, false, count, blocks)
}

/** What `metadb -d PLACE` means: every replica made there. */
export const isAt = (listed: Listed, place: string): boolean => {
  const p = resolve(place)
  return listed.place === p || listed.path === p
}

/** Which storage a path leads to right now: enough to find two names of one, not to know it again later. */
const storageKey = async (path: string): Promise<string | null> => {
  try {
    const s = await stat(path, { bigint: true })
    return s.isBlockDevice() ? `block ${s.rdev}` : `${s.dev} ${s.ino}`
  } catch {
    return null
  }
}

/** The first path that leads where an earlier one leads. */
export const sameStorageTwice = async (paths: readonly string[]): Promise<string | undefined> => {
  const keys = await Promise.all(paths.map(storageKey))
  return paths.find((_, i) => keys[i] !== null && keys.indexOf(keys[i] ?? null) < i)
}

export interface AddOptions {
  readonly count: number
  readonly length: number | null
}

/** Checks everything that can be known without writing. */
export const planReplicas = async (
  places: readonly ReplicaPlace[],
  options: AddOptions,
  existing: readonly Listed[],
): Promise<Result<readonly Listed[], MetaError>> => {
  const { count } = options
  const known = existing.map((l) => l.blocks).filter((b) => b !== null)
  const blocks = options.length ?? (known.length > 0 ? Math.min(...known) : DEFAULT_BLOCKS)
  if (!Number.isSafeInteger(count) || count < 1) return err(metaError('sys', undefined, 'count (-c) must be 1 or more'))
  if (!Number.isSafeInteger(blocks) || blocks < MIN_BLOCKS)
    return err(metaError('sys', undefined, 'size (-l) is too small'))
  if (blocks > MAX_BLOCKS) return err(metaError('sys', undefined, 'size (-l) is too big'))
  const total = existing.length + places.length * count
  if (places.length === 0) return err(metaError('sys', undefined, 'no devices specified to attach or detach'))
  if (total > MAX_REPLICAS) return err(metaError('tooManyReplicas', undefined, String(total), String(MAX_REPLICAS)))

  const planned: Listed[] = []
  for (const given of places) {
    const place = resolve(given.path)
    const taken = [...existing, ...planned]
    if (taken.some((l) => isAt(l, place))) return err(metaError('replicaExists', place))
    if ((await sameStorageTwice([...taken.map((l) => l.path), place])) === place)
      return err(metaError('replicaExists', place))
    const plan = await planPlace(place, count, blocks)
    if (!plan.ok) return plan
    for (const l of plan.value) if (taken.some((t) => t.path === l.path)) return err(metaError('replicaExists', l.path))
    planned.push(...plan.value)
  }
  return ok(planned)
}
