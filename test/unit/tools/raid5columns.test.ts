/** The independent reader of RAID5 columns, against tables of where Solaris puts segments. */
import t from 'tap'
import { parityOf, readColumns, segmentsOf, volumeOf, wrongParity } from '../../tools/raid5columns.js'

/** A row for each line; "P" is parity, numbers are segments. */
const TABLES: readonly { readonly originals: number; readonly table: readonly string[] }[] = [
  { originals: 3, table: ['0 1 P', 'P 2 3', '5 P 4', '6 7 P', 'P 8 9', '11 P 10'] },
  { originals: 4, table: ['0 1 2 P', 'P 3 4 5', '8 P 6 7', '10 11 P 9', '12 13 14 P'] },
  { originals: 5, table: ['0 1 2 3 P', 'P 4 5 6 7', '11 P 8 9 10', '14 15 P 12 13', '17 18 19 P 16', '20 21 22 23 P'] },
  { originals: 3, table: ['0 1 P 8', 'P 2 3 9', '5 P 4 10', '6 7 P 11'] },
]

t.test('segments lie where the tables say', async (t) => {
  for (const { originals, table } of TABLES) {
    const rows = table.map((row) => row.split(' '))
    const columns = rows[0]?.length ?? 0
    const made = rows.map((_, line) => {
      const row = Array<string>(columns).fill('?')
      row[parityOf(originals, line)] = 'P'
      return row
    })
    for (const [n, [line, column]] of segmentsOf(originals, columns, rows.length).entries()) {
      const row = made[line]
      if (row !== undefined) row[column] = row[column] === '?' ? String(n) : 'twice'
    }
    t.strictSame(made, rows, `${originals} of ${columns} columns`)
  }
})

const BLOCK = 512
const PREWRITE = 3
const SEGMENT = 2

/** A column behind `start` blocks of something else; `data` in blocks, each full of that number. */
const column = (index: number, of: number, start: number, data: readonly number[]): Buffer => {
  const image = Buffer.alloc((start + PREWRITE + data.length) * BLOCK)
  const header = image.subarray(start * BLOCK)
  for (const [at, value] of [
    [36, index],
    [44, 0xbadbabe3],
    [48, 3],
    [52, of],
    [56, SEGMENT],
    [60, data.length / SEGMENT],
    [72, PREWRITE],
    [76, start + PREWRITE],
    [84, start],
  ] as const)
    header.writeUInt32LE(value, at)
  for (const [i, value] of data.entries())
    image.fill(value, (start + PREWRITE + i) * BLOCK, (start + PREWRITE + i + 1) * BLOCK)
  return image
}

const numbersIn = (volume: Buffer): readonly (number | undefined)[] =>
  Array.from({ length: volume.length / BLOCK }, (_, i) => volume[i * BLOCK + 17])

t.test('columns, wherever they begin, are one volume; any one of them follows from the others', async (t) => {
  // Lines 0 and 1: [1 2, 3 4, P] and [P, 5 6, 7 8].
  const images = [
    column(0, 3, 0, [1, 2, 5 ^ 7, 6 ^ 8]),
    column(1, 3, 4, [3, 4, 5, 6]),
    column(2, 3, 1, [1 ^ 3, 2 ^ 4, 7, 8]),
  ]
  const whole = readColumns(images)
  t.strictSame(numbersIn(volumeOf(whole)), [1, 2, 3, 4, 5, 6, 7, 8])
  t.strictSame(wrongParity(whole), [])
  for (const gone of images.keys()) {
    const rest = readColumns(images.map((image, i) => (i === gone ? null : image)))
    t.strictSame(numbersIn(volumeOf(rest)), [1, 2, 3, 4, 5, 6, 7, 8], `without column ${gone}`)
  }
  const torn = readColumns([images[0] ?? null, images[1] ?? null, column(2, 3, 1, [1 ^ 3, 2 ^ 4, 7, 9])])
  t.strictSame(wrongParity(torn), [1])
})

t.test('what is not this column of this device is refused', async (t) => {
  const data = [0, 0]
  const [a, b, c] = [column(0, 3, 0, data), column(1, 3, 0, data), column(2, 3, 0, data)]
  t.throws(() => readColumns([a, c, b]), /column 1 says/)
  t.throws(() => readColumns([a, b]), /says/, 'one too few')
  t.throws(() => readColumns([a, b, column(2, 3, 0, [0, 0, 0, 0])]), /column 2 says/, 'another length')
  t.throws(() => readColumns([a, Buffer.alloc(4096), c]), /no header/)
})
