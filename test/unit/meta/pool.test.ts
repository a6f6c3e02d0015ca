import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { CALM } from '../../../src/meta/kind.js'
import { mdCf } from '../../../src/meta/mdcf.js'
import { clear, param } from '../../../src/meta/operations.js'
import type { Json } from '../../../src/meta/reader.js'
import { encodeUnit, readTree, recordKey } from '../../../src/meta/records.js'
import { statusOf } from '../../../src/meta/status.js'
import { isReferenced, poolOf, poolsOf, topLevel } from '../../../src/meta/tree.js'
import type { PoolUnit, Tree } from '../../../src/meta/types.js'
import { IDLE } from '../../../src/meta/kind.js'
import {
  CYLINDER,
  device,
  DISKS,
  inventoryOf,
  metainit,
  metainitAll,
  name,
  refusals,
  said,
  stripeIn,
  text,
  treeOf,
} from './world.js'

const SLICES = [device('c1t0d0s0', 9000, { labelAtStart: true }), device('c1t1d0s0', 9000)]
const inventory = inventoryOf([...DISKS, ...SLICES])
const poolIn = (tree: Tree, s: string): PoolUnit => {
  const pool = poolOf(tree, name(s))
  if (pool === null) throw new Error(`no pool ${s}`)
  return pool
}
const names = (tree: Tree, s: string): readonly string[] => poolIn(tree, s).spares.map((spare) => spare.name)
const refused = (line: string, tree: Tree, facts: Parameters<typeof metainit>[1] = {}): string =>
  refusals(metainit(line, { inventory, tree, ...facts }))[0] ?? 'done'

t.test('metainit makes pools, empty ones too, and keeps the order of their spares', async (t) => {
  const { outcome, errors } = metainit('hsp001 /disks/c /disks/a c1t0d0s0', { inventory, now: 77 })
  t.same(errors, [])
  t.same(outcome.changes, [{ change: 'setUp', kind: 'pool', name: 'hsp001' }])
  t.same(names(outcome.tree, 'hsp001'), ['/disks/c', '/disks/a', 'c1t0d0s0'])
  const labelled = poolIn(outcome.tree, 'hsp001').spares[2]
  t.same(labelled, {
    name: 'c1t0d0s0',
    path: 'c1t0d0s0',
    identity: 'file:1:c1t0d0s0',
    extent: { first: 0, blocks: 9000 },
    offset: 0,
    size: 9000,
    start: CYLINDER,
    labelled: true,
    broken: false,
    changed: 77,
  })
  const empty = metainit('hsp002', { inventory, tree: outcome.tree }).outcome
  t.same(empty.changes, [{ change: 'setUp', kind: 'pool', name: 'hsp002' }])
  t.same(names(empty.tree, 'hsp002'), [])
  t.same(
    poolsOf(empty.tree).map((p) => [p.name, p.minor]),
    [
      ['hsp002', 1],
      ['hsp001', 0],
    ],
    'most recent first',
  )
})

t.test('-n says the same and makes nothing', async (t) => {
  const { outcome } = metainit('hsp001 /disks/a', { inventory, check: true })
  t.same(outcome.changes, [{ change: 'setUp', kind: 'pool', name: 'hsp001' }])
  t.same([...outcome.tree.keys(), ...outcome.put], [])
})

t.test('what a pool may not be made of', async (t) => {
  const tree = treeOf(['d1 1 1 /disks/a', 'hsp001 /disks/b'], { inventory })
  t.equal(refused('hsp001 /disks/c', tree), 'hsp001: hotspare pool is already setup')
  t.equal(refused('d1 /disks/c', tree), 'd1: Name already in use for metadevice or hot spare pool.')
  t.equal(refused('d1', tree), 'd1: Name already in use for metadevice or hot spare pool.')
  t.equal(refused('hsp001 1 1 /disks/c', tree), 'hsp001: Name already in use for metadevice or hot spare pool.')
  t.equal(refused('hsp002 -q /disks/c', tree), 'hsp002: "-q": illegal option')
  t.equal(refused('hsp002 /disks/x', tree), '/disks/x: No such file or directory')
  t.equal(refused('hsp002 d1', tree), 'd1: is a metadevice')
  t.equal(refused('hsp002 /disks/a', tree), '/disks/a: has appeared more than once in the specification of d1')
  t.equal(
    refused('hsp002 /disks/c /disks/c', tree),
    '/disks/c: has appeared more than once in the specification of hsp002',
  )
  t.equal(refused('hsp002 /disks/b', tree), 'done', 'a spare may be in several pools')

  const other = inventoryOf([
    ...DISKS,
    device('/link', 100 * CYLINDER, { identity: 'file:1:/disks/b' }),
    device('/part', 10, { identity: 'file:1:/disks/b', extent: { first: blocks(5), blocks: blocks(10) } }),
    device('/mounted', 9000, { usedBy: { how: 'mounted', where: '/mnt' } }),
    device('/swap', 9000, { usedBy: { how: 'swap', where: '/swap' } }),
    device('/db', 9000, { isReplica: true }),
    device('/tiny', CYLINDER, { labelAtStart: true }),
  ])
  const r = (line: string): string => refused(line, tree, { inventory: other, force: true })
  t.equal(r('hsp002 /link'), '/link: has appeared more than once in the specification of hsp001', 'one name each')
  t.equal(r('hsp002 /part'), '/part: overlaps with device in hsp001')
  t.equal(r('hsp002 /mounted'), '/mounted: is mounted on /mnt', 'whatever is forced')
  t.equal(r('hsp002 /swap'), '/swap: is swapped on')
  t.equal(r('hsp002 /db'), '/db: has a metadevice database replica')
  t.equal(r('hsp002 /tiny'), '/tiny: No space left on device')
})

t.test('a spare is in use for everybody else', async (t) => {
  const tree = treeOf(['d1 1 1 /disks/a', 'hsp001 /disks/b'], { inventory })
  t.equal(refused('d2 1 1 /disks/b', tree), '/disks/b: has appeared more than once in the specification of hsp001')
  const files = inventoryOf([...DISKS, device('hsp001', 9000)])
  t.equal(refused('d2 1 1 hsp001', tree, { inventory: files }), 'done', 'a pool is no metadevice: this is a file')
})

t.test('stripes name pools that exist', async (t) => {
  const tree = treeOf(['hsp001 /disks/b', 'd1 1 1 /disks/a -h hsp001', 'd2 1 1 /disks/c'], { inventory })
  t.equal(stripeIn(tree, 'd1').hotSparePool, 'hsp001')
  t.ok(isReferenced(name('hsp001'), tree))
  t.equal(refused('d3 1 1 /disks/d -h hsp002', tree), 'hsp002: invalid hotspare pool')
  t.equal(refused('d3 1 1 /disks/d -h d1', tree), 'd1: invalid hotspare pool')

  const ask = { name: 'd2', read: null, write: null, pass: null, hotSparePool: null }
  const given = param({ ...ask, hotSparePool: 'hsp001' }, tree)
  if (!given.ok) throw new Error(text(given.error))
  t.same(given.value.changes, [], 'silent')
  t.equal(stripeIn(given.value.tree, 'd2').hotSparePool, 'hsp001')
  t.same(said(param(ask, given.value.tree)), [
    { change: 'parameters', lines: ['d2: Concat/Stripe current parameters are:', '    Hot spare pool: hsp001'] },
  ])
  const none = param({ ...ask, hotSparePool: 'NONE' }, given.value.tree)
  t.equal(none.ok && stripeIn(none.value.tree, 'd2').hotSparePool, null)
  t.equal(said(param({ ...ask, hotSparePool: 'hsp002' }, tree)), 'hsp002: invalid hotspare pool')
  t.equal(said(param({ ...ask, name: 'hsp001' }, tree)), 'hsp001: unknown metadevice type')
})

t.test('metaclear: not while a metadevice names the pool; -a takes pools last', async (t) => {
  const tree = treeOf(['hsp001 /disks/b', 'hsp002', 'd1 1 1 /disks/a -h hsp001'], { inventory })
  const ask = { all: false, force: false, recursive: false, softPartitions: false, names: ['hsp001'] }
  t.same(refusals(clear({ ...ask, force: true, recursive: true }, tree, IDLE)), ['hsp001: hotspare pool in use'])
  const one = clear({ ...ask, names: ['hsp002'] }, tree, IDLE).outcome
  t.same(one.changes, [{ change: 'cleared', kind: 'pool', name: 'hsp002' }])
  t.same([...one.tree.keys()], ['hsp001', 'd1'])
  const all = clear({ ...ask, all: true, names: [] }, tree, IDLE)
  t.same(refusals(all), [])
  t.same(
    all.outcome.changes.map((c) => ('name' in c ? c.name : '')),
    ['d1', 'hsp002', 'hsp001'],
  )
  t.equal(all.outcome.tree.size, 0)
  const busy = clear({ ...ask, all: true, names: [] }, tree, { ...IDLE, isOpen: (n) => n === 'd1' })
  t.same(refusals(busy), ['d1: metadevice is open', 'hsp001: hotspare pool in use'])
})

t.test('md.tab: order of entries does not matter, and what is printed is read back', async (t) => {
  const tab = 'd1 1 1 /disks/a -h hsp001\nhsp002\nhsp001 c1t1d0s0 \\\n  /disks/b\n'
  const { outcome, errors } = metainitAll(tab, { inventory })
  t.same(errors, [])
  const cf = mdCf(outcome.tree)
  t.equal(
    cf,
    '# metadevice configuration file\n# do not hand edit\n' +
      'd1 1 1 /disks/a -h hsp001\nhsp001 c1t1d0s0 /disks/b\nhsp002\n',
  )
  const again = metainitAll(cf, { inventory })
  t.same(again.errors, [])
  t.equal(again.outcome.tree.size, 3)
  t.same(metainit('hsp001', { inventory }, 'hsp001 /disks/c\n').outcome.changes, [
    { change: 'setUp', kind: 'pool', name: 'hsp001' },
  ])
})

t.test('pools have numbers of their own: no device number is spent on one', async (t) => {
  const tree = treeOf(['hsp001', 'd1 1 1 /disks/a', 'hsp002'], { inventory, counter: 0 })
  t.same([...tree.values()].map((u) => u.minor).sort(), [0, 0, 1])
  const cleared = clear(
    { all: false, force: false, recursive: false, softPartitions: false, names: ['hsp001'] },
    tree,
    IDLE,
  ).outcome.tree
  const later = metainit('hsp003', { inventory, tree: cleared }).outcome.tree
  t.same(
    poolsOf(later).map((p) => p.name),
    ['hsp003', 'hsp002'],
  )
})

t.test('metastat: pools come last, and only metadevices are at the top of the graph', async (t) => {
  const tree = treeOf(['hsp001 /disks/b c1t1d0s0', 'd1 1 1 /disks/a'], { inventory })
  t.same(
    topLevel(tree).map((u) => u.name),
    ['d1'],
  )
  const { report } = statusOf(
    tree,
    { ...CALM, deviceId: (s) => (s.name === 'c1t1d0s0' ? 'id1' : null) },
    {
      stale: false,
      names: [],
    },
  )
  t.same(report.show, ['d1', 'hsp001'])
  t.match(report.units[1], {
    kind: 'pool',
    tab: 'hsp001 /disks/b c1t1d0s0',
    spares: [
      { device: '/disks/b', state: 'Available', size: 100 * CYLINDER, relocatable: false },
      { device: 'c1t1d0s0', state: 'Available', size: 9000, relocatable: true },
    ],
  })
  t.same(
    report.relocation.map((r) => [r.device, r.id]),
    [
      ['/disks/a', null],
      ['/disks/b', null],
      ['c1t1d0', 'id1'],
    ],
  )
})

t.test('records: what is written is read; a pool that cannot be true is left out, its users stay', async (t) => {
  const tree = treeOf(['hsp001 /disks/b', 'hsp002 /disks/b /disks/c', 'd1 1 1 /disks/a -h hsp001'], { inventory })
  const stored = (): Map<string, Json> =>
    new Map([...tree.values()].map((u) => [recordKey(u.name), JSON.parse(JSON.stringify(encodeUnit(u))) as Json]))
  t.same(readTree(stored()), { tree, errors: [] })
  type Loose = { [key: string]: Loose }
  const cases: readonly [string, (r: Loose) => void, RegExp][] = [
    ['twice', (r) => Object.assign(r['spares'] ?? {}, { 1: r['spares']?.['0'] }), /appears twice/],
    ['no space', (r) => Object.assign(r['spares']?.['0'] ?? {}, { start: 100 * CYLINDER }), /no space/],
    ['beyond', (r) => Object.assign(r['spares']?.['0'] ?? {}, { offset: Number.MAX_SAFE_INTEGER }), /beyond/],
    ['disagree', (r) => Object.assign(r['spares']?.['0'] ?? {}, { broken: true }), /differs from that in hsp002/],
    ['type', (r) => Object.assign(r['spares']?.['0'] ?? {}, { broken: 'no' }), /spares\[0\]\.broken/],
  ]
  for (const [what, spoil, message] of cases) {
    const records = stored()
    const record = structuredClone(records.get('unit/hsp001')) as unknown as Loose
    spoil(record)
    const { tree: left, errors } = readTree(records.set('unit/hsp001', record))
    t.match(text(errors[0] ?? { code: 'syntax' }), message, what)
    t.notOk(left.has(name('hsp001')), what)
    t.equal(stripeIn(left, 'd1').hotSparePool, 'hsp001', `${what}: data does not depend on a pool`)
  }
})
