import t from 'tap'
import { CALM, type ComponentTrouble, type LiveStatus } from '../../../src/meta/kind.js'
import { mdCf } from '../../../src/meta/mdcf.js'
import { statusOf } from '../../../src/meta/status.js'
import { withUnits } from '../../../src/meta/tree.js'
import type { SubmirrorState, Tree } from '../../../src/meta/types.js'
import type { MirrorReport, StripeReport } from '../../../src/msg/report.js'
import { device, DISKS, inventoryOf, mirrorIn, text, treeOf } from './world.js'

const inventory = inventoryOf([...DISKS, device('c1t3d0s0', 204800), device('c1t3d0s1', 204800)])
const TREE = treeOf(
  [
    'd10 1 1 /disks/a',
    'd20 2 1 /disks/b 1 /disks/c',
    'd0 -m d10 d20 -r 4',
    'd7 2 2 /disks/d /disks/e -i 64k 1 c1t3d0s0',
    'd8 1 1 c1t3d0s1',
  ],
  { inventory },
)
const stale = { stale: false, names: [] }
const status = (tree: Tree, live: Partial<LiveStatus>, names: readonly string[] = []) =>
  statusOf(tree, { ...CALM, ...live }, { stale: false, names })
const second = (state: SubmirrorState): Tree => {
  const m = mirrorIn(TREE, 'd0')
  return withUnits(TREE, [{ ...m, submirrors: m.submirrors.map((s) => (s.slot === 1 ? { ...s, state } : s)) }])
}
const mirror = (tree: Tree, live: Partial<LiveStatus>): MirrorReport => {
  const unit = status(tree, live).report.units.find((u) => u.name === 'd0')
  if (unit?.kind !== 'mirror') throw new Error('d0')
  return unit
}
const stripe = (tree: Tree, live: Partial<LiveStatus>, n: string): StripeReport => {
  const unit = status(tree, live).report.units.find((u) => u.name === n)
  if (unit?.kind !== 'stripe') throw new Error(n)
  return unit
}
const sides = (tree: Tree, live: Partial<LiveStatus> = {}) =>
  mirror(tree, live).submirrors.map((s) => (s.invoke === null ? s.state : `${s.state} / ${s.invoke}`))
const trouble = (of: Readonly<Record<string, ComponentTrouble['state']>>): Partial<LiveStatus> => ({
  component: (c) => {
    const state = of[c.name]
    return state === undefined ? null : { state, changed: c.name === '/disks/c' ? 1 : 2 }
  },
})
const resync = (state: 'running' | 'cancelled'): Partial<LiveStatus> => ({
  resync: () => ({ state, doneBlocks: 10, totalBlocks: 100 }),
})

t.test('order: mirrors, then stripes, most recent first; children are not at the top', async (t) => {
  const { report } = statusOf(TREE, CALM, stale)
  t.same(
    report.units.map((u) => u.name),
    ['d0', 'd8', 'd7', 'd20', 'd10'],
  )
  t.same(report.show, ['d0', 'd8', 'd7'])
  t.equal(report.stale, false)
})

t.test('names asked for', async (t) => {
  const { report, errors } = status(TREE, {}, ['d20', 'd99', '/dev/md/dsk/d7', '9'])
  t.same(report.show, ['d20', 'd7'])
  t.same(errors.map(text), ['d99: unit not set up', '9: Invalid name for metadevice or hot spare pool.'])
})

t.test('submirror states and what to do', async (t) => {
  t.same(sides(TREE), ['Okay', 'Okay'])
  t.same(sides(second('attached')), ['Okay', 'Needs maintenance / metasync d0'])
  t.same(sides(second('resync')), ['Okay', 'Needs maintenance / metasync d0'])
  t.same(sides(second('resync'), resync('running')), ['Okay', 'Resyncing'])
  t.same(sides(second('attached'), resync('running')), ['Okay', 'Resyncing'])
  const half = second('resync')
  const cancelled = withUnits(half, [{ ...mirrorIn(half, 'd0'), cancelled: true }])
  t.same(sides(cancelled, resync('cancelled')), ['Okay', 'Resync cancelled / metasync d0'])
  t.same(sides(TREE, trouble({ '/disks/b': 'Maintenance' })), [
    'Okay',
    'Needs maintenance / metareplace d0 /disks/b <new device>',
  ])
  t.same(
    sides(TREE, trouble({ '/disks/b': 'Maintenance', '/disks/c': 'Maintenance' })),
    ['Okay', 'Needs maintenance / metareplace d0 /disks/c <new device>'],
    'the one that failed first',
  )
  t.same(sides(TREE, trouble({ '/disks/a': 'Last Erred' })), [
    'Needs maintenance / after replacing "Maintenance" components:\n\t\tmetareplace d0 /disks/a <new device>',
    'Okay',
  ])
  t.same(sides(TREE, trouble({ '/disks/a': 'Unavailable', '/disks/b': 'Unavailable' })), ['Unavailable', 'Okay'])
})

t.test('components', async (t) => {
  const states = (tree: Tree, live: Partial<LiveStatus>, n = 'd20') =>
    stripe(tree, live, n).rows.flatMap((r) => r.components.map((c) => c.state))
  t.same(states(TREE, {}), ['Okay', 'Okay'])
  t.same(states(second('resync'), resync('running')), ['Resyncing', 'Resyncing'])
  t.same(states(second('attached'), {}), ['Okay', 'Okay'])
  t.same(states(TREE, trouble({ '/disks/b': 'Unavailable' })), ['Unavailable', 'Okay'])
  t.same(states(TREE, trouble({ '/disks/a': 'Unavailable' }), 'd10'), ['-'])
  t.equal(stripe(TREE, trouble({ '/disks/a': 'Unavailable' }), 'd10').unavailable, true)
  const d10 = stripe(TREE, { hasReplica: (c) => c.name === '/disks/a', deviceId: () => 'id1' }, 'd10')
  t.match(d10, {
    parent: 'd0',
    rows: [{ interlace: 1024, components: [{ device: '/disks/a', hasReplica: true, relocatable: true }] }],
  })
})

t.test('mirror report', async (t) => {
  t.match(mirror(TREE, resync('running')), {
    parent: null,
    pass: 4,
    read: 'first',
    write: 'parallel',
    size: 100 * 2048,
    resync: { state: 'running', doneBlocks: 10, totalBlocks: 100 },
    tab: 'd0 -m /dev/md/rdsk/d10 /dev/md/rdsk/d20 -r 4',
  })
})

t.test('relocation: one line per drive that is shown', async (t) => {
  const { report } = status(TREE, { deviceId: (c) => (c.name.startsWith('c1') ? 'id1,x' : null) }, ['d7', 'd8'])
  t.same(report.relocation, [
    { device: '/disks/d', relocatable: false, id: null },
    { device: '/disks/e', relocatable: false, id: null },
    { device: 'c1t3d0', relocatable: true, id: 'id1,x' },
  ])
})

t.test('md.cf', async (t) => {
  t.equal(
    mdCf(TREE),
    [
      '# metadevice configuration file',
      '# do not hand edit',
      'd0 -m /dev/md/rdsk/d10 /dev/md/rdsk/d20 -r 4',
      'd10 1 1 /disks/a',
      'd20 2 1 /disks/b \\',
      '\t 1 /disks/c',
      'd8 1 1 /dev/rdsk/c1t3d0s1',
      'd7 2 2 /disks/d /disks/e -i 128b \\',
      '\t 1 /dev/rdsk/c1t3d0s0',
      '',
    ].join('\n'),
  )
})
