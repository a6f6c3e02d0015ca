/**
 * Disk labels, read only, so that `cXtYdZsN` names lead to the same blocks as on Solaris: SMI (VTOC) as
 * SPARC writes it, in block 0 of the disk; SMI as x86 writes it, in block 1 of an fdisk partition, its
 * slices counted from there; and EFI (GPT). Every field is checked before it is believed; anything
 * doubtful is "no label".
 */
import { type Blocks, blocks } from '../base/units.js'
import type { Geometry } from '../meta/types.js'

export interface Slice {
  /** Block of the disk. */
  readonly first: Blocks
  readonly size: Blocks
  /** The label lies inside (driver.md 1.2): its first cylinder is not for data. */
  readonly holdsLabel: boolean
}
export interface Label {
  readonly kind: 'smi' | 'efi'
  readonly geometry: Geometry
  /** By slice number; empty slices are absent. */
  readonly slices: ReadonlyMap<number, Slice>
}

/** Unlabelled storage: 64 heads x 32 sectors, 1 MiB cylinders (design 3). */
export const DEFAULT_GEOMETRY: Geometry = { heads: 64, sectors: 32 }
/** An EFI label knows no cylinders; Solaris takes these of 16 MiB, and so rounds sizes to them. */
export const EFI_GEOMETRY: Geometry = { heads: 128, sectors: 256 }

const SMI_MAGIC = 0xdabe

/** SMI label in block 0: big-endian, XOR of all 256 half-words is zero. */
const parseSmi = (disk: Buffer, total: Blocks): Label | undefined => {
  if (disk.readUInt16BE(508) !== SMI_MAGIC) return undefined
  let sum = 0
  for (let i = 0; i < 512; i += 2) sum ^= disk.readUInt16BE(i)
  if (sum !== 0) return undefined
  const heads = disk.readUInt16BE(436)
  const sectors = disk.readUInt16BE(438)
  if (heads === 0 || sectors === 0) return undefined
  const slices = new Map<number, Slice>()
  for (let i = 0; i < 8; i++) {
    const first = disk.readUInt32BE(444 + i * 8) * heads * sectors
    const size = disk.readUInt32BE(448 + i * 8)
    if (size > 0 && first + size <= total)
      slices.set(i, { first: blocks(first), size: blocks(size), holdsLabel: first === 0 })
  }
  return { kind: 'smi', geometry: { heads, sectors }, slices }
}

const SOLARIS_PARTITIONS: readonly number[] = [0xbf, 0x82]

/** fdisk partitions that may be Solaris's; 0x82 is Linux's swap as well, so only a label in it decides. */
export const solarisPartitions = (disk: Buffer): readonly { readonly first: Blocks; readonly size: Blocks }[] => {
  if (disk.length < 512 || disk.readUInt16LE(510) !== 0xaa55) return []
  const found = []
  for (let at = 446; at < 510; at += 16)
    if (SOLARIS_PARTITIONS.includes(disk[at + 4] ?? 0) && disk.readUInt32LE(at + 12) > 0)
      found.push({ first: blocks(disk.readUInt32LE(at + 8)), size: blocks(disk.readUInt32LE(at + 12)) })
  return found
}

const VTOC_SANE = 0x600ddeee
const X86_SLICES = 16

/** @param block the second block of the partition that begins at `first`. */
export const parseX86 = (block: Buffer, first: Blocks, total: Blocks): Label | undefined => {
  if (block.length < 512 || block.readUInt16LE(508) !== SMI_MAGIC) return undefined
  let sum = 0
  for (let i = 0; i < 512; i += 2) sum ^= block.readUInt16LE(i)
  if (sum !== 0 || block.readUInt32LE(12) !== VTOC_SANE || block.readUInt32LE(16) !== 1) return undefined
  const heads = block.readUInt32LE(468)
  const sectors = block.readUInt32LE(472)
  const cylinder = heads * sectors
  if (cylinder === 0 || cylinder > 2 ** 31 || block.readUInt16LE(28) !== 512) return undefined
  const slices = new Map<number, Slice>()
  for (let i = 0; i < Math.min(block.readUInt16LE(30), X86_SLICES); i++) {
    const start = block.readUInt32LE(76 + i * 12)
    const size = block.readUInt32LE(80 + i * 12)
    if (size > 0 && first + start + size <= total)
      slices.set(i, { first: blocks(first + start), size: blocks(size), holdsLabel: start === 0 })
  }
  return { kind: 'smi', geometry: { heads, sectors }, slices }
}

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n
  for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0xedb88320 : c >>> 1
  return c >>> 0
})
const crc32 = (bytes: Buffer): number => {
  let c = 0xffffffff
  for (const b of bytes) c = (c >>> 8) ^ (crcTable[(c ^ b) & 0xff] ?? 0)
  return (c ^ 0xffffffff) >>> 0
}

/** GPT header in block 1 and its entries, both with their CRC. */
const parseEfi = (disk: Buffer, total: Blocks): Label | undefined => {
  const header = disk.subarray(512, 1024)
  if (header.length < 512 || header.toString('latin1', 0, 8) !== 'EFI PART') return undefined
  const size = header.readUInt32LE(12)
  if (size < 92 || size > 512) return undefined
  const zeroed = Buffer.from(header.subarray(0, size))
  zeroed.writeUInt32LE(0, 16)
  if (crc32(zeroed) !== header.readUInt32LE(16)) return undefined
  const at = Number(header.readBigUInt64LE(72)) * 512
  const count = header.readUInt32LE(80)
  const entry = header.readUInt32LE(84)
  if (entry < 128 || count > 128 || at + count * entry > disk.length) return undefined
  const table = disk.subarray(at, at + count * entry)
  if (crc32(table) !== header.readUInt32LE(88)) return undefined
  const slices = new Map<number, Slice>()
  for (let i = 0; i < count; i++) {
    const e = table.subarray(i * entry, (i + 1) * entry)
    if (e.subarray(0, 16).every((b) => b === 0)) continue
    const first = Number(e.readBigUInt64LE(32))
    const last = Number(e.readBigUInt64LE(40))
    if (Number.isSafeInteger(last) && first <= last && last < total)
      slices.set(i, { first: blocks(first), size: blocks(last - first + 1), holdsLabel: false })
  }
  return { kind: 'efi', geometry: EFI_GEOMETRY, slices }
}

/** How much of the disk's start parseLabel wants to see. */
export const LABEL_BYTES = 34 * 512

export const parseLabel = (disk: Buffer, total: Blocks): Label | undefined => {
  if (disk.length < 1024) return undefined
  return parseEfi(disk, total) ?? parseSmi(disk, total)
}
