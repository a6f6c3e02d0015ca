import t from 'tap'
import { openMarks, recovered, syncedForBoot, withoutMarks } from '../../../src/daemon/recovery.js'
import type { MirrorUnit, Tree } from '../../../src/meta/types.js'
import { changed, type Changes } from '../meta/mirrors.js'
import { mirrorIn, name, treeOf } from '../meta/world.js'

const TREE = treeOf(['d1 1 1 /disks/a', 'd2 1 1 /disks/b', 'd3 1 1 /disks/c', 'd0 -m d1 d2 d3'])
const tree = (what: Changes): Tree => changed(TREE, 'd0', what)
const d0 = name('d0')

const states = (of: Tree): readonly string[] => mirrorIn(of, 'd0').submirrors.map((s) => s.state)
const after = (of: Tree, dirty: boolean, closed: readonly string[] = []): Tree => {
  const r = recovered(
    of,
    new Set([d0]),
    () => dirty,
    (c) => !closed.includes(c.name),
    5000,
  )
  if (!r.ok) throw new Error('recovered')
  return r.value.outcome.tree
}
const passed = (of: Tree, pass: number): Tree => {
  const m: MirrorUnit = { ...mirrorIn(of, 'd0'), pass }
  return new Map(of).set(d0, m)
}

t.test('the first side in step that can be opened counts, the others are copied where they may differ', async (t) => {
  t.same(states(after(TREE, true)), ['okay', 'optimized', 'optimized'])
  t.same(states(after(TREE, true, ['/disks/a'])), ['optimized', 'okay', 'optimized'])
  t.same(states(after(tree({ sides: { d1: 'resync' } }), true)), ['resync', 'okay', 'optimized'])
})

t.test('a mirror that nobody wrote to stays as it is; what was offline comes back', async (t) => {
  t.equal(after(TREE, false), TREE)
  t.same(states(after(tree({ sides: { d2: 'offline' } }), false)), ['okay', 'offlineResync', 'okay'])
})

t.test('only mirrors that were not served until now', async (t) => {
  const r = recovered(
    tree({ sides: { d2: 'offline' } }),
    new Set(),
    () => true,
    () => true,
    0,
  )
  t.ok(r.ok && r.value.outcome.put.length === 0)
})

t.test('a start wants again what was cancelled or failed, but for pass 0', async (t) => {
  const stopped = tree({ sides: { d2: 'attached', d3: 'resync' } })
  const cancelled: Tree = new Map(stopped).set(d0, { ...mirrorIn(stopped, 'd0'), cancelled: true })
  const again = syncedForBoot(cancelled, d0, 5000).tree
  t.same(states(again), ['okay', 'resync', 'resync'])
  t.notOk(mirrorIn(again, 'd0').cancelled)
  t.equal(syncedForBoot(passed(cancelled, 0), d0, 5000).put.length, 0)
  t.equal(syncedForBoot(TREE, d0, 5000).put.length, 0)
  t.equal(syncedForBoot(cancelled, name('d9'), 5000).put.length, 0, 'each mirror for itself')
})

t.test('marks of an older release are found and taken away', async (t) => {
  const marks = openMarks(
    new Map([
      ['open/d0', true],
      ['unit/d0', true],
    ]),
  )
  t.same([...marks], [['open/d0', 'd0']])
  t.same([...withoutMarks(marks)], [['open/d0', null]])
})
