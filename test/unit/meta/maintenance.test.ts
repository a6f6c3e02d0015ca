/** Commands on the sides and components of a mirror: every refusal in its order (commands.md 3.6 to 3.9, 3.23). */
import t from 'tap'
import { settleSpares } from '../../../src/meta/hotspare.js'
import { IDLE, type Live } from '../../../src/meta/kind.js'
import { detach, offline, online, type Outcome, replace, type ReplaceContext } from '../../../src/meta/operations.js'
import { withUnits } from '../../../src/meta/tree.js'
import type { Tree } from '../../../src/meta/types.js'
import { metaError, type MetaResult } from '../../../src/msg/errors.js'
import { err } from '../../../src/base/result.js'
import { changed, type Changes, componentStates, sideStates } from './mirrors.js'
import { CYLINDER, device, DISKS, inventoryOf, mirrorIn, name, said, stripeIn, text, treeOf } from './world.js'

const HOST = inventoryOf([
  ...DISKS,
  device('/disks/small', 99 * CYLINDER),
  device('/disks/large', 300 * CYLINDER),
  device('c1t0d0s0', 200 * CYLINDER, { labelAtStart: true }),
  device('/disks/mounted', 100 * CYLINDER, { usedBy: { how: 'mounted', where: '/home' } }),
  device('/disks/replica', 100 * CYLINDER, { isReplica: true }),
])
/** d1: /disks/a then /disks/b; d2: /disks/c then /disks/d; d3 is free; d9 is a mirror of one side. */
const TREE = treeOf(
  [
    'd1 2 1 /disks/a 1 /disks/b',
    'd2 2 1 /disks/c 1 /disks/d',
    'd0 -m d1 d2',
    'd3 1 1 /disks/e',
    'd4 1 1 /disks/f',
    'd9 -m d4',
  ],
  { inventory: HOST },
)
const tree = (what: Changes): Tree => changed(TREE, 'd0', what)
const live = (facts: Partial<Live>): Live => ({ ...IDLE, ...facts })
const only = (n: string) => (x: string) => x === n
const done = (r: MetaResult<Outcome>): Outcome => {
  if (!r.ok) throw new Error(text(r.error))
  return r.value
}
const cancelled = (what: Changes): Tree => tree({ ...what, mirror: { cancelled: true } })

const BUSY = 'd0: resync in progress'
const NO_SOURCE = 'd0: operation would result in no readable submirrors'
const ILLEGAL = 'd0: attempt operation on a submirror in illegal state'
const GONE = "d0: component is in unavailable state; run 'metastat -i'"

t.test('metadetach', async (t) => {
  const out = done(detach(['d0', 'd1'], false, TREE, IDLE, 7))
  t.same(out.changes, [{ change: 'submirrorDetached', name: 'd0', submirror: 'd1' }])
  t.same(
    mirrorIn(out.tree, 'd0').submirrors.map((s) => [s.slot, s.unit]),
    [[1, 'd2']],
  )
  t.same(
    out.put.map((u) => u.name),
    ['d0'],
  )
  t.ok(out.tree.has(name('d1')), 'it is a free stripe again')
  const erred = done(detach(['d0', 'd1'], true, tree({ components: { a: 'erred' } }), IDLE, 7))
  t.same(
    erred.put.map((u) => u.name),
    ['d0', 'd1'],
  )
  t.equal(stripeIn(erred.tree, 'd1').rows[0]?.components[0]?.state, 'okay')
})

t.test('metadetach: refusals in order', async (t) => {
  const r = (line: string, of = TREE, facts: Partial<Live> = {}, force = false) =>
    said(detach(line.split(' '), force, of, live(facts), 7))
  t.equal(r('d0 d99'), 'd99: unit not set up')
  t.equal(r('d99 d1'), 'd99: unit not set up')
  t.equal(r('d3 d1'), 'd3: invalid metadevice type md_stripe')
  t.equal(r('d0'), 'd0: syntax error')
  t.equal(r('d0 d1 d2'), 'd0: "d2": syntax error')
  t.equal(r('d0 d1', TREE, { isUnavailable: only('d1'), isResyncing: only('d0') }, true), GONE)
  t.equal(r('d0 d1', TREE, { isUnavailable: only('d0') }), GONE)
  t.equal(r('d0 d3', TREE, { isResyncing: only('d0') }, true), BUSY)
  for (const d2 of ['optimized', 'offlineResync'] as const)
    t.equal(r('d0 d3', tree({ sides: { d2 } }), {}, true), BUSY, d2)
  t.equal(r('d0 d3'), "d0: can't find submirror in mirror")
  t.equal(r('d9 d4'), 'd9: attempt to detach last running submirror')
  t.equal(r('d0 d1', tree({ sides: { d2: 'attached' } }), {}, true), NO_SOURCE)
  t.equal(
    r('d0 d1', tree({ components: { d: 'erred', a: 'erred' } }), {}, true),
    NO_SOURCE,
    'half of the other is gone',
  )
  t.equal(r('d0 d1', TREE, { isMissing: (c) => c.name === '/disks/d' }, true), NO_SOURCE)
  const erred = 'd0: attempt an operation on a submirror that has erred components'
  t.equal(r('d0 d1', tree({ components: { a: 'erred' } })), erred)
  t.equal(r('d0 d1', tree({ components: { a: 'lastErred' } })), erred)
  t.equal(r('d0 d1', tree({ components: { a: 'resync' } })), erred)
  t.equal(r('d0 d2', cancelled({ sides: { d2: 'resync' } })), erred)
  const detached = [{ change: 'submirrorDetached' }]
  t.match(r('d0 d2', cancelled({ sides: { d2: 'resync' } }), {}, true), detached)
  t.match(r('d0 d1', tree({ components: { a: 'erred' } }), {}, true), detached)
  t.match(r('d0 d2', tree({ sides: { d2: 'attached' } })), detached)
  t.match(r('d0 d2', tree({ sides: { d2: 'offline' } })), detached)
})

const side = (line: string, force = false) => {
  const [mirror = '', submirror = ''] = line.split(' ')
  return { mirror, submirror, force }
}

t.test('metaoffline', async (t) => {
  const out = done(offline(side('d0 d2'), { tree: TREE, live: IDLE, now: 7 }))
  t.same(out.changes, [{ change: 'submirrorOfflined', name: 'd0', submirror: 'd2' }])
  t.equal(sideStates(out.tree), 'okay offline')
  t.equal(mirrorIn(out.tree, 'd0').submirrors[1]?.changed, 7)

  const r = (line: string, of = TREE, facts: Partial<Live> = {}, force = false) =>
    said(offline(side(line, force), { tree: of, live: live(facts), now: 7 }))
  t.equal(r('d99 d1'), 'd99: unit not set up')
  t.equal(r('d3 d1'), 'd3: unit is not a mirror')
  t.equal(r('d0 d99'), 'd99: unit not set up')
  t.equal(r('d0 d3', TREE, { isResyncing: only('d0') }, true), BUSY)
  t.equal(r('d0 d3', tree({ sides: { d2: 'optimized' } }), {}, true), BUSY)
  t.equal(r('d0 d3'), "d0: can't find submirror in mirror")
  t.equal(r('d0 d2', tree({ components: { c: 'erred', a: 'erred' } })), ILLEGAL, 'before the question of sources')
  for (const d2 of ['attached', 'resync'] as const) {
    t.equal(r('d0 d2', tree({ sides: { d2 } })), ILLEGAL)
    t.match(r('d0 d2', tree({ sides: { d2 } }), {}, true), [{ change: 'submirrorOfflined' }])
  }
  t.equal(r('d0 d1', tree({ components: { c: 'erred' } }), {}, true), NO_SOURCE)
  t.equal(r('d0 d1', TREE, { isMissing: (c) => c.name === '/disks/c' }), NO_SOURCE)
  t.equal(r('d9 d4'), 'd9: operation would result in no readable submirrors')
  t.match(r('d0 d2', tree({ components: { c: 'erred' } }), {}, true), [{ change: 'submirrorOfflined' }])
  t.equal(r('d0 d2', tree({ sides: { d2: 'offline' } })), ILLEGAL)
  t.match(r('d0 d2', tree({ sides: { d2: 'offline' } }), {}, true), [{ change: 'submirrorOfflined' }], 'as it is')
})

t.test('metaonline', async (t) => {
  const away = tree({ sides: { d2: 'offline' } })
  const out = done(online(side('d0 d2'), { tree: away, live: IDLE, now: 7 }))
  t.same(out.changes, [{ change: 'submirrorOnlined', name: 'd0', submirror: 'd2' }])
  t.equal(sideStates(out.tree), 'okay offlineResync')

  const r = (line: string, of = away, facts: Partial<Live> = {}) =>
    said(online(side(line), { tree: of, live: live(facts), now: 7 }))
  t.equal(r('d3 d1'), 'd3: unit is not a mirror')
  t.equal(r('d0 d3', away, { isResyncing: only('d0') }), "d0: can't find submirror in mirror")
  t.equal(r('d0 d1', away, { isResyncing: only('d0') }), ILLEGAL, 'before the question of resyncs')
  t.equal(r('d0 d2', away, { isResyncing: only('d0') }), BUSY)
})

const replaceIn = (words: string, of = TREE, facts: Partial<Live> = {}, inventory = HOST): MetaResult<Outcome> => {
  const [unit = '', old = '', by] = words.split(' ')
  const context: ReplaceContext = {
    tree: of,
    inventory,
    namesOf: (w) => [w.replace('./', '/disks/')],
    live: live(facts),
    now: 7,
  }
  return replace({ unit, old, new: by ?? null, force: false }, context)
}

t.test('metareplace', async (t) => {
  const out = done(replaceIn('d0 /disks/c /disks/g', tree({ components: { c: 'erred' } })))
  t.same(out.changes, [{ change: 'deviceReplaced', name: 'd0', device: '/disks/c', by: '/disks/g' }])
  t.equal(componentStates(out.tree), 'okay okay | resync okay')
  t.match(stripeIn(out.tree, 'd2').rows[0]?.components[0], { name: '/disks/g', start: 0, changed: 7 })
  t.same(
    out.put.map((u) => u.name),
    ['d0', 'd2'],
  )
  const large = done(replaceIn('d0 /disks/c /disks/large'))
  t.equal(stripeIn(large.tree, 'd2').blocks, 200 * CYLINDER, 'the layout stays')
  const again = done(replaceIn('d0 /disks/c', tree({ components: { c: 'erred' } })))
  t.same(again.changes, [{ change: 'deviceEnabled', name: 'd0', device: '/disks/c' }])
  t.equal(componentStates(again.tree), 'okay okay | resync okay')
})

t.test('metareplace -e takes the storage that is there now', async (t) => {
  const swapped = inventoryOf([
    device('/disks/c', 150 * CYLINDER, { identity: 'file:1:new' }),
    ...DISKS.filter((d) => d.name !== '/disks/c'),
  ])
  const out = done(replaceIn('d0 /disks/c', tree({ components: { c: 'erred' } }), {}, swapped))
  t.match(stripeIn(out.tree, 'd2').rows[0]?.components[0], { identity: 'file:1:new', size: 150 * CYLINDER })
  const held = inventoryOf(DISKS.map((d) => ({ ...d, usedBy: { how: 'busy', where: 'metad' } }) as const))
  t.match(said(replaceIn('d0 /disks/c', TREE, {}, held)), [{ change: 'deviceEnabled' }], 'it is open because it serves')
  t.equal(
    said(replaceIn('d0 /disks/c', tree({ components: { c: 'erred' } }), {}, held)),
    '/disks/c: Device or resource busy',
    'somebody else has it',
  )
})

t.test('metareplace: a component is found by every name, also when its device is gone', async (t) => {
  const gone = inventoryOf(DISKS.filter((d) => d.name !== '/disks/c'))
  const of = tree({ components: { c: 'erred' } })
  t.match(said(replaceIn('d0 ./c /disks/g', of, {}, gone)), [{ device: '/disks/c', by: '/disks/g' }])
  t.equal(said(replaceIn('d0 /disks/c', of, {}, gone)), '/disks/c: No such file or directory')
})

t.test('metareplace: refusals in order', async (t) => {
  const r = (words: string, of = TREE, facts: Partial<Live> = {}, inventory = HOST) =>
    said(replaceIn(words, of, facts, inventory))
  t.equal(r('d99 x y'), 'd99: unit not set up')
  t.equal(r('d3 /disks/e /disks/g'), 'd3: unknown metadevice type')
  t.equal(r('d0 /disks/g', TREE, { isUnavailable: only('d0'), isResyncing: only('d0') }), GONE)
  t.equal(r('d0 /disks/g', TREE, { isResyncing: only('d0') }), BUSY)
  t.equal(r('d0 /disks/g', tree({ sides: { d2: 'offlineResync' } })), BUSY)
  t.equal(r('d0 /disks/e /disks/g'), "d0: /disks/e: can't find component in unit")
  t.equal(r('d9 /disks/f /disks/g'), 'd9: attempt to replace a component on the last running submirror')
  const order = 'd0: /disks/a: component in invalid state to replace - Replace "Maintenance" components first'
  t.equal(r('d0 /disks/a /disks/g', tree({ components: { a: 'lastErred', c: 'erred' } })), order)
  t.equal(r('d0 /disks/a /disks/g', tree({ components: { c: 'resync' } })), order)
  t.equal(r('d0 /disks/a /disks/g', TREE, { isMissing: (c) => c.name === '/disks/c' }), order)
  t.equal(r('d0 /disks/a /disks/g', tree({ sides: { d1: 'offline', d2: 'resync' } })), order, 'before the offline side')
  t.equal(r('d0 /disks/c /disks/small', tree({ sides: { d2: 'offline' } })), ILLEGAL)
  t.equal(r('d0 /disks/c /disks/small'), 'd0: /disks/small: replace failure, new component is too small')
  t.equal(r('d0 /disks/c /disks/none'), '/disks/none: No such file or directory')
  const dead = (w: string) => (w === '/disks/dead' ? err(metaError('sys', w, 'Input/output error')) : HOST(w))
  t.equal(r('d0 /disks/c /disks/dead', TREE, {}, dead), 'd0: /disks/dead: unable to open concat/stripe component')
  t.equal(r('d0 /disks/c /disks/e'), '/disks/e: has appeared more than once in the specification of d3')
  t.equal(r('d0 /disks/c /disks/c'), '/disks/c: has appeared more than once in the specification of d2')
  t.equal(r('d0 /disks/c /disks/mounted'), '/disks/mounted: is mounted on /home')
  t.equal(r('d0 /disks/c /disks/replica'), '/disks/replica: has a metadevice database replica')
  t.equal(r('d0 /disks/c d3'), 'd3: is a metadevice')
})

t.test('metareplace: what the state allows', async (t) => {
  const r = (words: string, of: Tree) => said(replaceIn(words, of))
  t.match(r('d0 /disks/c /disks/g', cancelled({ sides: { d2: 'resync' } })), [{ change: 'deviceReplaced' }])
  const out = done(replaceIn('d0 /disks/c /disks/g', cancelled({ sides: { d2: 'resync' } })))
  t.equal(mirrorIn(out.tree, 'd0').cancelled, false, 'a resync starts')
  t.match(r('d0 /disks/a', tree({ components: { a: 'lastErred', c: { state: 'lastErred', erredOrder: 9 } } })), [
    { change: 'deviceEnabled' },
  ])
})

t.test('metareplace: the label of a slice costs a cylinder, unless it was inside the volume', async (t) => {
  const slices = inventoryOf([
    ...DISKS,
    device('c0t0d0s0', 100 * CYLINDER, { labelAtStart: true }),
    device('c1t0d0s0', 100 * CYLINDER, { labelAtStart: true }),
  ])
  const labelled = treeOf(['d1 1 1 c0t0d0s0', 'd2 1 1 /disks/c', 'd0 -m d1 d2'], { inventory: slices })
  t.match(said(replaceIn('d0 c0t0d0s0 c1t0d0s0', labelled, {}, slices)), [{ by: 'c1t0d0s0' }])
  t.equal(
    said(replaceIn('d0 /disks/c c1t0d0s0', labelled, {}, slices)),
    'd0: c1t0d0s0: replace failure, new component is too small',
  )
})

t.test('a hot spare is free when its component is replaced', async (t) => {
  const original = stripeIn(TREE, 'd2').rows[0]?.components[0]
  if (original === undefined) throw new Error('no component')
  const { name: n, path, identity, extent, offset, size, start } = original
  const spare = { pool: name('hsp001'), original: { name: n, path, identity, extent, offset, size, start } }
  const spared = tree({ components: { c: { name: '/disks/h', path: '/disks/h', identity: 'file:1:/disks/h', spare } } })
  const out = done(replaceIn('d0 /disks/c', spared))
  t.same(out.changes, [{ change: 'deviceEnabled', name: 'd0', device: '/disks/c' }])
  t.match(stripeIn(out.tree, 'd2').rows[0]?.components[0], { name: '/disks/c', state: 'resync', spare: null })
  t.equal(
    said(replaceIn('d0 /disks/h', spared)),
    "d0: /disks/h: can't find component in unit",
    'a spare is no component',
  )
})

t.test('a spare that had failed goes back as Broken', async (t) => {
  const pooled = treeOf(['hsp001 /disks/h'], { inventory: HOST, tree: TREE })
  const original = stripeIn(TREE, 'd2').rows[0]?.components[0]
  if (original === undefined) throw new Error('no component')
  const { name: n, path, identity, extent, offset, size, start } = original
  const spare = { pool: name('hsp001'), original: { name: n, path, identity, extent, offset, size, start } }
  const by = { name: '/disks/h', path: '/disks/h', identity: 'file:1:/disks/h', spare }
  const broken = (state: 'okay' | 'resync' | 'erred' | 'lastErred') => {
    const before = changed(pooled, 'd0', { components: { c: { ...by, state } } })
    const out = settleSpares(before, done(replaceIn('d0 /disks/c', before)), 9)
    const pool = out.tree.get(name('hsp001'))
    return pool?.kind === 'pool' && pool.spares[0]?.broken
  }
  t.same((['okay', 'resync', 'erred', 'lastErred'] as const).map(broken), [false, false, true, true])
})

t.test('what was decided is what is recorded', async (t) => {
  const out = done(offline(side('d0 d2'), { tree: TREE, live: IDLE, now: 7 }))
  t.same(withUnits(TREE, out.put), out.tree)
})
