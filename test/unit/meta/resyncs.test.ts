import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import type { ResyncTarget } from '../../../src/meta/mirrorstate.js'
import { bootPasses, nextResync, optimizedPending, sameTarget, wantedResyncs } from '../../../src/meta/resyncs.js'
import type { Tree } from '../../../src/meta/types.js'
import { changed, type Changes } from './mirrors.js'
import { DISKS, mirrorIn, treeOf } from './world.js'

const TREE = treeOf([
  'd1 2 1 /disks/a 1 /disks/b',
  'd2 2 1 /disks/c 1 /disks/d',
  'd3 1 1 /disks/e',
  'd4 1 1 /disks/f',
  'd0 -m d1 d2',
  'd5 -m d3',
])
const show = (x: ResyncTarget): string => `${x.kind} ${x.slot}${x.kind === 'component' ? `.${x.component}` : ''}`
const wanted = (what: Changes): readonly string[] => {
  const tree = changed(TREE, 'd0', what)
  return wantedResyncs(mirrorIn(tree, 'd0'), tree).map(show)
}
const next = (tree: Tree, tried: readonly ResyncTarget[] = []) => {
  const plan = nextResync(mirrorIn(tree, 'd0'), tree, tried)
  return plan === null ? null : `${show(plan.target)} from ${plan.from}`
}

t.test('optimized, then components, then sides', async (t) => {
  t.same(wanted({}), [])
  t.same(wanted({ sides: { d2: 'optimized' }, components: { b: 'resync', c: 'resync' } }), [
    'optimized 1',
    'component 0.1',
    'component 1.0',
  ])
  t.same(wanted({ sides: { d2: 'offlineResync' } }), ['optimized 1'])
  t.same(wanted({ sides: { d2: 'resync' }, components: { c: 'resync' } }), ['component 1.0', 'full 1'])
  t.same(wanted({ sides: { d2: 'attached' } }), [], 'that one waits for metasync')
  t.same(wanted({ sides: { d2: 'offline' }, components: { c: 'resync' } }), [], 'it is not written')
  t.same(wanted({ sides: { d2: 'resync' }, components: { c: 'erred', d: 'erred' } }), [], 'nothing to write to')
  t.same(wanted({ components: { a: 'resync', c: 'erred' } }), [], 'no source')
  t.same(wantedResyncs(mirrorIn(TREE, 'd5'), TREE), [], 'one side')
})

t.test('what failed is not tried again, what was cancelled waits', async (t) => {
  const tree = changed(TREE, 'd0', { components: { c: 'resync', d: 'resync' } })
  t.equal(next(tree), 'component 1.0 from 0')
  const first = { kind: 'component', slot: 1, component: 0 } as const
  t.equal(next(tree, [first]), 'component 1.1 from 0')
  t.equal(next(tree, [first, { ...first, component: 1 }]), null)
  t.equal(next(changed(tree, 'd0', { mirror: { cancelled: true } })), null)
  t.equal(sameTarget(first, { kind: 'full', slot: 1 }), false)
  t.equal(sameTarget({ kind: 'full', slot: 1 }, { kind: 'full', slot: 0 }), false)
})

t.test('a copy goes on where it was only on the same storage', async (t) => {
  const at = (component: number | null, identity: string, what: Changes) =>
    next(changed(TREE, 'd0', { ...what, mirror: { checkpoint: { slot: 1, component, identity, done: blocks(4096) } } }))
  const [c = '', d = ''] = [DISKS[2]?.identity, DISKS[3]?.identity]
  t.equal(at(null, `${c} ${d}`, { sides: { d2: 'resync' } }), 'full 1 from 4096')
  t.equal(at(null, `${c} other`, { sides: { d2: 'resync' } }), 'full 1 from 0')
  t.equal(at(0, c, { components: { c: 'resync' } }), 'component 1.0 from 4096')
  t.equal(at(0, d, { components: { c: 'resync' } }), 'component 1.0 from 0')
  t.equal(at(1, c, { components: { c: 'resync' } }), 'component 1.0 from 0', 'another component')
  t.equal(at(null, `${c} ${d}`, { components: { c: 'resync' } }), 'component 1.0 from 0', 'another kind')
  t.equal(at(null, `${c} ${d}`, { sides: { d2: 'optimized' } }), 'optimized 1 from 0')
})

t.test('outstanding optimized resyncs', async (t) => {
  const pending = (d2: 'okay' | 'resync' | 'offline' | 'optimized' | 'offlineResync') =>
    optimizedPending(mirrorIn(changed(TREE, 'd0', { sides: { d2 } }), 'd0'))
  t.same((['okay', 'resync', 'offline', 'optimized', 'offlineResync'] as const).map(pending), [
    false,
    false,
    false,
    true,
    true,
  ])
})

t.test('passes', async (t) => {
  const m = mirrorIn(TREE, 'd0')
  const passes = bootPasses([3, 1, 0, 3].map((pass) => ({ ...m, pass })))
  t.same(
    passes.map((ms) => ms.map((x) => x.pass)),
    [[1], [3, 3]],
  )
})
