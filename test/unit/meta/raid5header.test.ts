import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { type ColumnHeader, decodeHeader, encodeHeader, isLive, slotBlocks } from '../../../src/meta/raid5header.js'

const HEADER: ColumnHeader = {
  column: 2,
  unit: 7,
  originals: 3,
  columns: 4,
  interlace: blocks(32),
  lines: 31239,
  slots: 10,
  prewrite: blocks(330),
  dataStart: blocks(2048 + 330),
  prewriteStart: blocks(2048),
  generation: 0,
  journal: 0,
  epoch: 0,
}

/** Offsets of driver.md 4.4: [column, unit, magic_ext, N, T, S, L, pwcnt, pwsize, devstart, pwstart]. */
const FORMS = [
  { name: 'x86 32', little: true, long: 4, at: [32, 36, 40, 44, 48, 52, 56, 60, 64, 68, 72] },
  { name: 'SPARC 32', little: false, long: 4, at: [36, 40, 44, 48, 52, 56, 60, 64, 68, 72, 76] },
  { name: 'x86 64', little: true, long: 8, at: [36, 40, 44, 48, 52, 56, 60, 68, 72, 76, 84] },
  { name: 'SPARC 64', little: false, long: 8, at: [44, 48, 52, 56, 60, 64, 72, 80, 84, 88, 96] },
] as const

const onSolaris = (f: (typeof FORMS)[number], h: ColumnHeader, magic: number): Uint8Array => {
  const view = new DataView(new ArrayBuffer(512))
  const { column, unit, originals, columns, interlace, lines, slots, prewrite, dataStart, prewriteStart } = h
  const values = [
    column,
    unit,
    0xbadbabe3,
    originals,
    columns,
    interlace,
    lines,
    slots,
    prewrite,
    dataStart,
    prewriteStart,
  ]
  for (const [i, at] of f.at.entries()) {
    const value = values[i] ?? 0
    if (f.long === 8 && [6, 9, 10].includes(i)) view.setBigUint64(at, BigInt(value), f.little)
    else view.setUint32(at, value, f.little)
  }
  view.setUint32(0, magic, f.little)
  return new Uint8Array(view.buffer)
}

t.test('all forms of Solaris are read', async (t) => {
  for (const f of FORMS) {
    const block = onSolaris(f, HEADER, 0)
    t.same(decodeHeader(block), { header: HEADER, ours: false, little: f.little }, f.name)
    t.equal(isLive(block, f.little), false)
    t.equal(isLive(onSolaris(f, HEADER, 0xbadbabe3), f.little), true)
  }
})

t.test('ours: the 64-bit form of x86, empty for SVM, with our mark', async (t) => {
  const block = encodeHeader(HEADER)
  t.equal(block.length, 512)
  t.same(decodeHeader(block), { header: HEADER, ours: true, little: true })
  t.equal(isLive(block, true), false, 'SVM sees an empty slot')
  const theirs = onSolaris(FORMS[2], HEADER, 0)
  t.same(
    [...block].flatMap((byte, i) => (byte === theirs[i] ? [] : [i])),
    [92, 93, 94, 95],
    'only the mark is different',
  )
  const later = { ...HEADER, generation: 300, journal: 2 ** 52 + 1, epoch: 2 ** 40 }
  t.same(decodeHeader(encodeHeader(later))?.header, later)
  t.equal(decodeHeader(onSolaris(FORMS[2], later, 0))?.header.generation, 0, 'Solaris does not count')
  const large = { ...HEADER, lines: 2 ** 40, dataStart: blocks(2 ** 41 + 330), prewriteStart: blocks(2 ** 41) }
  t.same(decodeHeader(encodeHeader(large))?.header, large)
})

t.test('what is no header', async (t) => {
  t.equal(decodeHeader(new Uint8Array(512)), null)
  t.equal(decodeHeader(new Uint8Array(100)), null)
  t.equal(decodeHeader(new Uint8Array(512).fill(0xff)), null)
  const odd = encodeHeader(HEADER)
  new DataView(odd.buffer).setBigUint64(60, 2n ** 60n, true)
  t.equal(decodeHeader(odd), null, 'numbers that are not exact')
})

t.test('where SVM has its slots', async (t) => {
  t.same(slotBlocks(HEADER), [0, 33, 66, 99, 132, 165, 198, 231, 264, 297])
  t.same(slotBlocks({ ...HEADER, slots: 11, prewrite: blocks(364) }).at(-1), 330, 'odd slots in an even area')
  t.same(slotBlocks({ ...HEADER, slots: 0 }), [])
  t.same(slotBlocks({ ...HEADER, prewrite: blocks(3) }), [])
})
