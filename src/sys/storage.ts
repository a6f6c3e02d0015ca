/**
 * What storage a path really is. Identity is the innermost thing the kernel shows: a file by device,
 * inode and birth, a block device by number and serial, a partition as an extent of its disk, a loop
 * device as an extent of its backing file. Two names are the same storage exactly when identity is
 * equal and extents overlap, whatever links, bind mounts or loops lie between.
 */
import { constants } from 'node:fs'
import { open, readFile, readlink, realpath, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { type Blocks, blocks, wholeBlocks } from '../base/units.js'

export interface Storage {
  readonly identity: string
  readonly first: Blocks
  readonly size: Blocks
  readonly blockDevice: boolean
  readonly logicalBlock: number
  readonly readOnly: boolean
  /** major:minor of a block device, else null. */
  readonly devno: string | null
}

const text = async (path: string): Promise<string | undefined> => {
  try {
    return (await readFile(path, 'utf8')).trim()
  } catch {
    return undefined
  }
}
const number = async (path: string): Promise<number> => Number((await text(path)) ?? '0')

const split = (dev: bigint): string => {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn)
  const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn)
  return `${major}:${minor}`
}

const fileIdentity = (s: { dev: bigint; ino: bigint; birthtimeMs: bigint }): string =>
  `file:${s.dev}:${s.ino}:${s.birthtimeMs}`

/** A loop device whose backing file has no name any more: it could be any storage. */
const LOST = 'lost'

const blockStorage = async (devno: string): Promise<Storage | undefined> => {
  const sys = `/sys/dev/block/${devno}`
  const size = blocks(await number(join(sys, 'size')))
  const logicalBlock = (await number(join(sys, 'queue/logical_block_size'))) || 512
  const readOnly = (await number(join(sys, 'ro'))) !== 0
  const base = { blockDevice: true, size, readOnly, devno }

  const backing = await text(join(sys, 'loop/backing_file'))
  if (backing !== undefined) {
    const s = await stat(backing, { bigint: true }).catch(() => undefined)
    const offset = wholeBlocks(BigInt((await text(join(sys, 'loop/offset'))) ?? '0'))
    if (s?.isFile()) return { ...base, identity: fileIdentity(s), first: offset, logicalBlock }
    const below = s?.isBlockDevice() ? await blockStorage(split(s.rdev)) : undefined
    if (below !== undefined)
      return { ...base, identity: below.identity, first: blocks(below.first + offset), logicalBlock }
    return { ...base, identity: LOST, first: blocks(0), logicalBlock }
  }
  if ((await text(join(sys, 'partition'))) !== undefined) {
    const disk = join(await realpath(sys), '..')
    const parent = await text(join(disk, 'dev'))
    const below = parent === undefined ? undefined : await blockStorage(parent)
    if (below !== undefined) {
      const start = await number(join(sys, 'start'))
      return { ...base, identity: below.identity, first: blocks(below.first + start), logicalBlock: below.logicalBlock }
    }
  }
  const serial = (await text(join(sys, 'device/wwid'))) ?? (await text(join(sys, 'serial'))) ?? ''
  return { ...base, identity: `block:${devno}:${serial}`, first: blocks(0), logicalBlock }
}

/** @returns undefined when `path` is neither a regular file nor a block device. @throws errno errors of stat. */
export const examine = async (path: string): Promise<Storage | undefined> => {
  const s = await stat(path, { bigint: true })
  if (s.isFile())
    return {
      identity: fileIdentity(s),
      first: blocks(0),
      size: wholeBlocks(s.size),
      blockDevice: false,
      logicalBlock: 512,
      readOnly: false,
      devno: null,
    }
  if (s.isBlockDevice()) {
    const found = await blockStorage(split(s.rdev))
    if (found?.identity === LOST) throw Object.assign(new Error(`${path}: backing file is gone`), { code: 'ENXIO' })
    return found
  }
  return undefined
}

/**
 * Whether what was recorded is what is there now. Device numbers may change over a reboot; an inode
 * with its birth, or a serial number, may not. Storage that offers neither is trusted by its path.
 */
export const sameAfterRestart = (recorded: string, now: string): boolean => {
  if (recorded === now) return true
  const a = recorded.split(':')
  const b = now.split(':')
  if (a[0] !== b[0]) return false
  if (a[0] === 'file') return a[2] === b[2] && a[3] === b[3]
  return a[3] === b[3]
}

/** A piece of one storage object, in blocks. */
export interface Piece {
  readonly identity: string
  readonly first: number
  readonly size: number
}

/** `same`: two names of one piece; `part`: different pieces that have blocks in common. */
export const overlap = (a: Piece, b: Piece): 'none' | 'same' | 'part' => {
  if (a.identity !== b.identity) return 'none'
  if (a.first === b.first && a.size === b.size) return 'same'
  return a.first < b.first + b.size && b.first < a.first + a.size ? 'part' : 'none'
}

export interface KernelUse {
  readonly how: 'mounted' | 'swap' | 'busy'
  readonly where: string
  /** The other device, when it only overlaps this one. */
  readonly device?: string
}

const unescape = (s: string): string =>
  s.replace(/\\([0-7]{3})/g, (_, o: string) => String.fromCharCode(parseInt(o, 8)))

interface MountedStorage {
  readonly storage: Storage
  readonly device: string
  readonly use: KernelUse
}

/** Every block device that is mounted and everything that is swapped on. */
export const kernelUses = async (): Promise<readonly MountedStorage[]> => {
  const uses: MountedStorage[] = []
  for (const line of ((await text('/proc/self/mountinfo')) ?? '').split('\n')) {
    const words = line.split(' ')
    const devno = words[2]
    const where = words[4]
    if (devno === undefined || where === undefined || devno.startsWith('0:')) continue
    const storage = await blockStorage(devno)
    // What was mounted is named behind the dash that ends the optional fields.
    const device = unescape(words[words.indexOf('-') + 2] ?? devno)
    if (storage !== undefined) uses.push({ storage, device, use: { how: 'mounted', where: unescape(where) } })
  }
  for (const line of ((await text('/proc/swaps')) ?? '').split('\n').slice(1)) {
    const path = unescape(line.split(/\s+/)[0] ?? '')
    const storage = path === '' ? undefined : await examine(path).catch(() => undefined)
    if (storage !== undefined) uses.push({ storage, device: path, use: { how: 'swap', where: path } })
  }
  return uses
}

/**
 * Who in the kernel uses `piece` of the storage at `path`: a mount, swap, or another holder that refuses O_EXCL. A slice
 * of a disk is asked for as a whole disk is, because only that can be opened: metad would be refused as well.
 */
export const kernelUse = async (
  path: string,
  storage: Storage,
  piece: Piece,
  uses: readonly MountedStorage[],
): Promise<KernelUse | null> => {
  const same = uses.find((u) => overlap(u.storage, piece) === 'same')
  if (same !== undefined) return same.use
  const part = uses.find((u) => overlap(u.storage, piece) === 'part')
  if (part !== undefined) return { ...part.use, device: part.device }
  if (!storage.blockDevice) return null
  try {
    const h = await open(path, constants.O_RDONLY | constants.O_EXCL)
    await h.close()
    return null
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code !== 'EBUSY') return null
    const holders = await readlink(`/sys/dev/block/${storage.devno ?? ''}/holders`).catch(() => '')
    return { how: 'busy', where: holders === '' ? basename(path) : holders }
  }
}
