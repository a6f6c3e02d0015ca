import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { metahs, type HotSpareAction, param, type Outcome } from '../../../src/meta/operations.js'
import { poolOf, withUnits } from '../../../src/meta/tree.js'
import type { Component, Device, Inventory, Spare, Tree } from '../../../src/meta/types.js'
import type { MetaResult } from '../../../src/msg/errors.js'
import { CYLINDER, device, DISKS, inventoryOf, name, said, stripeIn, text, treeOf } from './world.js'

const inventory = inventoryOf(DISKS)
const POOLS = treeOf(['hsp002 /disks/b /disks/c', 'hsp001 /disks/b', 'd1 1 1 /disks/a -h hsp001', 'hsp003'])

const spares = (tree: Tree, pool: string): readonly Spare[] => poolOf(tree, name(pool))?.spares ?? []
const listed = (tree: Tree, pool: string): readonly string[] => spares(tree, pool).map((s) => s.name)
const hs = (
  action: HotSpareAction,
  line: string,
  tree: Tree = POOLS,
  host: Inventory = inventory,
  now = 500,
): MetaResult<Outcome> => {
  const all = line.split(' ').filter((w) => w !== '')
  const pool = action === 'enable' ? null : (all[0] ?? '')
  const rest = action === 'enable' ? all : all.slice(1)
  const namesOf = (word: string): readonly string[] => [word]
  return metahs({ action, pool, words: rest }, { tree, inventory: host, namesOf, now })
}
const after = (...args: Parameters<typeof hs>): Tree => {
  const r = hs(...args)
  if (!r.ok) throw new Error(text(r.error))
  return r.value.tree
}
const changed = (tree: Tree, of: string, change: (s: Spare) => Spare): Tree =>
  withUnits(
    tree,
    [...tree.values()].flatMap((u) =>
      u.kind === 'pool' ? [{ ...u, spares: u.spares.map((s) => (s.name === of ? change(s) : s)) }] : [],
    ),
  )
const breaking = (tree: Tree, of: string): Tree => changed(tree, of, (s) => ({ ...s, broken: true }))
/** `spare` stands in for the only component of d1. */
const standing = (tree: Tree, spare: string): Tree => {
  const d1 = stripeIn(tree, 'd1')
  const [row] = d1.rows
  const [c] = row?.components ?? []
  const by = spares(tree, 'hsp001').find((s) => s.name === spare)
  if (row === undefined || c === undefined || by === undefined) throw new Error(spare)
  const { state, erredOrder, spare: none, changed: at, ...original } = c
  const { labelled, broken, changed: since, ...slice } = by
  const stands: Component = { ...slice, state, erredOrder, changed: at, spare: { pool: name('hsp001'), original } }
  t.notOk(labelled || broken || none !== null || since < 0)
  return withUnits(tree, [{ ...d1, rows: [{ ...row, components: [stands] }] }])
}

t.test('-a: at the end of the pool, which is made if need be', async (t) => {
  const added = hs('add', 'hsp002 /disks/e /disks/d')
  t.same(said(added), [{ change: 'sparesAdded', name: 'hsp002', count: 2 }])
  t.same(listed(after('add', 'hsp002 /disks/e /disks/d'), 'hsp002'), ['/disks/b', '/disks/c', '/disks/e', '/disks/d'])
  t.same(said(hs('add', 'new /disks/d')), [{ change: 'sparesAdded', name: 'new', count: 1 }], 'as Solaris says it')
  t.same(listed(after('add', 'new /disks/d'), 'new'), ['/disks/d'])
  t.same(said(hs('add', 'new')), [{ change: 'setUp', kind: 'pool', name: 'new' }])
  t.ok(poolOf(after('add', 'new'), name('new')))
  const there = hs('add', 'hsp001')
  t.same(said(there), [{ change: 'setUp', kind: 'pool', name: 'hsp001' }])
  t.equal(there.ok && there.value.tree, POOLS, 'nothing changes')
})

t.test('-a: a spare of another pool comes with its state', async (t) => {
  const tree = after('add', 'hsp003 /disks/b', breaking(POOLS, '/disks/b'))
  t.same(spares(tree, 'hsp003'), spares(tree, 'hsp001'))
  t.equal(spares(tree, 'hsp003')[0]?.broken, true)
  const used = standing(POOLS, '/disks/b')
  t.same(listed(after('add', 'hsp003 /disks/b', used), 'hsp003'), ['/disks/b'], 'also while it is in use')
})

t.test('-a all: every pool, in order of creation', async (t) => {
  t.same(said(hs('add', 'all /disks/d')), [
    { change: 'sparesAdded', name: 'hsp002', count: 1 },
    { change: 'sparesAdded', name: 'hsp001', count: 1 },
    { change: 'sparesAdded', name: 'hsp003', count: 1 },
  ])
  const tree = after('add', 'ALL /disks/d')
  for (const pool of ['hsp001', 'hsp002', 'hsp003']) t.equal(listed(tree, pool).at(-1), '/disks/d')
  t.equal(said(hs('add', 'all /disks/d', treeOf([]))), 'no hotspare pools found')
  t.equal(said(hs('add', 'all')), 'all: Invalid name for metadevice or hot spare pool.')
  t.equal(said(hs('add', 'all /disks/b')), 'hsp002: /disks/b: add or replace failed, hot spare is already in use')
})

t.test('-a: what is refused', async (t) => {
  const host = inventoryOf([
    ...DISKS,
    device('/db', 9000, { isReplica: true }),
    device('/same', 100 * CYLINDER, { identity: 'file:1:/disks/b' }),
  ])
  const r = (line: string) => said(hs('add', line, POOLS, host))
  t.equal(r('9 /disks/d'), '9: Invalid name for metadevice or hot spare pool.')
  t.equal(r('mddb01 /disks/d'), 'mddb01: Invalid name for metadevice or hot spare pool.', 'md.tab could not say it')
  t.equal(r('blue/hsp001 /disks/d'), 'setname "blue": no such set')
  t.equal(r('d1 /disks/d'), 'd1: Name already in use for metadevice or hot spare pool.')
  t.equal(r('hsp001 /disks/x'), '/disks/x: No such file or directory')
  t.equal(r('hsp001 /disks/a'), '/disks/a: has appeared more than once in the specification of d1')
  t.equal(r('hsp001 /db'), '/db: has a metadevice database replica')
  t.equal(r('hsp001 /same'), '/same: has appeared more than once in the specification of hsp002')
  t.equal(r('hsp001 /disks/b'), 'hsp001: /disks/b: add or replace failed, hot spare is already in use')
  t.equal(r('hsp001 /disks/d /disks/d'), 'hsp001: /disks/d: add or replace failed, hot spare is already in use')
  t.equal(
    said(hs('add', 'hsp003 /disks/a', standing(POOLS, '/disks/b'))),
    '/disks/a: has appeared more than once in the specification of d1',
    'what a spare stands in for is not free',
  )
})

t.test('-d: from one pool, from all that have it', async (t) => {
  t.same(said(hs('delete', 'hsp002 /disks/b')), [{ change: 'sparesDeleted', name: 'hsp002', count: 1 }])
  const one = after('delete', 'hsp002 /disks/b')
  t.same([listed(one, 'hsp002'), listed(one, 'hsp001')], [['/disks/c'], ['/disks/b']])
  t.same(said(hs('delete', 'all /disks/b /disks/c')), [
    { change: 'sparesDeleted', name: 'hsp002', count: 2 },
    { change: 'sparesDeleted', name: 'hsp001', count: 1 },
  ])
  const gone: Inventory = (word) => inventoryOf(DISKS.filter((d) => d.name !== '/disks/b'))(word)
  t.same(listed(after('delete', 'hsp001 /disks/b', POOLS, gone), 'hsp001'), [], 'a dead disk can be taken out')
})

t.test('-d: what is refused', async (t) => {
  const r = (line: string, tree: Tree = POOLS) => said(hs('delete', line, tree))
  t.equal(r('hsp009 /disks/b'), 'hsp009: invalid hotspare pool')
  t.equal(r('d1 /disks/b'), 'd1: invalid hotspare pool')
  t.equal(r('hsp001 /disks/c'), "/disks/c: hotspare doesn't exist", 'another pool has it')
  t.equal(r('hsp001 /disks/d'), "/disks/d: hotspare doesn't exist")
  t.equal(r('all /disks/d'), "/disks/d: hotspare doesn't exist")
  t.equal(r('hsp001 /disks/x'), '/disks/x: No such file or directory')
  t.equal(r('hsp002 /disks/b /disks/b'), "/disks/b: hotspare doesn't exist")
  const used = standing(POOLS, '/disks/b')
  t.equal(r('hsp001 /disks/b', used), 'hsp001: /disks/b: hotspare is in use')
  t.equal(r('hsp002 /disks/b', used), 'hsp002: /disks/b: hotspare is in use', 'whatever pool it was taken from')
  t.equal(r('hsp003 /disks/b', used), 'hsp003: /disks/b: hotspare is in use', 'said before whether it is there')
  t.equal(r('all /disks/c /disks/b', used), 'hsp002: /disks/b: hotspare is in use')
  t.equal(r('hsp002'), 'hsp002: hotspare pool is busy')
  t.equal(r('hsp001'), 'hsp001: hotspare pool is busy', 'said before that it is referenced')
  t.equal(r('hsp001', after('delete', 'hsp001 /disks/b')), 'hsp001: hotspare pool is referenced')
  t.equal(r('all'), 'all: Invalid name for metadevice or hot spare pool.')
  t.same(r('hsp003'), [{ change: 'cleared', kind: 'pool', name: 'hsp003' }])
  t.notOk(after('delete', 'hsp003').has(name('hsp003')))
})

t.test('-r: the new one has the place of the old one', async (t) => {
  t.same(said(hs('replace', 'hsp002 /disks/b /disks/d')), [
    { change: 'spareReplaced', name: 'hsp002', spare: '/disks/b', by: '/disks/d' },
  ])
  const broken = breaking(POOLS, '/disks/b')
  const tree = after('replace', 'all /disks/b /disks/d', broken)
  t.same([listed(tree, 'hsp002'), listed(tree, 'hsp001')], [['/disks/d', '/disks/c'], ['/disks/d']])
  t.equal(spares(tree, 'hsp001')[0]?.broken, false, 'a new one is available')
  t.same(spares(tree, 'hsp001')[0], spares(tree, 'hsp002')[0])

  const r = (line: string, of: Tree = POOLS) => said(hs('replace', line, of))
  t.equal(r('hsp009 /disks/b /disks/d'), 'hsp009: invalid hotspare pool')
  t.equal(r('hsp001 /disks/d /disks/e'), "/disks/d: hotspare doesn't exist")
  t.equal(r('hsp001 /disks/c /disks/e'), "/disks/c: hotspare doesn't exist")
  t.equal(r('hsp001 /disks/b /disks/x'), '/disks/x: No such file or directory')
  t.equal(r('hsp001 /disks/b /disks/a'), '/disks/a: has appeared more than once in the specification of d1')
  t.equal(r('hsp002 /disks/b /disks/c'), 'hsp002: /disks/c: add or replace failed, hot spare is already in use')
  t.equal(r('hsp002 /disks/b /disks/d', standing(POOLS, '/disks/b')), 'hsp002: /disks/b: hotspare is in use')
  t.equal(r('hsp002 /disks/b'), 'hsp002: syntax error')
})

const swapped = (facts: Partial<Device>, size = 50 * CYLINDER): Inventory =>
  inventoryOf([...DISKS.filter((d) => d.name !== '/disks/b'), device('/disks/b', size, facts)])

t.test('-e: Broken becomes Available, as the slice is now, in every pool', async (t) => {
  const broken = breaking(POOLS, '/disks/b')
  t.same(said(hs('enable', '/disks/b', broken)), [{ change: 'spareEnabled', spare: '/disks/b' }])
  const host = swapped({ identity: 'file:2:new' })
  const tree = after('enable', '/disks/b', broken, host)
  t.match(spares(tree, 'hsp001'), [{ broken: false, size: 50 * CYLINDER, identity: 'file:2:new', changed: 500 }])
  t.same(spares(tree, 'hsp001')[0], spares(tree, 'hsp002')[0])
  t.match(spares(after('enable', '/disks/b', POOLS, host), 'hsp001'), [{ size: 50 * CYLINDER }], 'a swapped disk')

  const two = breaking(broken, '/disks/c')
  t.same(said(hs('enable', '/disks/b /disks/c', two)), [
    { change: 'spareEnabled', spare: '/disks/b' },
    { change: 'spareEnabled', spare: '/disks/c' },
  ])

  const r = (line: string, of: Tree, on: Inventory = inventory) => said(hs('enable', line, of, on))
  t.equal(r('/disks/b', POOLS), "/disks/b: hotspare isn't broken, can't enable")
  t.equal(r('/disks/d', POOLS), "/disks/d: hotspare doesn't exist")
  t.equal(r('/disks/x', POOLS), '/disks/x: No such file or directory')
  t.equal(r('/disks/b', standing(POOLS, '/disks/b')), '/disks/b: cannot enable hotspared device')
  t.equal(r('/disks/b', broken, swapped({ isReplica: true })), '/disks/b: has a metadevice database replica')
  t.equal(
    r('/disks/b', broken, swapped({ identity: 'file:1:/disks/a' }, 100 * CYLINDER)),
    '/disks/b: has appeared more than once in the specification of d1',
  )
  t.equal(
    r('/disks/b', broken, swapped({ identity: 'file:1:/disks/c', extent: { first: blocks(0), blocks: blocks(7) } })),
    '/disks/b: overlaps with device in hsp002',
  )
  t.equal(r('/disks/b', broken, swapped({ labelAtStart: true }, 9)), '/disks/b: No space left on device')
})

t.test('-r with one name twice looks at the disk again', async (t) => {
  const tree = after(
    'replace',
    'hsp001 /disks/b /disks/b',
    breaking(POOLS, '/disks/b'),
    swapped({ identity: 'file:2:n' }),
  )
  t.match(spares(tree, 'hsp001'), [{ broken: false, identity: 'file:2:n', size: 50 * CYLINDER }])
  t.same(spares(tree, 'hsp001')[0], spares(tree, 'hsp002')[0], 'one state for all pools')
})

t.test('nothing is done by halves', async (t) => {
  for (const [action, line] of [
    ['add', 'hsp001 /disks/d /disks/x'],
    ['add', 'all /disks/c'],
    ['delete', 'hsp002 /disks/c /disks/x'],
    ['replace', 'all /disks/b /disks/c'],
    ['enable', '/disks/b /disks/c'],
  ] as const) {
    const r = hs(action, line, breaking(POOLS, '/disks/b'))
    t.notOk(r.ok, `${action} ${line}`)
  }
})

t.test('metaparam -h: not while a spare is in use', async (t) => {
  const ask = { name: 'd1', read: null, write: null, pass: null, hotSparePool: 'hsp003' }
  const used = standing(POOLS, '/disks/b')
  t.equal(said(param(ask, used)), "d1: can't modify hot spare pool, hot spare in use")
  t.equal(said(param({ ...ask, hotSparePool: 'none' }, used)), "d1: can't modify hot spare pool, hot spare in use")
  t.same(said(param({ ...ask, hotSparePool: 'hsp001' }, used)), [], 'no change at all')
  t.same(said(param(ask, POOLS)), [])
})
