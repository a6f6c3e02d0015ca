import fc from 'fast-check'
import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { locate } from '../../../src/meta/layout.js'
import {
  ALL_OPENABLE,
  blockWithoutSource,
  coverOf,
  firstUncovered,
  hasOtherSource,
  type Place,
  sidesIn,
} from '../../../src/meta/sources.js'
import type { Component, Row, Tree } from '../../../src/meta/types.js'
import { changed } from './mirrors.js'
import { CYLINDER, device, inventoryOf, mirrorIn, treeOf } from './world.js'
import { seed } from '../../tools/seed.js'

/** d1 is a stripe of two and a row of one; d2 two rows of one: their borders differ. */
const inventory = inventoryOf('abcdefgh'.split('').map((c) => device(`/disks/${c}`, 10 * CYLINDER)))
const TREE = treeOf(
  ['d1 2 2 /disks/a /disks/b -i 16b 1 /disks/c', 'd2 3 1 /disks/d 1 /disks/e 1 /disks/f', 'd0 -m d1 d2'],
  { inventory },
)
const other = (tree: Tree, slot: Place['slot'], component: number, openable = ALL_OPENABLE) => {
  const m = mirrorIn(tree, 'd0')
  return hasOtherSource(m.blocks, sidesIn(m, tree), { slot, component }, openable)
}
const gap = (tree: Tree, without: Place['slot'] | null = null) => {
  const m = mirrorIn(tree, 'd0')
  return blockWithoutSource(m.blocks, sidesIn(m, tree), ALL_OPENABLE, without)
}

t.test('another source: Okay ones, and Last Erred ones', async (t) => {
  t.equal(other(TREE, 0, 0), true)
  const with_ = (components: NonNullable<Parameters<typeof changed>[2]['components']>) =>
    changed(TREE, 'd0', { components })
  t.equal(other(with_({ d: 'erred' }), 0, 0), false, 'half of it is in Maintenance')
  t.equal(other(with_({ d: 'resync' }), 0, 0), false, 'Resyncing is no source')
  t.equal(other(with_({ d: 'lastErred' }), 0, 0), true)
  t.equal(other(with_({ f: 'erred' }), 0, 0), true, 'another range')
  t.equal(other(with_({ f: 'erred' }), 0, 2), false)
  t.equal(other(with_({ a: 'erred' }), 1, 0), false, 'every second piece has no other')
  t.equal(other(with_({ a: 'erred' }), 1, 2), true)
  t.equal(
    other(TREE, 0, 0, (c) => c.name !== '/disks/e'),
    false,
    'what cannot be opened is none',
  )
})

t.test('a Last Erred component is judged by those that erred later', async (t) => {
  const order = (a: number, d: number) =>
    changed(TREE, 'd0', {
      components: { a: { state: 'lastErred', erredOrder: a }, d: { state: 'lastErred', erredOrder: d } },
    })
  t.equal(other(order(1, 2), 0, 0), true)
  t.equal(other(order(2, 1), 0, 0), false)
  t.equal(other(order(2, 1), 1, 0), true, 'a has its pieces, b is okay')
})

t.test('sides that are not in step are no source', async (t) => {
  const side = (state: 'attached' | 'resync' | 'offline' | 'offlineResync' | 'optimized') =>
    other(changed(TREE, 'd0', { sides: { d2: state } }), 0, 0)
  t.equal(side('attached'), false)
  t.equal(side('resync'), false)
  t.equal(side('offline'), false)
  t.equal(side('offlineResync'), false, 'it missed writes')
  t.equal(side('optimized'), true, 'it holds every flushed block')
})

t.test('the whole mirror', async (t) => {
  t.equal(gap(TREE), null)
  t.equal(gap(TREE, 0), null)
  t.equal(gap(changed(TREE, 'd0', { components: { e: 'erred' } }), 0), 10 * CYLINDER)
  const crossed = changed(TREE, 'd0', { components: { b: 'erred', d: 'erred' } })
  t.equal(gap(crossed), 16, 'the second piece of the stripe')
  t.equal(gap(changed(TREE, 'd0', { components: { b: 'erred', f: 'erred' } })), null, 'each has what the other lacks')
})

t.test('what lies beyond the mirror does not count', async (t) => {
  const tree = treeOf(['d1 1 1 /disks/a', 'd2 2 1 /disks/b 1 /disks/c', 'd0 -m d1 d2'], { inventory })
  t.equal(other(tree, 1, 1), true, 'no block of the mirror lies on it')
  t.equal(other(changed(tree, 'd0', { components: { a: 'erred' } }), 1, 1), true)
  t.equal(other(changed(tree, 'd0', { components: { a: 'erred' } }), 1, 0), false)
})

t.test('the shortcut by periods finds what looking at every block finds', async (t) => {
  const component = (i: number): Component => ({ name: `${i}` }) as Component
  const row = fc.record({
    width: fc.integer({ min: 1, max: 4 }),
    interlace: fc.integer({ min: 1, max: 7 }),
    stripes: fc.integer({ min: 1, max: 9 }),
  })
  const side = fc.record({
    rows: fc.array(row, { minLength: 1, maxLength: 3 }),
    ok: fc.array(fc.boolean(), { minLength: 12, maxLength: 12 }),
  })
  type SideShape = {
    readonly rows: readonly { width: number; interlace: number; stripes: number }[]
    readonly ok: readonly boolean[]
  }
  const rowsOf = (s: SideShape): readonly Row[] => {
    let index = 0
    return s.rows.map(({ width, interlace, stripes }) => ({
      interlace: blocks(interlace),
      blocks: blocks(width * interlace * stripes),
      components: Array.from({ length: width }, () => ({ ...component(index++), start: blocks(0) })),
    }))
  }
  const has = (s: SideShape, rows: readonly Row[], b: number): boolean => {
    const at = locate(rows, blocks(b))
    if (at === null) return false
    const before = rows.slice(0, at.row).reduce((n, r) => n + r.components.length, 0)
    return s.ok[before + at.component] ?? false
  }
  let gaps = 0
  fc.assert(
    fc.property(
      fc.option(side, { nil: null }),
      fc.array(side, { maxLength: 3 }),
      fc.integer({ min: 1, max: 400 }),
      (of, by, size) => {
        const ofRows = of === null ? [] : rowsOf(of)
        const byRows = by.map(rowsOf)
        let expected: number | null = null
        for (let b = 0; b < size && expected === null; b++) {
          if (of !== null && !has(of, ofRows, b)) continue
          if (!by.some((s, i) => has(s, byRows[i] ?? [], b))) expected = b
        }
        if (expected !== null) gaps++
        const cover = (s: SideShape, rows: readonly Row[]) => coverOf(rows, (_, index) => s.ok[index] ?? false)
        const found = firstUncovered(
          blocks(size),
          of === null ? null : cover(of, ofRows),
          by.map((s, i) => cover(s, byRows[i] ?? [])),
        )
        if (found !== expected) throw new Error(`found ${found}, expected ${expected}`)
      },
    ),
    { numRuns: 3000, seed },
  )
  t.ok(gaps > 100, `${gaps} gaps`)
})

/** Looking at every block would not end within the test's time limit. */
t.test('a mirror of petabytes is decided by its patterns', async (t) => {
  const big = 2 ** 42
  const huge = inventoryOf('abcdefgh'.split('').map((c) => device(`/disks/${c}`, big)))
  const tree = treeOf(['d1 1 3 /disks/a /disks/b /disks/c -i 16b', 'd2 1 2 /disks/d /disks/e -i 48b', 'd0 -m d1 d2'], {
    inventory: huge,
  })
  const crossed = changed(tree, 'd0', { components: { a: 'erred', d: 'erred' } })
  t.equal(gap(crossed), 0)
  t.equal(other(changed(tree, 'd0', { components: { d: 'erred' } }), 0, 2), false)
})
