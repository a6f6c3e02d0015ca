/**
 * Disk labels, read only: SPARC SMI (VTOC) and EFI (GPT), so that `cXtYdZsN` names lead to the same
 * blocks as on Solaris. Every field is checked before it is believed; anything doubtful is "no label".
 */
import { type Blocks, blocks } from '../base/units.js'
import type { Geometry } from '../meta/types.js'

export interface Slice {
  readonly first: Blocks
  readonly size: Blocks
}
export interface Label {
  readonly kind: 'smi' | 'efi'
  readonly geometry: Geometry
  /** By slice number; empty slices are absent. */
  readonly slices: ReadonlyMap<number, Slice>
}

/** Unlabelled storage: 64 heads x 32 sectors, 1 MiB cylinders (design 3). */
export const DEFAULT_GEOMETRY: Geometry = { heads: 64, sectors: 32 }

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
    if (size > 0 && first + size <= total) slices.set(i, { first: blocks(first), size: blocks(size) })
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
      slices.set(i, { first: blocks(first), size: blocks(last - first + 1) })
  }
  return { kind: 'efi', geometry: DEFAULT_GEOMETRY, slices }
}

/** How much of the disk's start parseLabel wants to see. */
export const LABEL_BYTES = 34 * 512

export const parseLabel = (disk: Buffer, total: Blocks): Label | undefined => {
  if (disk.length < 1024) return undefined
  return parseEfi(disk, total) ?? parseSmi(disk, total)
}
