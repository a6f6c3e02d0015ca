import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { forgetSpares, poke, refuse, settleSpares, startOn, take } from '../../../src/meta/hotspare.js'
import { CALM, IDLE } from '../../../src/meta/kind.js'
import { advance, type MirrorEvent, stateOf, stateOutcome } from '../../../src/meta/mirrorstate.js'
import { clear, detach, type Outcome, outcome, param } from '../../../src/meta/operations.js'
import { raid5Event, type Raid5Event } from '../../../src/meta/raid5state.js'
import type { Json } from '../../../src/meta/reader.js'
import { encodeUnit, readTree, recordKey } from '../../../src/meta/records.js'
import { stripeComponents } from '../../../src/meta/sources.js'
import { spareState, standingSpares } from '../../../src/meta/standing.js'
import { statusOf } from '../../../src/meta/status.js'
import { poolOf, withUnits } from '../../../src/meta/tree.js'
import type { Component, Spare, Tree } from '../../../src/meta/types.js'
import { errorText } from '../../../src/msg/errors.js'
import { changed, componentStates, sideStates } from './mirrors.js'
import { COLUMN_BLOCKS, raid5, raid5In, slice, statesOf } from './raid5s.js'
import { CYLINDER, device, DISKS, inventoryOf, mirrorIn, name, stripeIn, treeOf } from './world.js'

const SPARES = [
  device('/spares/s', 20 * CYLINDER),
  device('/spares/m', 100 * CYLINDER),
  device('/spares/l', 300 * CYLINDER),
]
const inventory = inventoryOf([...DISKS, ...SPARES])
const MIRROR = ['d1 1 1 /disks/a -h hsp001', 'd2 1 1 /disks/b -h hsp001', 'd0 -m d1 d2']
const make = (pools: readonly string[], rest: readonly string[] = MIRROR): Tree =>
  treeOf([...pools, ...rest], { inventory })
const ERRED = changed(make(['hsp001 /spares/s /spares/l /spares/m']), 'd0', { components: { b: 'erred' } })

const at = (tree: Tree, unit: string, index = 0): Component => {
  const c = stripeComponents(stripeIn(tree, unit))[index]
  if (c === undefined) throw new Error(unit)
  return c
}
const spare = (tree: Tree, s: string, pool = 'hsp001'): Spare => {
  const found = poolOf(tree, name(pool))?.spares.find((x) => x.name === s)
  if (found === undefined) throw new Error(s)
  return found
}
const states = (tree: Tree, pool = 'hsp001'): string =>
  (poolOf(tree, name(pool))?.spares ?? []).map((s) => spareState(s, standingSpares(tree))).join(', ')
const proposed = (tree: Tree, live = IDLE): readonly string[] =>
  poke(tree, live).map((p) => `${p.unit}.${p.component} := ${p.by.name}@${p.by.start}`)
const taken = (tree: Tree, now = 9000): Tree => {
  const [p] = poke(tree, IDLE)
  const done = p === undefined ? null : take(tree, IDLE, p, now)
  if (done === null) throw new Error('nothing taken')
  return done.outcome.tree
}
/** The event and what follows from it for spares, as the daemon commits them. */
const happens = (tree: Tree, e: MirrorEvent, now = 9500): Tree => {
  const next = advance(stateOf(mirrorIn(tree, 'd0'), tree), e, now)
  if (!next.ok) throw new Error(next.error.state)
  return settleSpares(tree, stateOutcome(tree, next.value.state), now).tree
}

t.test('the first in pool order that fits is proposed, however large', async (t) => {
  const [p] = poke(ERRED, IDLE)
  t.match(p, {
    device: 'd0',
    unit: 'd2',
    component: 0,
    pool: 'hsp001',
    by: { name: '/spares/l', size: 300 * CYLINDER, start: 0 },
    blocks: 100 * CYLINDER,
  })
  t.same(poke(make(['hsp001 /spares/m']), IDLE), [], 'nothing erred')
  t.same(poke(changed(make(['hsp001']), 'd0', { components: { b: 'erred' } }), IDLE), [], 'an empty pool')
  t.same(poke(changed(make(['hsp001 /spares/s']), 'd0', { components: { b: 'erred' } }), IDLE), [], 'too small')
})

t.test('who gets a spare', async (t) => {
  const pools = ['hsp001 /spares/m']
  const none = make(pools, ['d1 1 1 /disks/a', 'd2 1 1 /disks/b', 'd0 -m d1 d2'])
  t.same(proposed(changed(none, 'd0', { components: { b: 'erred' } })), [], 'only submirrors with a pool')
  const of = (components: Parameters<typeof changed>[2]['components'], sides = {}): readonly string[] =>
    proposed(changed(make(pools), 'd0', { components: components ?? {}, sides }))
  t.same(of({ b: 'lastErred' }), [], 'Last Erred has no source')
  t.same(of({ b: 'resync' }), [])
  t.same(of({ b: 'erred' }), ['d2.0 := /spares/m@0'])
  t.same(of({ a: 'erred', b: 'erred' }), [], 'neither could be copied from anywhere')
  t.same(of({ a: 'lastErred', b: 'erred' }), ['d2.0 := /spares/m@0'], 'Last Erred is a source')
  t.same(of({ b: 'erred' }, { d2: 'offline' }), [])
  t.same(of({ b: 'erred' }, { d1: 'resync' }), [], 'the other side is no source')
  t.same(of({ b: 'erred' }, { d2: 'attached' }), ['d2.0 := /spares/m@0'], 'a side whose copy failed')
  t.same(proposed(changed(make(pools), 'd0', { components: { b: 'erred' } }), { ...IDLE, isResyncing: () => true }), [])
  const oneWay = changed(make(pools, ['d1 1 1 /disks/a -h hsp001', 'd0 -m d1']), 'd0', { components: { a: 'erred' } })
  t.same(proposed(oneWay), [])
})

t.test('several components share a pool, and no spare is promised twice', async (t) => {
  const tree = make(
    ['hsp001 /spares/s /spares/m', 'hsp002 /spares/m /spares/l'],
    [
      'd1 2 2 /disks/a /disks/b -i 64k 1 /disks/c -h hsp001',
      'd2 2 2 /disks/d /disks/e -i 64k 1 /disks/f -h hsp002',
      'd0 -m d1 d2',
    ],
  )
  const both = changed(tree, 'd0', { components: { a: 'erred', f: 'erred' } })
  t.same(proposed(both), ['d1.0 := /spares/m@0', 'd2.2 := /spares/l@0'], 'm is spoken for')
  const broken = withUnits(
    both,
    ['hsp001', 'hsp002'].flatMap((pool) => {
      const p = poolOf(both, name(pool))
      return p === null ? [] : [{ ...p, spares: p.spares.map((s) => ({ ...s, broken: s.name === '/spares/m' })) }]
    }),
  )
  t.same(proposed(broken), ['d2.2 := /spares/l@0'], 'Broken is not taken')
  t.same(states(broken), 'Available, Broken')
})

t.test('label areas (driver.md 3.2)', async (t) => {
  const of = (size: number, start: number, labelled: boolean): Spare => ({
    ...spare(ERRED, '/spares/m'),
    size: blocks(size),
    start: blocks(start),
    labelled,
  })
  t.equal(startOn(of(5000, 2048, true), blocks(5000), true), 0, 'label in the place of a label')
  t.equal(startOn(of(5000, 2048, true), blocks(5000), false), null, 'else the label is kept')
  t.equal(startOn(of(5000, 2048, true), blocks(2952), false), 2048)
  t.equal(startOn(of(5000, 2048, true), blocks(2953), false), null)
  t.equal(startOn(of(5000, 0, false), blocks(5000), true), 0)
  t.equal(startOn(of(4999, 0, false), blocks(5000), true), null)
  t.equal(startOn(of(5000, 2048, false), blocks(5000), true), null, 'what is in front is no label')

  const host = inventoryOf([
    device('c1', 20 * CYLINDER, { labelAtStart: true }),
    device('c2', 20 * CYLINDER, { labelAtStart: true }),
    device('c3', 20 * CYLINDER, { labelAtStart: true }),
    device('c4', 20 * CYLINDER),
    device('c5', 20 * CYLINDER, { labelAtStart: true }),
  ])
  const labelled = treeOf(['hsp001 c5', 'd1 2 1 c1 1 c2 -h hsp001', 'd2 2 1 c3 1 c4 -h hsp001', 'd0 -m d1 d2'], {
    inventory: host,
  })
  t.ok(stripeIn(labelled, 'd1').labelled)
  t.same(proposed(changed(labelled, 'd0', { components: { c1: 'erred' } })), ['d1.0 := c5@0'])
  t.same(proposed(changed(labelled, 'd0', { components: { c2: 'erred' } })), [`d1.1 := c5@${CYLINDER}`])
  t.same(proposed(changed(labelled, 'd0', { components: { c4: 'erred' } })), [], 'a cylinder short')
})

t.test('taking: the spare is the component, and what it was is remembered', async (t) => {
  const [p] = poke(ERRED, IDLE)
  const done = p === undefined ? null : take(ERRED, IDLE, p, 9000)
  t.same(
    done?.notices.map((n) => `${n.level} ${n.text}`),
    ['notice md: d2: hotspared device /disks/b with /spares/l'],
  )
  const tree = taken(ERRED)
  t.same(componentStates(tree), 'okay | resync')
  t.match(at(tree, 'd2'), {
    name: '/spares/l',
    size: 300 * CYLINDER,
    state: 'resync',
    spare: { pool: 'hsp001', original: { name: '/disks/b', size: 100 * CYLINDER } },
  })
  t.same(states(tree), 'Available, In use, Available')
  t.equal(spare(tree, '/spares/l').changed, 9000)
  t.same(proposed(tree), [])
  t.equal(p === undefined ? null : take(tree, IDLE, p, 1), null, 'the tree has moved on')

  const records = new Map(
    [...tree.values()].map((u) => [recordKey(u.name), JSON.parse(JSON.stringify(encodeUnit(u))) as Json]),
  )
  t.same(readTree(records), { tree, errors: [] })
  const { report } = statusOf(tree, CALM, { stale: false, names: ['d2', 'hsp001'] })
  t.match(
    report.units.find((u) => u.name === 'd2'),
    { tab: 'd2 1 1 /disks/b -h hsp001', rows: [{ components: [{ device: '/disks/b', hotSpare: '/spares/l' }] }] },
  )
  t.match(
    report.units.find((u) => u.name === 'hsp001'),
    { spares: [{ state: 'Available' }, { state: 'In use', changed: 9000 }, { state: 'Available' }] },
  )
  t.same(
    report.relocation.map((r) => r.device),
    ['/disks/b', '/spares/l', '/spares/s', '/spares/m'],
  )
})

t.test('a record whose spare could not hold the data is refused', async (t) => {
  const tree = taken(ERRED)
  const d2 = stripeIn(tree, 'd2')
  const rows = d2.rows.map((r) => ({ ...r, components: r.components.map((c) => ({ ...c, size: blocks(9) })) }))
  const spoilt = withUnits(tree, [{ ...d2, rows }])
  const { errors } = readTree(new Map([...spoilt.values()].map((u) => [recordKey(u.name), encodeUnit(u)])))
  t.match(errors[0]?.args, ['rows[0]: hot spare is too small'])
})

t.test('a spare that cannot be used is Broken in every pool, and the next one is proposed', async (t) => {
  const shared = withUnits(ERRED, [
    { kind: 'pool', name: name('other'), minor: 7, spares: [spare(ERRED, '/spares/l')] },
  ])
  const [p] = poke(shared, IDLE)
  if (p === undefined) throw new Error('nothing proposed')
  const { outcome: after, notices } = refuse(shared, p, 8000)
  t.same(
    notices.map((n) => `${n.level} ${n.text}`),
    ['warning md: d2: open error of hotspare /spares/l'],
  )
  t.match(spare(after.tree, '/spares/l'), { broken: true, changed: 8000 })
  t.same(spare(after.tree, '/spares/l'), spare(after.tree, '/spares/l', 'other'))
  t.same(proposed(after.tree), ['d2.0 := /spares/m@0'])
  t.equal(refuse(after.tree, p, 8001).outcome.tree, after.tree, 'once is enough')
})

t.test('a spare that fails in use is Broken, and another one takes its place', async (t) => {
  for (const copied of [false, true]) {
    const first = taken(ERRED)
    const target = { kind: 'component', slot: 1, component: 0 } as const
    const used = copied
      ? happens(first, { event: 'resyncEnd', target, result: 'done', done: blocks(0), failed: null })
      : first
    const failed = happens(used, { event: 'error', place: { slot: 1, component: 0 } })
    t.match(at(failed, 'd2'), { name: '/disks/b', state: 'erred', spare: null, size: 100 * CYLINDER })
    t.same(states(failed), 'Available, Broken, Available')
    t.equal(spare(failed, '/spares/l').changed, 9500)
    const second = taken(failed)
    t.match(at(second, 'd2'), { name: '/spares/m', spare: { original: { name: '/disks/b' } } })
    const last = happens(second, { event: 'error', place: { slot: 1, component: 0 } })
    t.same(proposed(last), [], 'none is left')
    t.match(at(last, 'd2'), { name: '/disks/b', state: 'erred', spare: null })
    t.same(states(last), 'Available, Broken, Broken')
  }
})

t.test('metareplace keeps it until its successor is in step, but for one that was Last Erred', async (t) => {
  const by = at(ERRED, 'd2')
  const place = { slot: 1, component: 0 } as const
  const copied = { target: { kind: 'component', ...place }, result: 'done', done: blocks(0), failed: null } as const
  for (const state of ['resync', 'okay'] as const) {
    const used = changed(taken(ERRED), 'd0', { components: { l: state } })
    const relieved = happens(used, { event: 'replace', place, by })
    t.match(at(relieved, 'd2'), { name: '/disks/b', spare: null, state: 'resync', relieves: '/spares/l' }, state)
    t.same(states(relieved), 'Available, In use, Available', state)
    const hsp = { name: 'd2', read: null, write: null, pass: null, hotSparePool: 'none' }
    t.match(param(hsp, relieved), { ok: false, error: { code: 'hspNotChanged' } })
    for (const over of [
      happens(relieved, { event: 'resyncEnd', ...copied }),
      happens(relieved, { event: 'error', place }),
      happens(relieved, { event: 'detach', slot: 1 }),
    ]) {
      t.same(states(over), 'Available, Available, Available', `${state}, ${at(over, 'd2').state}`)
      t.equal(spare(over, '/spares/l').changed, 9500, state)
      t.notOk('relieves' in at(over, 'd2'))
    }
    const again = happens(relieved, { event: 'replace', place, by })
    t.same(states(again), 'Available, In use, Available', 'replaced once more')
  }
  const failed = changed(taken(ERRED), 'd0', { components: { l: 'lastErred' } })
  t.same(states(happens(failed, { event: 'replace', place, by })), 'Available, Broken, Available')
})

t.test('a relieved spare is given to nobody else', async (t) => {
  const other = ['d3 1 1 /disks/c -h hsp001', 'd4 1 1 /disks/d -h hsp001', 'd9 -m d3 d4']
  const two = changed(make(['hsp001 /spares/l'], [...MIRROR, ...other]), 'd0', { components: { b: 'erred' } })
  const used = changed(taken(two), 'd0', { components: { l: 'okay' } })
  const place = { slot: 1, component: 0 } as const
  const relieved = happens(used, { event: 'replace', place, by: at(two, 'd2') })
  const wanting = changed(relieved, 'd9', { components: { d: 'erred' } })
  t.same(proposed(wanting), [], 'its successor is not in step')
  const target = { kind: 'component', ...place } as const
  const over = happens(wanting, { event: 'resyncEnd', target, result: 'done', done: blocks(0), failed: null })
  t.same(proposed(over), ['d4.0 := /spares/l@0'])
})

t.test('metaclear gives it back, metadetach does not', async (t) => {
  const used = changed(taken(ERRED), 'd0', { components: { l: 'okay' } })
  const settled = (done: Outcome): Tree => settleSpares(used, done, 9700).tree
  const ask = { force: false, recursive: true, softPartitions: false, all: false, names: ['d0'] }
  const cleared = settled(clear(ask, used, IDLE).outcome)
  t.same(states(cleared), 'Available, Available, Available')
  t.equal(spare(cleared, '/spares/l').changed, 9700)

  const alone = detach(['d0', 'd2'], false, used, IDLE, 9600)
  if (!alone.ok) throw new Error(alone.error.code)
  const detached = settled(alone.value)
  t.match(at(detached, 'd2'), { name: '/spares/l', spare: { original: { name: '/disks/b' } } })
  t.same(states(detached), 'Available, In use, Available')
  const gone = settleSpares(detached, clear({ ...ask, names: ['d2'] }, detached, IDLE).outcome, 1).tree
  t.same(states(gone), 'Available, Available, Available')
})

t.test('a side that had given up its copy is copied again with the spare', async (t) => {
  const tree = changed(ERRED, 'd0', { sides: { d2: 'attached' } })
  t.equal(sideStates(taken(tree)), 'okay resync')
})

t.test('changes that have nothing to do with spares stay as they are', async (t) => {
  const nothing = outcome(ERRED, { put: [stripeIn(ERRED, 'd1')] })
  t.equal(settleSpares(ERRED, nothing, 1), nothing)
  const used = taken(ERRED)
  const other = outcome(used, { put: [{ ...stripeIn(used, 'd1') }] })
  t.equal(settleSpares(used, other, 1), other)
})

t.test('metastat -i: spares that cannot be read leave their pools, unless they are used', async (t) => {
  const used = taken(ERRED)
  const done = forgetSpares(used, new Set(['/spares/l', '/spares/m', '/disks/a']))
  t.same(
    done.put.map((u) => (u.kind === 'pool' ? u.spares.map((s) => s.name) : [])),
    [['/spares/s', '/spares/l']],
  )
  t.same(done.warnings, [
    ['NOTICE: Hotspare /spares/m in hsp001 has failed.', '\tDeleting /spares/m since it not in use', ''],
  ])
  t.equal(forgetSpares(used, new Set(['/spares/l'])).tree, used)
})

const RAID_POOL = make(['hsp001 /spares/s /spares/m /spares/l'], [])
const raid = (states: string, facts: Parameters<typeof raid5>[2] = {}): Tree =>
  withUnits(RAID_POOL, [raid5(states, { hotSparePool: name('hsp001') }, facts)])
/** The event and what follows from it for spares, as the daemon commits them. */
const column = (tree: Tree, e: Raid5Event, now = 9500): Tree => {
  const next = raid5Event(tree, name('d5'), e, now)
  if (!next.ok) throw new Error(errorText(next.error))
  return settleSpares(tree, next.value.outcome, now).tree
}

t.test('RAID5: one column is in Maintenance, and a spare has room for its journal and data', async (t) => {
  t.same(proposed(raid('okay erred okay')), ['d5.1 := /spares/m@0'], 'the smallest would not do')
  t.match(poke(raid('okay erred okay'), IDLE)[0], { device: 'd5', blocks: COLUMN_BLOCKS, pool: 'hsp001' })
  t.same(proposed(raid('erred okay okay | init')), ['d5.0 := /spares/m@0'])
  for (const states of ['okay okay okay', 'erred lastErred okay', 'okay resync okay', 'init initErred init'])
    t.same(proposed(raid(states)), [], states)
  t.same(proposed(raid('okay okay okay | initErred')), [], 'it is zeroed again by metareplace')
  t.same(proposed(raid('okay erred okay'), { ...IDLE, isResyncing: () => true }), [])
  t.same(proposed(withUnits(RAID_POOL, [raid5('okay erred okay')])), [], 'no pool')
  const size = (n: number): Tree =>
    withUnits(RAID_POOL, [
      { kind: 'pool', name: name('hsp001'), minor: 0, spares: [{ ...spare(RAID_POOL, '/spares/m'), size: blocks(n) }] },
      raid5('okay erred okay', { hotSparePool: name('hsp001') }),
    ])
  t.equal(proposed(size(COLUMN_BLOCKS)).length, 1)
  t.equal(proposed(size(COLUMN_BLOCKS - 1)).length, 0)
})

t.test('RAID5: a spare comes, and goes when the column has its own storage again', async (t) => {
  const using = taken(raid('okay erred okay'))
  t.equal(statesOf(raid5In(using)), 'okay resync okay')
  t.same(states(using), 'Available, In use, Available')
  t.same(proposed(using), [])
  const synced = column(using, { event: 'resyncEnd', column: 1, result: 'done', done: blocks(0), failed: null })
  t.same(states(synced), 'Available, In use, Available')
  const back = column(synced, { event: 'replace', column: 1, by: slice('/disks/b') })
  t.same(states(back), 'Available, In use, Available', 'it has the data until the column has')
  const own = column(back, { event: 'resyncEnd', column: 1, result: 'done', done: blocks(0), failed: null })
  t.same(states(own), 'Available, Available, Available')
  t.match(raid5In(own).columns[1], { name: '/disks/b', spare: null })
  t.same(
    states(
      clear({ all: true, force: true, recursive: true, softPartitions: false, names: [] }, using, IDLE).outcome.tree,
    ),
    '',
  )
})

t.test('RAID5: a spare that fails is Broken, and the next one is taken for the same column', async (t) => {
  const failed = column(taken(raid('okay erred okay')), { event: 'error', column: 1 })
  t.equal(statesOf(raid5In(failed)), 'okay erred okay')
  t.match(raid5In(failed).columns[1], { name: '/disks/b', spare: null })
  t.same(states(failed), 'Available, Broken, Available')
  t.same(proposed(failed), ['d5.1 := /spares/l@0'])
  const last = column(taken(raid('okay erred okay')), { event: 'error', column: 0 })
  t.equal(statesOf(raid5In(last)), 'lastErred resync okay')
  t.same(states(last), 'Available, In use, Available', 'another column failed, not the spare')
  const [p] = poke(raid('okay erred okay'), IDLE)
  const refused = p === undefined ? null : refuse(raid('okay erred okay'), p, 1)
  t.same(
    refused?.notices.map((n) => n.text),
    ['md: d5: open error of hotspare /spares/m'],
  )
})
