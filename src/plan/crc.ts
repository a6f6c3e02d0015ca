/** CRC-32C (Castagnoli), the checksum of an encoded plan. Plans are small; a table is fast enough. */
const TABLE = Uint32Array.from({ length: 256 }, (_, i) => {
  let c = i
  for (let bit = 0; bit < 8; bit++) c = c & 1 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1
  return c >>> 0
})

/** Of `bytes`, with the four bytes at `zeroAt` taken as zero when it is given. */
export const crc32c = (bytes: Uint8Array, zeroAt = -4): number => {
  let c = 0xffffffff
  bytes.forEach((value, i) => {
    const byte = i >= zeroAt && i < zeroAt + 4 ? 0 : value
    c = (TABLE[(c ^ byte) & 0xff] ?? 0) ^ (c >>> 8)
  })
  return ~c >>> 0
}
