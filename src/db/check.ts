/**
 * Looks at a replica with plain reads before LMDB may map it: LMDB answers damaged files with SIGSEGV, SIGBUS or an
 * empty database. Checked are both meta pages, the size, and every branch and leaf page that the newer meta reaches.
 * Only the layout of LMDB's data format 2 with 64-bit page numbers is known here; anything else is refused.
 */
import { closeSync, fstatSync, openSync, readFileSync, readSync, statSync } from 'node:fs'
import { type Result, err, ok } from '../base/result.js'

const MAGIC = 0xbeefc0de
const DATA_VERSION = 2
const PAGE_HEADER = 24
const P_BRANCH = 0x01
const P_LEAF = 0x02
const P_META = 0x08
const NO_PAGE = 0xffffffffffffffffn
const MAX_DEPTH = 32
/** Offsets in a meta page. */
const AT = {
  flags: 18,
  magic: 24,
  version: 28,
  pageSize: 48,
  freeRoot: 88,
  mainRoot: 136,
  lastPage: 144,
  txn: 152,
} as const
const META_BYTES = 168

/** A regular file by inode and birth; a block device by number. */
export const identityOf = (path: string): string => {
  const s = statSync(path, { bigint: true })
  return s.isBlockDevice() ? `block:${s.rdev}` : `file:${s.ino}:${s.birthtimeNs}`
}

export const deviceBytes = (rdev: bigint): number => {
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn)
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & ~0xffn)
  return Number(readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'utf8').trim()) * 512
}

interface Meta {
  readonly pageSize: number
  readonly roots: readonly bigint[]
  readonly lastPage: bigint
  readonly txn: bigint
}

const readMeta = (b: Buffer): Result<Meta, string> => {
  if ((b.readUInt16LE(AT.flags) & P_META) === 0 || b.readUInt32LE(AT.magic) !== MAGIC)
    return err('not a state database')
  if ((b.readUInt32LE(AT.version) & 0xffff) !== DATA_VERSION) return err('unknown version of the file format')
  const pageSize = b.readUInt32LE(AT.pageSize)
  if (pageSize < 512 || pageSize > 65536 || (pageSize & (pageSize - 1)) !== 0) return err('impossible page size')
  const lastPage = b.readBigUInt64LE(AT.lastPage)
  const roots = [b.readBigUInt64LE(AT.freeRoot), b.readBigUInt64LE(AT.mainRoot)].filter((r) => r !== NO_PAGE)
  if (roots.some((r) => r > lastPage || r < 2n)) return err('a tree begins outside the file')
  return ok({ pageSize, roots, lastPage, txn: b.readBigUInt64LE(AT.txn) })
}

/** @returns page numbers below a branch page, none below a leaf, or what is wrong. */
const readNode = (page: Buffer, number: bigint, lastPage: bigint): Result<readonly bigint[], string> => {
  const flags = page.readUInt16LE(AT.flags)
  if (page.readBigUInt64LE(0) !== number || (flags & (P_BRANCH | P_LEAF)) === 0)
    return err(`page ${number} is not a tree page`)
  const lower = page.readUInt16LE(20)
  const upper = page.readUInt16LE(22)
  const room = page.length - PAGE_HEADER
  if (lower % 2 !== 0 || lower > upper || upper > room) return err(`page ${number} has wrong bounds`)
  const children: bigint[] = []
  for (let at = PAGE_HEADER; at < PAGE_HEADER + lower; at += 2) {
    const node = page.readUInt16LE(at)
    if (node < upper || node + 8 > room) return err(`page ${number} has a wrong entry`)
    const from = PAGE_HEADER + node
    const low = page.readUInt16LE(from)
    const high = page.readUInt16LE(from + 2)
    const nodeFlags = page.readUInt16LE(from + 4)
    const keyBytes = page.readUInt16LE(from + 6)
    if ((flags & P_BRANCH) !== 0) {
      const child = BigInt(low) | (BigInt(high) << 16n) | (BigInt(nodeFlags) << 32n)
      if (child > lastPage || child < 2n) return err(`page ${number} points outside the file`)
      children.push(child)
    } else {
      // A large value lies in pages of its own; here is only its page number.
      const bytes = (nodeFlags & 1) !== 0 ? 8 : low + high * 65536
      if (node + 8 + keyBytes + bytes > room) return err(`page ${number} has a wrong entry`)
      if ((nodeFlags & 1) !== 0) {
        const first = page.readBigUInt64LE(from + 8 + keyBytes)
        if (first > lastPage || first < 2n) return err(`page ${number} points outside the file`)
      }
    }
  }
  return ok(children)
}

const walk = (fd: number, meta: Meta): Result<void, string> => {
  const seen = new Set<bigint>()
  let level: readonly bigint[] = meta.roots
  const page = Buffer.alloc(meta.pageSize)
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > MAX_DEPTH) return err('tree is too deep')
    const below: bigint[] = []
    for (const number of level) {
      if (seen.has(number)) return err(`page ${number} is used twice`)
      seen.add(number)
      if (readSync(fd, page, 0, page.length, Number(number) * meta.pageSize) !== page.length)
        return err('file is truncated')
      const node = readNode(page, number, meta.lastPage)
      if (!node.ok) return node
      below.push(...node.value)
    }
    level = below
  }
  return ok(undefined)
}

/** @throws system errors of open and read. @returns the size in bytes, or what is wrong with the contents. */
export const checkReplica = (path: string): Result<{ readonly bytes: number }, string> => {
  const fd = openSync(path, 'r')
  try {
    const s = fstatSync(fd, { bigint: true })
    const bytes = s.isBlockDevice() ? deviceBytes(s.rdev) : Number(s.size)
    if (!s.isBlockDevice() && !s.isFile()) return err('not a file or block device')
    const buffer = Buffer.alloc(META_BYTES)
    if (readSync(fd, buffer, 0, META_BYTES, 0) !== META_BYTES)
      return err(bytes === 0 ? 'file is empty' : 'file is truncated')
    const first = readMeta(buffer)
    if (!first.ok) return first
    if (readSync(fd, buffer, 0, META_BYTES, first.value.pageSize) !== META_BYTES) return err('file is truncated')
    const second = readMeta(buffer)
    if (!second.ok) return second
    if (second.value.pageSize !== first.value.pageSize) return err('page sizes differ')
    const newest = second.value.txn > first.value.txn ? second.value : first.value
    if ((Number(newest.lastPage) + 1) * newest.pageSize > bytes) return err('file is truncated')
    const walked = walk(fd, newest)
    return walked.ok ? ok({ bytes }) : walked
  } finally {
    closeSync(fd)
  }
}
