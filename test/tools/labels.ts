/** Writers of disk labels, field by field as the formats are documented, for images that no tool here can label. */
import { closeSync, openSync, writeSync } from 'node:fs'

export interface Part {
  readonly slice: number
  /** Blocks; of the disk for SPARC and EFI, of the Solaris partition for x86. */
  readonly first: number
  readonly size: number
}
export interface Shape {
  readonly heads: number
  readonly sectors: number
  readonly cylinders: number
}

/** The half-word before the last byte pair is the magic, the last makes the XOR of all zero. */
const sealed = (label: Buffer, big: boolean): Buffer => {
  const [read, write] = big
    ? [(at: number) => label.readUInt16BE(at), (n: number, at: number) => label.writeUInt16BE(n, at)]
    : [(at: number) => label.readUInt16LE(at), (n: number, at: number) => label.writeUInt16LE(n, at)]
  write(0xdabe, 508)
  let sum = 0
  for (let at = 0; at < 510; at += 2) sum ^= read(at)
  write(sum, 510)
  return label
}

/** The block 0 that a SPARC writes: big-endian, slices begin at cylinders. */
export const sparcLabel = (parts: readonly Part[], shape: Shape): Buffer => {
  const label = Buffer.alloc(512)
  label.write('metadisk test', 0, 'ascii')
  label.writeUInt32BE(1, 128)
  label.writeUInt16BE(8, 140)
  label.writeUInt32BE(0x600ddeee, 188)
  label.writeUInt16BE(7200, 420)
  label.writeUInt16BE(shape.cylinders + 2, 422)
  label.writeUInt16BE(1, 430)
  label.writeUInt16BE(shape.cylinders, 432)
  label.writeUInt16BE(2, 434)
  label.writeUInt16BE(shape.heads, 436)
  label.writeUInt16BE(shape.sectors, 438)
  for (const { slice, first, size } of parts) {
    const cylinder = first / (shape.heads * shape.sectors)
    if (!Number.isInteger(cylinder)) throw new Error(`slice ${slice} does not begin at a cylinder`)
    label.writeUInt16BE(2, 142 + slice * 4)
    label.writeUInt32BE(cylinder, 444 + slice * 8)
    label.writeUInt32BE(size, 448 + slice * 8)
  }
  return sealed(label, true)
}

/** The block that an x86 writes behind the first one of its fdisk partition: little-endian, sixteen slices. */
export const x86Label = (parts: readonly Part[], shape: Shape): Buffer => {
  const label = Buffer.alloc(512)
  label.writeUInt32LE(0x600ddeee, 12)
  label.writeUInt32LE(1, 16)
  label.writeUInt16LE(512, 28)
  label.writeUInt16LE(16, 30)
  for (const { slice, first, size } of parts) {
    const at = 72 + slice * 12
    label.writeUInt16LE(2, at)
    label.writeUInt32LE(first, at + 4)
    label.writeUInt32LE(size, at + 8)
  }
  label.write('metadisk test', 328, 'ascii')
  label.writeUInt32LE(shape.cylinders + 2, 456)
  label.writeUInt32LE(shape.cylinders, 460)
  label.writeUInt16LE(2, 464)
  label.writeUInt32LE(shape.heads, 468)
  label.writeUInt32LE(shape.sectors, 472)
  label.writeUInt16LE(1, 476)
  label.writeUInt16LE(7200, 482)
  return sealed(label, false)
}

/** An fdisk table of one partition. */
export const mbr = (type: number, first: number, size: number): Buffer => {
  const block = Buffer.alloc(512)
  block[446] = 0x80
  block[446 + 4] = type
  block.writeUInt32LE(first, 446 + 8)
  block.writeUInt32LE(size, 446 + 12)
  block.writeUInt16LE(0xaa55, 510)
  return block
}

/** Bitwise, on purpose other than the table that the reader uses. */
const crc32 = (bytes: Uint8Array): number => {
  let crc = 0xffffffff
  for (const b of bytes) {
    crc ^= b
    for (let k = 0; k < 8; k++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0)
  }
  return (crc ^ 0xffffffff) >>> 0
}

/** Blocks 0 to 33 of a disk of `total` blocks: protective MBR, header, 128 entries. */
export const efiLabel = (parts: readonly Part[], total: number): Buffer => {
  const label = Buffer.alloc(34 * 512)
  mbr(0xee, 1, total - 1).copy(label)
  const entries = label.subarray(1024)
  for (const { slice, first, size } of parts) {
    const entry = entries.subarray(slice * 128, slice * 128 + 128)
    Buffer.from('6a898cc31dd211b299a6080020736631', 'hex').copy(entry)
    entry.fill(slice + 1, 16, 32)
    entry.writeBigUInt64LE(BigInt(first), 32)
    entry.writeBigUInt64LE(BigInt(first + size - 1), 40)
  }
  const header = label.subarray(512, 512 + 92)
  header.write('EFI PART', 0, 'ascii')
  header.writeUInt32LE(0x10000, 8)
  header.writeUInt32LE(92, 12)
  header.writeBigUInt64LE(1n, 24)
  header.writeBigUInt64LE(BigInt(total - 1), 32)
  header.writeBigUInt64LE(34n, 40)
  header.writeBigUInt64LE(BigInt(total - 34), 48)
  header.fill(0x42, 56, 72)
  header.writeBigUInt64LE(2n, 72)
  header.writeUInt32LE(128, 80)
  header.writeUInt32LE(128, 84)
  header.writeUInt32LE(crc32(entries), 88)
  header.writeUInt32LE(crc32(header), 16)
  return label
}

export const writeAt = (path: string, bytes: Uint8Array, block: number): void => {
  const fd = openSync(path, 'r+')
  writeSync(fd, bytes, 0, bytes.length, block * 512)
  closeSync(fd)
}
