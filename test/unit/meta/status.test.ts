import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { CALM, type LiveStatus } from '../../../src/meta/kind.js'
import { mdCf } from '../../../src/meta/mdcf.js'
import { statusOf } from '../../../src/meta/status.js'
import type { SubmirrorState, Tree } from '../../../src/meta/types.js'
import type { MirrorReport, StripeReport } from '../../../src/msg/report.js'
import { changed, type Changes } from './mirrors.js'
import { device, DISKS, inventoryOf, name, stripeIn, text, treeOf } from './world.js'

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
const second = (state: SubmirrorState): Tree => changed(TREE, 'd0', { sides: { d20: state } })
const components = (of: NonNullable<Changes['components']>, tree = TREE): Tree =>
  changed(tree, 'd0', { components: of })
const cancelled = (tree: Tree): Tree => changed(tree, 'd0', { mirror: { cancelled: true } })
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
const missing = (...names: readonly string[]): Partial<LiveStatus> => ({ isMissing: (c) => names.includes(c.name) })
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

/** One line per row of commands.md 4.4: state of the second side, then what to invoke. */
t.test('submirror states and what to do', async (t) => {
  const [running, sync] = [resync('running'), ' / metasync d0']
  t.same(sides(TREE), ['Okay', 'Okay'])
  const waits = ['attached', 'resync', 'offlineResync', 'optimized'] as const
  for (const state of waits) {
    t.same(sides(second(state)), ['Okay', `Needs maintenance${sync}`], state)
    const runs = state === 'attached' ? 'Needs maintenance' : 'Resyncing'
    t.same(sides(second(state), running), ['Okay', runs], `${state}, running`)
    t.same(sides(cancelled(second(state))), ['Okay', `Resync cancelled${sync}`], `${state}, cancelled`)
  }
  t.same(sides(second('offline')), ['Okay', 'Needs maintenance / metaonline d0 d20'])
  t.same(sides(second('offline'), running), ['Okay', 'Needs maintenance'])
  t.same(
    mirror(second('offline'), {}).submirrors.map((s) => s.offline),
    [false, true],
  )
  t.same(sides(components({ b: 'resync' })), ['Okay', `Needs maintenance${sync}`])
  t.same(sides(components({ b: 'resync' }), running), ['Okay', 'Resyncing'])
  t.same(sides(components({ b: 'erred' })), ['Okay', 'Needs maintenance / metareplace d0 /disks/b <new device>'])
  t.same(sides(components({ b: 'erred' }), running), ['Okay', 'Needs maintenance'])
  t.same(
    sides(components({ b: { state: 'erred', erredOrder: 2 }, c: { state: 'erred', erredOrder: 1 } })),
    ['Okay', 'Needs maintenance / metareplace d0 /disks/c <new device>'],
    'the one that failed first',
  )
  t.same(sides(components({ a: 'lastErred' })), [
    'Needs maintenance / after replacing "Maintenance" components:\n\t\tmetareplace d0 /disks/a <new device>',
    'Okay',
  ])
  t.same(
    sides(components({ b: 'lastErred', c: 'erred' })),
    ['Okay', 'Needs maintenance / metareplace d0 /disks/c <new device>'],
    'Maintenance before Last Erred',
  )
})

t.test('unavailable: nothing can be opened, and nothing has failed', async (t) => {
  t.same(sides(TREE, missing('/disks/b', '/disks/c')), ['Okay', 'Unavailable'])
  t.same(sides(TREE, missing('/disks/b')), ['Okay', 'Okay'])
  t.match(sides(components({ c: 'erred' }), missing('/disks/b', '/disks/c')), ['Okay', /^Needs maintenance/])
})

t.test('components', async (t) => {
  const states = (tree: Tree, live: Partial<LiveStatus> = {}, n = 'd20') =>
    stripe(tree, live, n).rows.flatMap((r) => r.components.map((c) => c.state))
  t.same(states(TREE), ['Okay', 'Okay'])
  t.same(states(second('resync'), resync('running')), ['Okay', 'Okay'], 'the side is copied, the disk is well')
  for (const state of ['attached', 'offline', 'offlineResync', 'optimized'] as const)
    t.same(states(second(state)), ['Okay', 'Okay'], state)
  t.same(states(components({ b: 'erred', c: 'lastErred' })), ['Maintenance', 'Last Erred'])
  t.same(states(components({ b: 'resync' })), ['Resyncing', 'Okay'])
  t.same(states(TREE, missing('/disks/b')), ['Unavailable', 'Okay'])
  t.same(states(components({ b: 'erred' }), missing('/disks/b')), ['Maintenance', 'Okay'])
  t.same(states(TREE, missing('/disks/a'), 'd10'), ['-'])
  t.equal(stripe(TREE, missing('/disks/a'), 'd10').unavailable, true)
  t.same(states(TREE, {}, 'd7'), ['Okay', 'Okay', 'Okay'], 'outside a mirror there are no states')
  const d10 = stripe(TREE, { hasReplica: (c) => c.name === '/disks/a', deviceId: () => 'id1' }, 'd10')
  t.match(d10, {
    parent: 'd0',
    rows: [{ interlace: 1024, components: [{ device: '/disks/a', hasReplica: true, relocatable: true }] }],
  })
})

t.test('a hot spare: the original device and its start, and the name of the spare', async (t) => {
  const b = stripeIn(TREE, 'd20').rows[0]?.components[0]
  if (b === undefined) throw new Error('no component')
  const { name: n, path, identity, extent, offset, size } = b
  const spare = { pool: name('hsp001'), original: { name: n, path, identity, extent, offset, size, start: blocks(5) } }
  const spared = components({ b: { name: '/disks/h', state: 'resync', changed: 9, spare } })
  const [row] = stripe(spared, { deviceId: (c) => (c.name === '/disks/b' ? 'id1' : null) }, 'd20').rows
  t.match(row?.components, [
    { device: '/disks/b', startBlock: 5, state: 'Resyncing', hotSpare: '/disks/h', changed: 9, relocatable: true },
  ])
  const failed = changed(spared, 'd0', { components: { h: 'erred' } })
  t.match(sides(failed)[1], /metareplace d0 \/disks\/b <new device>/)
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
