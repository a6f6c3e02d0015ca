import t from 'tap'
import { IDLE, type Live } from '../../../src/meta/kind.js'
import { attach, clear, detach, finishGrowth, type Outcome, param } from '../../../src/meta/operations.js'
import { changedUnits, freeMinor, MAX_UNITS, withUnits } from '../../../src/meta/tree.js'
import type { ComponentState, MirrorUnit, Tree } from '../../../src/meta/types.js'
import { changed } from './mirrors.js'
import {
  CYLINDER,
  device,
  HOST,
  inventoryOf,
  metainit,
  metainitAll,
  mirrorIn,
  name,
  refusals,
  said,
  stripeIn,
  text,
  treeOf,
} from './world.js'

const MIRROR = ['d1 1 1 /disks/a', 'd2 1 1 /disks/b', 'd0 -m d1']
const live = (facts: Partial<Live>): Live => ({ ...IDLE, ...facts })
const only = (n: string) => (x: string) => x === n
const attachTo = (
  line: string,
  tree: Tree,
  facts: Partial<Live> = {},
  interlace: string | null = null,
  inventory = HOST,
) => attach({ words: line.split(' '), interlace, check: false }, { tree, inventory, live: live(facts), now: 2000 })
const done = (r: { ok: true; value: Outcome } | { ok: false; error: Parameters<typeof text>[0] }): Outcome => {
  if (!r.ok) throw new Error(text(r.error))
  return r.value
}
const force = { all: false, force: true, recursive: false, softPartitions: false }
const plain = { ...force, force: false }

t.test('metainit of a stripe', async (t) => {
  const { outcome, errors } = metainit('d5 1 2 /disks/a /disks/b -i 64k', { counter: 7, now: 42 })
  t.same(errors, [])
  t.same(outcome.changes, [{ change: 'setUp', kind: 'stripe', name: 'd5' }])
  const d5 = stripeIn(outcome.tree, 'd5')
  t.equal(d5.minor, 7)
  t.equal(d5.blocks, 200 * CYLINDER)
  t.equal(d5.rows[0]?.interlace, 128)
  t.equal(d5.rows[0]?.components[0]?.changed, 42)
  t.same(outcome.put, [d5])
  t.equal(stripeIn(treeOf(['d1 1 1 /disks/a']), 'd1').rows[0]?.interlace, 1024, 'default interlace')
})

t.test('rows do not inherit the interlace, attached rows do', async (t) => {
  const tree = treeOf(['d0 2 2 /disks/a /disks/b -i 8k 1 /disks/c'])
  t.same(
    stripeIn(tree, 'd0').rows.map((r) => r.interlace),
    [16, 1024],
  )
  const one = treeOf(['d0 1 2 /disks/a /disks/b -i 8k'])
  t.equal(stripeIn(done(attachTo('d0 /disks/c', one)).tree, 'd0').rows[1]?.interlace, 16)
  t.equal(stripeIn(done(attachTo('d0 /disks/c', one, {}, '32k')).tree, 'd0').rows[1]?.interlace, 64)
})

t.test('metainit refusals', async (t) => {
  const tree = treeOf(['d1 1 1 /disks/a', 'd2 1 1 /disks/b', 'd0 -m d1'])
  const r = (line: string, facts: Partial<Live> = {}) => refusals(metainit(line, { tree, live: facts }))[0]
  t.equal(r('d1 1 1 /disks/c'), 'd1: unit already set up')
  t.equal(r('d9 -m d1'), 'd1: metadevice in use')
  t.equal(r('d9 -m d0'), 'd0: invalid unit')
  t.equal(r('d9 -m d8'), 'd8: unit not set up')
  t.equal(r('d9 -m d2 d2'), 'd2: has appeared more than once in the specification of d9')
  t.equal(r('d9 -m d2', { isOpen: only('d2') }), 'd2: metadevice is open')
  t.equal(r('d9 -p /a 1g'), 'd9: soft partition is not supported by this release')
  t.equal(r('d9 /disks/x'), '/disks/x: No such file or directory')
  t.equal(r('blue/d9 1 1 /disks/c'), 'setname "blue": no such set')
  t.equal(r('9d 1 1 /disks/c'), '9d: Invalid name for metadevice or hot spare pool.')
  t.equal(r('d9 1 1 /disks/c -h hsp001'), 'hsp001: invalid hotspare pool')
})

t.test('metainit of mirrors', async (t) => {
  const inventory = inventoryOf([device('/a', 10 * CYLINDER), device('/b', 8 * CYLINDER)])
  const tree = treeOf(['d1 1 1 /a', 'd2 1 1 /b'], { inventory })
  const one = metainit('d0 -m d1 -g 3', { tree, inventory })
  t.same(one.outcome.warnings, [])
  t.match(mirrorIn(one.outcome.tree, 'd0'), { read: 'geometric', write: 'parallel', pass: 3, blocks: 10 * CYLINDER })
  const two = metainit('d0 -m d1 d2', { tree, inventory })
  t.same(two.outcome.warnings, [
    [
      'metainit: d0: WARNING: This form of metainit is not recommended.',
      'The submirrors may not have the same data.',
      'Please see ERRORS in metainit(1M) for additional information.',
    ],
  ])
  const m = mirrorIn(two.outcome.tree, 'd0')
  t.equal(m.blocks, 8 * CYLINDER, 'the smallest')
  t.same(
    m.submirrors.map((s) => [s.slot, s.unit, s.state]),
    [
      [0, 'd1', 'okay'],
      [1, 'd2', 'okay'],
    ],
    'no resync is started',
  )
})

t.test('a name alone is looked up in md.tab', async (t) => {
  const tab = 'd3 1 1 /disks/c\nd3 1 1 /disks/d\n'
  const { outcome } = metainit('d3', {}, tab)
  t.equal(stripeIn(outcome.tree, 'd3').rows[0]?.components[0]?.name, '/disks/c')
  t.same(refusals(metainit('d3', {}, 'd3 1 1 /none\n')), ['md.tab line 1: /none: No such file or directory'])
  t.same(refusals(metainit('d3', {}, '# x\nd4 1 1 /disks/a\n 4d\n')), ['md.tab line 3: "4d": syntax error'])
})

t.test('metainit -a', async (t) => {
  const tab = 'd0 -m d1 1\nd1 1 1 /disks/a\nd5 -p /x 1g\nmddb01 /r\nblue/d7 1 1 /disks/c\nd2 1 1 /disks/b\nd2 1 1 /q\n'
  const { outcome, errors } = metainitAll(tab, { counter: 3 })
  t.same(
    outcome.changes.map((c) => (c.change === 'setUp' ? c.name : '')),
    ['d1', 'd2', 'd0'],
    'order in the file does not matter',
  )
  t.same(errors.map(text), ['md.tab line 3: d5: soft partition is not supported by this release'])
  t.same(
    outcome.put.map((u) => u.minor),
    [3, 4, 5],
  )
  const again = metainitAll(tab, { tree: outcome.tree, counter: 6 })
  t.same(again.outcome.changes, [])
  t.same(again.errors.map(text), [
    'md.tab line 1: d0: unit already set up',
    'md.tab line 2: d1: unit already set up',
    'md.tab line 3: d5: soft partition is not supported by this release',
    'md.tab line 6: d2: unit already set up',
  ])
})

t.test('metainit -n checks and simulates nothing', async (t) => {
  const { outcome, errors } = metainitAll('d1 1 1 /disks/a\nd0 -m d1\nd2 1 1 /disks/a\n', { check: true })
  t.same(
    outcome.changes.map((c) => (c.change === 'setUp' ? c.name : '')),
    ['d1', 'd2'],
  )
  t.same(errors.map(text), ['md.tab line 2: d1: unit not set up'])
  t.same([outcome.put, outcome.remove, outcome.tree.size], [[], [], 0])
})

t.test('metattach of a submirror', async (t) => {
  const tree = treeOf(MIRROR)
  const out = done(attachTo('d0 d2', tree))
  t.same(out.changes, [{ change: 'submirrorAttached', name: 'd0', submirror: 'd2', check: false }])
  t.same(
    mirrorIn(out.tree, 'd0').submirrors.map((s) => [s.slot, s.unit, s.state, s.changed]),
    [
      [0, 'd1', 'okay', 1000],
      [1, 'd2', 'resync', 2000],
    ],
  )
  t.equal(tree.get(name('d0')), mirrorIn(tree, 'd0'))
  t.equal(mirrorIn(tree, 'd0').submirrors.length, 1, 'the tree it was asked about is as it was')
})

t.test('the lowest free slot is taken and slots stay in order', async (t) => {
  const lines = ['d1 1 1 /disks/a', 'd2 1 1 /disks/b', 'd3 1 1 /disks/c', 'd0 -m d1 d2 d3', 'd4 1 1 /disks/d']
  const tree = done(detach(['d0', 'd2'], false, treeOf(lines), IDLE, 1)).tree
  t.same(
    mirrorIn(done(attachTo('d0 d4', tree)).tree, 'd0').submirrors.map((s) => [s.slot, s.unit]),
    [
      [0, 'd1'],
      [1, 'd4'],
      [2, 'd3'],
    ],
  )
})

t.test('metattach refusals', async (t) => {
  const small = inventoryOf(
    ['a', 'b', 'c', 'd', 'e', 'f'].map((c, i) => device(`/disks/${c}`, (i === 5 ? 50 : 100) * CYLINDER)),
  )
  const tree = treeOf([...MIRROR, 'd3 1 1 /disks/c', 'd9 -m d3', 'd6 1 1 /disks/f'], { inventory: small })
  const r = (line: string, facts: Partial<Live> = {}, interlace: string | null = null) =>
    said(attachTo(line, tree, facts, interlace, small))
  t.equal(r('d0 d3'), 'd3: metadevice in use')
  t.equal(r('d0 d9'), 'd9: invalid unit')
  t.equal(r('d0 d99'), 'd99: unit not set up')
  t.equal(r('d99 d2'), 'd99: unit not set up')
  t.equal(r('d0 d6'), 'd6: submirror too small to attach')
  t.equal(r('d0 d2', { isOpen: only('d2') }), 'd2: metadevice is open')
  t.match(r('d0 d2', { isOpen: only('d0') }), [{ change: 'submirrorAttached' }], 'an open mirror may get one')
  t.match(r('d0 d2', { isResyncing: only('d0') }), [{ change: 'submirrorAttached' }], 'during a resync too')
  t.equal(r('d0 d2 d3'), 'd0: "d3": syntax error')
  t.equal(r('d0 d2', {}, '32k'), 'd0: "-i": illegal option')
  t.equal(r('d2'), 'd2: not enough components specified')
  t.equal(r('d2 /disks/a'), '/disks/a: has appeared more than once in the specification of d1')
  t.equal(r('d2 /disks/b'), '/disks/b: has appeared more than once in the specification of d2')
  t.equal(r('d2 /disks/d', {}, '1k'), 'd2: "1k": invalid interlace')
  const full = treeOf(
    ['d1 1 1 /disks/a', 'd2 1 1 /disks/b', 'd3 1 1 /disks/c', 'd4 1 1 /disks/d', 'd5 1 1 /disks/e'].concat(
      'd0 -m d1 d2 d3 d4',
    ),
  )
  t.equal(said(attachTo('d0 d5', full)), 'd0: mirror has maximum number of submirrors')
})

t.test('labelled submirrors need a labelled mirror', async (t) => {
  const inventory = inventoryOf([device('/l', 10 * CYLINDER, { labelAtStart: true }), device('/p', 10 * CYLINDER)])
  const tree = treeOf(['d1 1 1 /l', 'd2 1 1 /p'], { inventory })
  const on = (first: string, second: string) =>
    said(attachTo(`d0 ${second}`, treeOf([`d0 -m ${first}`], { tree, counter: 5, inventory }), {}, null, inventory))
  t.equal(on('d2', 'd1'), "d1: can't attach labeled submirror to an unlabeled mirror")
  t.match(on('d1', 'd2'), [{ change: 'submirrorAttached' }])
  t.same(refusals(metainit('d0 -m d2 d1', { tree, inventory })), [
    "d1: can't attach labeled submirror to an unlabeled mirror",
  ])
})

t.test('a mirror grows when the last of its submirrors has grown', async (t) => {
  const tree = treeOf(['d1 1 1 /disks/a', 'd2 1 1 /disks/b', 'd0 -m d1 d2'])
  const first = done(attachTo('d1 /disks/c', tree))
  t.same(first.changes, [{ change: 'componentsAttached', name: 'd1', count: 1, check: false }])
  t.equal(stripeIn(first.tree, 'd1').blocks, 200 * CYLINDER)
  t.equal(mirrorIn(first.tree, 'd0').blocks, 100 * CYLINDER)
  t.same(
    first.put.map((u) => u.name),
    ['d1'],
  )
  t.same(
    changedUnits(tree, first.tree)
      .map((u) => u.name)
      .sort(),
    ['d0', 'd1'],
    'the mirror stands on it',
  )
  const second = done(attachTo('d2 /disks/d /disks/e', first.tree))
  t.equal(mirrorIn(second.tree, 'd0').blocks, 200 * CYLINDER)
  t.same(
    second.put.map((u) => u.name),
    ['d2', 'd0'],
  )
  t.same(second.changes, [{ change: 'componentsAttached', name: 'd2', count: 2, check: false }])
  t.same(said(attachTo('d0', second.tree)), [], 'nothing left to grow, silently')
})

t.test('growth waits for a resync', async (t) => {
  const tree = treeOf(['d1 1 1 /disks/a', 'd0 -m d1'])
  const out = done(attachTo('d1 /disks/b', tree, { isResyncing: only('d0') }))
  t.same(out.warnings, [['metattach: d0: growing of metadevice delayed']])
  t.match(mirrorIn(out.tree, 'd0'), { blocks: 100 * CYLINDER, growPending: true })
  const after = finishGrowth(out.tree, name('d0'))
  const m: MirrorUnit = mirrorIn(after.tree, 'd0')
  t.equal(m.blocks, 200 * CYLINDER)
  t.notOk('growPending' in m)
  t.equal(finishGrowth(after.tree, name('d0')).put.length, 0)
  const alone = done(attachTo('d0', withUnits(tree, [stripeIn(out.tree, 'd1')])))
  t.equal(mirrorIn(alone.tree, 'd0').blocks, 200 * CYLINDER, 'metattach of the mirror alone')
})

t.test('growth waits for something to read the new blocks from', async (t) => {
  const wide = (second: ComponentState) => {
    const tree = done(attachTo('d1 /disks/c', treeOf(['d1 1 1 /disks/a', 'd2 1 1 /disks/b', 'd0 -m d1 d2']))).tree
    const d1 = stripeIn(tree, 'd1')
    const rows = d1.rows.map((row, at) =>
      at === 0 ? row : { ...row, components: row.components.map((c) => ({ ...c, state: second })) },
    )
    return withUnits(tree, [{ ...d1, rows }])
  }
  // Of d2 nobody has read a block: it is not in step as a submirror.
  const alone = (tree: Tree) =>
    withUnits(tree, [
      {
        ...mirrorIn(tree, 'd0'),
        submirrors: mirrorIn(tree, 'd0').submirrors.map((s) => (s.slot === 1 ? { ...s, state: 'offline' } : s)),
      },
    ])
  const waits = done(attachTo('d2 /disks/d', alone(wide('erred'))))
  t.same(waits.warnings, [['metattach: d0: growing of metadevice delayed']])
  t.match(mirrorIn(waits.tree, 'd0'), { blocks: 100 * CYLINDER, growPending: true })
  t.equal(finishGrowth(waits.tree, name('d0')).put.length, 0, 'nor at the end of a resync')
  t.match(mirrorIn(done(attachTo('d0', waits.tree)).tree, 'd0'), { growPending: true })
  for (const state of ['okay', 'lastErred'] as const)
    t.equal(mirrorIn(done(attachTo('d2 /disks/d', alone(wide(state)))).tree, 'd0').blocks, 200 * CYLINDER, state)
  t.equal(mirrorIn(done(attachTo('d2 /disks/d', wide('erred'))).tree, 'd0').blocks, 200 * CYLINDER, 'd2 holds them')
})

t.test('metaclear', async (t) => {
  const tree = treeOf([...MIRROR, 'd5 1 1 /disks/e'])
  const r = (names: string, how = plain, of = tree, facts: Partial<Live> = {}) =>
    clear({ ...how, names: names.split(' ') }, of, live(facts))
  const two = r('d5 d1 d2 d9')
  t.same(two.outcome.changes, [
    { change: 'cleared', kind: 'stripe', name: 'd5' },
    { change: 'cleared', kind: 'stripe', name: 'd2' },
  ])
  t.same(refusals(two), ['d1: metadevice in use', 'd9: unit not set up'], 'operands are independent')
  t.same(two.outcome.remove, ['d5', 'd2'])

  const mirror = r('d0')
  t.same([...mirror.outcome.tree.keys()], ['d1', 'd2', 'd5'], 'submirrors stay')
  const recursive = r('d0', { ...plain, recursive: true })
  t.same(
    recursive.outcome.changes.map((c) => (c.change === 'cleared' ? `${c.kind} ${c.name}` : '')),
    ['mirror d0', 'stripe d1'],
  )
  t.same(refusals(r('d0', force, tree, { isOpen: only('d0') })), ['d0: metadevice is open'])
  t.same(refusals(r('d0', force, tree, { isResyncing: only('d0') })), ['d0: metadevice is open'])
  const half = r('d0', { ...plain, recursive: true }, tree, { isOpen: only('d1') })
  t.same([refusals(half), half.outcome.remove], [['d1: metadevice is open'], []], 'all or nothing')

  const bad = done(attachTo('d0 d2', tree)).tree
  t.same(refusals(r('d0', plain, bad)), ['d0: attempted to clear mirror with submirror(s) in invalid state'])
  t.same(refusals(r('d0', plain, changed(tree, 'd0', { components: { a: 'resync' } }))).length, 1)
  t.same(refusals(r('d0', force, bad)), [])
  const erred = r('d0', force, changed(tree, 'd0', { components: { a: 'erred' } })).outcome
  t.equal(stripeIn(erred.tree, 'd1').rows[0]?.components[0]?.state, 'okay', 'a free stripe has no states')
  t.same([erred.put.map((u) => u.name), erred.remove], [['d1'], ['d0']])
  t.same(refusals(r('d0', { ...plain, recursive: true }, bad)), [], '-r implies -f')
  t.same(refusals(r('d5', { ...plain, softPartitions: true })), ['d5: no soft partitions on this device'])
})

t.test('metaclear -a', async (t) => {
  const tree = treeOf([...MIRROR, 'd5 1 1 /disks/e'])
  const all = clear({ ...plain, all: true, names: [] }, tree, IDLE)
  t.same(
    all.outcome.changes.map((c) => (c.change === 'cleared' ? c.name : '')),
    ['d0', 'd1', 'd5', 'd2'],
    'mirrors with what is below, then stripes, most recent first',
  )
  t.equal(all.outcome.tree.size, 0)
  const open = clear({ ...plain, all: true, names: [] }, tree, live({ isOpen: only('d0') }))
  t.same(refusals(open), ['d0: metadevice is open'])
  t.same([...open.outcome.tree.keys()], ['d1', 'd0'])
})

t.test('metaparam', async (t) => {
  const tree = treeOf(MIRROR)
  const ask = { name: 'd0', read: null, write: null, pass: null, hotSparePool: null }
  const lines = (n: string) => done(param({ ...ask, name: n }, tree)).changes
  t.same(lines('d0'), [
    {
      change: 'parameters',
      lines: [
        'd0: Mirror current parameters are:',
        '    Pass: 1',
        '    Read option: roundrobin (default)',
        '    Write option: parallel (default)',
      ],
    },
  ])
  t.same(lines('d2'), [
    { change: 'parameters', lines: ['d2: Concat/Stripe current parameters are:', '    Hot spare pool: none'] },
  ])
  const out = done(param({ ...ask, read: 'Geometric', write: 'SERIAL', pass: '0' }, tree))
  t.same(out.changes, [], 'silent')
  t.match(mirrorIn(out.tree, 'd0'), { read: 'geometric', write: 'serial', pass: 0 })
  t.match(done(param(ask, out.tree)).changes, [
    { lines: [/d0/, /Pass: 0/, /Read option: geometric \(-g\)/, /Write option: serial \(-S\)/] },
  ])
  t.equal(said(param({ ...ask, read: 'fast' }, tree)), 'd0: "fast": invalid read option')
  t.equal(said(param({ ...ask, write: 'x' }, tree)), 'd0: "x": invalid write option')
  t.equal(said(param({ ...ask, pass: '10' }, tree)), 'd0: "10": invalid pass number')
  t.equal(said(param({ ...ask, hotSparePool: 'none' }, tree)), 'd0: "-h": illegal option')
  t.equal(said(param({ ...ask, name: 'd2', pass: '1' }, tree)), 'd2: "-p": illegal option')
  t.equal(said(param({ ...ask, name: 'd2', hotSparePool: 'hsp001' }, tree)), 'hsp001: invalid hotspare pool')
  t.same(done(param({ ...ask, name: 'd2', hotSparePool: 'NONE' }, tree)).put, [])
  t.equal(said(param({ ...ask, name: 'd9' }, tree)), 'd9: unit not set up')
})

t.test('minor numbers', async (t) => {
  const tree = treeOf(['d1 1 1 /disks/a', 'd2 1 1 /disks/b'])
  t.equal(freeMinor(tree, 0), 2)
  t.equal(freeMinor(tree, MAX_UNITS), 2, 'wraps')
  t.equal(freeMinor(tree, 100), 100)
  const d1 = stripeIn(tree, 'd1')
  const full = new Map(Array.from({ length: MAX_UNITS }, (_, minor) => [name(`x${minor}`), { ...d1, minor }]))
  t.equal(freeMinor(full, 5), null)
})
