import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import {
  columnLayout,
  leastPrewrite,
  locateRaid5,
  MAX_SLOTS,
  raid5Size,
  transferFor,
} from '../../../src/meta/raid5geometry.js'

const b = blocks

t.test('sizes as a controller of 128 KiB gave them', async (t) => {
  // By hand: slots of min(256, 33) blocks, 10 of them; (1000000 - 330) div 32 lines leave 352, again 10 slots.
  t.same(columnLayout(1_000_000, b(32), 10, b(256)), { lines: 31239, prewrite: 330, slots: 10 })
  // Slots of 256 blocks; (1000000 - 2560) div 1024 = 974 lines leave 2624: 10 slots.
  t.same(columnLayout(1_000_000, b(1024), 10, b(256)), { lines: 974, prewrite: 2560, slots: 10 })
  // (998500 - 2560) div 1024 = 972 lines leave 3172, in which 12 slots of 256 have room.
  t.same(columnLayout(998_500, b(1024), 10, b(256)), { lines: 972, prewrite: 3072, slots: 12 }, 'leftover makes slots')
  t.same(columnLayout(1_000_000, b(32), 20, b(256)), { lines: 31229, prewrite: 660, slots: 20 })
  // An odd slot 11 times is rounded up to an even area: 11 x 33 = 363.
  t.same(columnLayout(364 + 32, b(32), 11, b(256)), { lines: 1, prewrite: 364, slots: 11 })
  t.same(columnLayout(363 + 32, b(32), 11, b(256)), null, 'a block too few for one line')
  t.same(columnLayout(-5, b(32)), null)
  // 220480 blocks are left of which -w could name 100 slots of 2048.
  t.same(columnLayout(425_280, b(204_800)), { lines: 1, prewrite: 204_800, slots: 100 })
})

t.test('our own components: the prewrite area is whole pages, and enough for the engine', async (t) => {
  t.equal(transferFor(b(1024)), 1024)
  t.equal(transferFor(b(100)), 96)
  t.equal(transferFor(b(204800)), 2048)
  t.equal(transferFor(b(2)), 16)
  for (let interlace = 2; interlace <= 5000; interlace++)
    for (const size of [204800, 204801, 211111]) {
      const layout = columnLayout(size, b(interlace))
      if (layout === null) throw new Error(`${interlace}`)
      if (interlace >= 16 && layout.prewrite % 8 !== 0) t.fail(`interlace ${interlace}: ${layout.prewrite}`)
      if (layout.prewrite < leastPrewrite(b(interlace))) t.fail(`interlace ${interlace}: too small`)
      if (layout.slots < 10 || layout.slots > MAX_SLOTS) t.fail(`interlace ${interlace}: ${layout.slots} slots`)
      if (layout.prewrite + layout.lines * interlace > size) t.fail(`interlace ${interlace}: beyond the end`)
    }
})

t.test('asking for the slots that came out gives the same again', async (t) => {
  for (const interlace of [2, 16, 33, 1000, 1024, 4096, 100_000])
    for (let size = 5_000_000; size < 5_000_000 + 3 * interlace; size += 7919) {
      const made = columnLayout(size, b(interlace))
      if (made === null) throw new Error(`${interlace} ${size}`)
      t.same(columnLayout(size, b(interlace), made.slots), made, `${interlace} ${size}`)
    }
})

const GEOMETRY = { heads: 16, sectors: 32 }

t.test('one original column of parity, attached ones hold data, whole cylinders', async (t) => {
  const shape = { originals: 4, serving: 4, interlace: b(32), lines: 31239 }
  t.same(raid5Size(shape, GEOMETRY), { ok: true, value: { actualBlocks: 2_998_944, blocks: 2_998_784 } })
  t.same(raid5Size({ ...shape, serving: 6 }, GEOMETRY), {
    ok: true,
    value: { actualBlocks: 5 * 32 * 31239, blocks: 4_998_144 },
  })
  t.match(raid5Size({ originals: 3, serving: 64, interlace: b(204800), lines: 2 ** 40 }, GEOMETRY), { ok: false })
})

/** driver.md 4.3: segments by line and column, `P` where parity is. */
const TABLES: readonly (readonly [number, number, number, readonly string[]])[] = [
  [3, 3, 6, ['0 1 P', 'P 2 3', '5 P 4', '6 7 P', 'P 8 9', '11 P 10']],
  [4, 4, 5, ['0 1 2 P', 'P 3 4 5', '8 P 6 7', '10 11 P 9', '12 13 14 P']],
  [5, 5, 6, ['0 1 2 3 P', 'P 4 5 6 7', '11 P 8 9 10', '14 15 P 12 13', '17 18 19 P 16', '20 21 22 23 P']],
  [3, 4, 4, ['0 1 P 8', 'P 2 3 9', '5 P 4 10', '6 7 P 11']],
]

t.test('where every block lies: the tables of the reference', async (t) => {
  const interlace = b(8)
  for (const [originals, serving, lines, table] of TABLES) {
    const shape = { originals, serving, interlace, lines }
    const found = Array.from({ length: lines }, () => Array.from({ length: serving }, () => '?'))
    const segments = lines * (serving - 1)
    for (let segment = 0; segment < segments; segment++)
      for (let offset = 0; offset < interlace; offset++) {
        const at = locateRaid5(shape, b(segment * interlace + offset))
        t.equal(at.block % interlace, offset)
        t.equal(at.run, interlace - offset)
        const line = Math.floor(at.block / interlace)
        const row = found[line] ?? []
        row[at.column] = String(segment)
        row[at.parity] = 'P'
      }
    t.same(
      found.map((row) => row.join(' ')),
      table,
    )
  }
  t.match(locateRaid5({ originals: 4, serving: 4, interlace: b(32), lines: 100 }, b(300)), {
    column: 3,
    parity: 2,
    block: 108,
    run: 20,
  })
})
