import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { locate, startBlock } from '../../../src/meta/layout.js'
import type { Row } from '../../../src/meta/types.js'
import { device, inventoryOf, metainit, refusals, stripeIn, treeOf } from './world.js'

const SUN = { heads: 24, sectors: 424 } // 10176-block cylinders
const disk = (name: string, size: number, labelAtStart: boolean, replicaEnd = 0) =>
  device(name, size, { geometry: SUN, labelAtStart, replicaEnd: blocks(replicaEnd) })

t.test('start block', async (t) => {
  t.same(startBlock(disk('a', 50880, true), true), { start: 0, labelled: true }, 'label inside the volume')
  t.same(startBlock(disk('a', 50880, true), false), { start: 10176, labelled: false }, 'one cylinder is lost')
  t.same(startBlock(disk('a', 50880, false), false), { start: 0, labelled: false })
  t.same(
    startBlock(disk('a', 50880, true, 8207), true),
    { start: 10176, labelled: false },
    'a replica wins over the label',
  )
  t.same(startBlock(disk('a', 50880, false, 10177), true), { start: 20352, labelled: false })
  t.equal(startBlock(disk('a', 50880, false, 10176), false).start, 20352, 'the last replica block is never shared')
})

t.test('a stripe loses the label cylinder of all but the first slice', async (t) => {
  const inventory = inventoryOf([disk('/a', 101760, true), disk('/b', 101760, true), disk('/c', 101760, true)])
  const d7 = stripeIn(treeOf(['d7 2 2 /a /b -i 1024b 1 /c'], { inventory }), 'd7')
  t.same(
    d7.rows.map((r) => r.components.map((c) => c.start)),
    [[0, 10176], [10176]],
  )
  t.equal(d7.labelled, true)
  // usable of /b: 91584 = 89 * 1024 + 448
  t.same(
    d7.rows.map((r) => r.blocks),
    [2 * 89 * 1024, 91584],
  )
  t.equal(d7.actualBlocks, 182272 + 91584)
  t.equal(d7.blocks, 26 * 10176, 'rounded down to cylinders of the first component')
})

t.test('excess of larger components is lost, concatenations are not rounded to the interlace', async (t) => {
  const inventory = inventoryOf([device('/a', 10_000), device('/b', 9_000), device('/c', 5_001)])
  const tree = treeOf(['d0 1 2 /a /b -i 16b'], { inventory })
  t.equal(stripeIn(tree, 'd0').actualBlocks, 2 * 8992)
  t.equal(stripeIn(tree, 'd0').blocks, 8 * 2048)
  const concat = stripeIn(treeOf(['d1 2 1 /a 1 /c'], { inventory }), 'd1')
  t.equal(concat.actualBlocks, 15_001)
  t.equal(concat.blocks, 7 * 2048)
})

t.test('no space', async (t) => {
  const inventory = inventoryOf([
    device('/small', 1023),
    device('/sub', 2047),
    device('/a', 4096),
    device('/label', 2048, { labelAtStart: true }),
    device('/full', 4096, { replicaEnd: blocks(8207) }),
  ])
  t.same(refusals(metainit('d0 2 1 /a 1 /small', { inventory })), ['/small: No space left on device'])
  t.same(refusals(metainit('d0 1 1 /sub', { inventory })), ['d0: No space left on device'], 'less than a cylinder')
  t.same(refusals(metainit('d0 2 1 /a 1 /label', { inventory })), ['/label: No space left on device'])
  t.same(refusals(metainit('d0 1 1 /full', { inventory })), ['/full: No space left on device'])
})

t.test('sizes stay exact or are refused', async (t) => {
  const huge = Number.MAX_SAFE_INTEGER - 5
  const inventory = inventoryOf([device('/a', huge), device('/b', huge)])
  t.same(refusals(metainit('d0 2 1 /a 1 /b', { inventory })), [
    `d0: unit size overflow, limit is ${Number.MAX_SAFE_INTEGER} blocks`,
  ])
  t.equal(refusals(metainit('d0 1 2 /a /b', { inventory })).length, 1)
  t.equal(refusals(metainit('d0 1 1 /a', { inventory })).length, 0)
})

t.test('worked mapping: three components, interlace 32', async (t) => {
  const inventory = inventoryOf([device('/a', 64000), device('/b', 64000), device('/c', 64000)])
  const { rows } = stripeIn(treeOf(['d0 1 3 /a /b /c -i 32b'], { inventory }), 'd0')
  t.equal(rows[0]?.blocks, 192000)
  t.same(locate(rows, blocks(100)), { row: 0, component: 0, block: 36, run: 28 })
  t.same(locate(rows, blocks(75)), { row: 0, component: 2, block: 11, run: 21 })
  t.equal(locate(rows, blocks(192000)), null)
})

t.test('mapping crosses rows and skips the start', async (t) => {
  const inventory = inventoryOf([device('/a', 4096), device('/b', 6144, { labelAtStart: true })])
  const rows: readonly Row[] = stripeIn(treeOf(['d0 2 1 /a 1 /b'], { inventory }), 'd0').rows
  t.same(locate(rows, blocks(4095)), { row: 0, component: 0, block: 4095, run: 1 })
  t.same(locate(rows, blocks(4096)), { row: 1, component: 0, block: 2048, run: 4096 })
})
