import t from 'tap'
import { crc32 } from 'node:zlib'
import { blocks } from '../../../src/base/units.js'
import { LABEL_BYTES, parseLabel } from '../../../src/sys/label.js'

const smi = (): Buffer => {
  const disk = Buffer.alloc(LABEL_BYTES)
  disk.writeUInt16BE(16, 436)
  disk.writeUInt16BE(63, 438)
  disk.writeUInt32BE(0, 444)
  disk.writeUInt32BE(1008, 448)
  disk.writeUInt32BE(2, 444 + 7 * 8)
  disk.writeUInt32BE(2016, 448 + 7 * 8)
  disk.writeUInt16BE(0xdabe, 508)
  let sum = 0
  for (let i = 0; i < 510; i += 2) sum ^= disk.readUInt16BE(i)
  disk.writeUInt16BE(sum, 510)
  return disk
}

t.test('an SMI label gives slices in cylinders of its own geometry', async (t) => {
  const label = parseLabel(smi(), blocks(100_000))
  t.equal(label?.kind, 'smi')
  t.same(label?.geometry, { heads: 16, sectors: 63 })
  t.same(
    [...(label?.slices ?? [])],
    [
      [0, { first: 0, size: 1008 }],
      [7, { first: 2016, size: 2016 }],
    ],
  )
})

t.test('one flipped bit, or a slice past the end, is not believed', async (t) => {
  const bad = smi()
  bad[100] = (bad[100] ?? 0) ^ 1
  t.equal(parseLabel(bad, blocks(100_000)), undefined)
  t.same([...(parseLabel(smi(), blocks(3000))?.slices.keys() ?? [])], [0])
})

t.test('an unlabelled disk has none', async (t) => {
  t.equal(parseLabel(Buffer.alloc(LABEL_BYTES), blocks(100)), undefined)
  t.equal(parseLabel(Buffer.alloc(10), blocks(0)), undefined)
})

t.test(
  'an EFI label needs both checksums',
  { skip: typeof crc32 === 'function' ? false : 'zlib.crc32 is absent' },
  async (t) => {
    const disk = Buffer.alloc(LABEL_BYTES)
    const entry = disk.subarray(1024)
    entry.write('type', 0)
    entry.writeBigUInt64LE(34n, 32)
    entry.writeBigUInt64LE(1033n, 40)
    const header = disk.subarray(512, 512 + 92)
    header.write('EFI PART', 0)
    header.writeUInt32LE(92, 12)
    header.writeBigUInt64LE(2n, 72)
    header.writeUInt32LE(128, 80)
    header.writeUInt32LE(128, 84)
    header.writeUInt32LE(crc32(disk.subarray(1024, 1024 + 128 * 128)), 88)
    header.writeUInt32LE(crc32(header), 16)
    t.same([...(parseLabel(disk, blocks(5000))?.slices ?? [])], [[0, { first: 34, size: 1000 }]])
    entry[40] = 1
    t.equal(parseLabel(disk, blocks(5000)), undefined)
  },
)
