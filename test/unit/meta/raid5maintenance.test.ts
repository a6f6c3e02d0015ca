/** Commands on the columns of RAID5 devices: every refusal (commands.md 3.2, 3.5, 3.9), and the rows of 3.23. */
import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { IDLE, type Live } from '../../../src/meta/kind.js'
import { attach, clear, detach, offline, online, type Outcome, replace } from '../../../src/meta/operations.js'
import { MAX_COLUMNS } from '../../../src/meta/raid5geometry.js'
import { withUnits } from '../../../src/meta/tree.js'
import type { Column, Tree } from '../../../src/meta/types.js'
import type { MetaResult } from '../../../src/msg/errors.js'
import { COLUMN_BLOCKS, raid5, raid5In, slice, statesOf, treeWith } from './raid5s.js'
import { CYLINDER, device, DISKS, inventoryOf, name, said, text, treeOf } from './world.js'

const HOST = inventoryOf([
  ...DISKS,
  device('/disks/exact', COLUMN_BLOCKS),
  device('/disks/small', COLUMN_BLOCKS - 1),
  device('c1t0d0s0', 101 * CYLINDER, { labelAtStart: true }),
  device('c2t0d0s0', 100 * CYLINDER, { labelAtStart: true }),
  device('/disks/mounted', 100 * CYLINDER, { usedBy: { how: 'mounted', where: '/home' } }),
  ...Array.from({ length: MAX_COLUMNS }, (_, i) => device(`/more/${i}`, 100 * CYLINDER)),
])
const tree = (states: string, columns: Parameters<typeof raid5>[2] = {}): Tree => treeWith(raid5(states, {}, columns))
const RUNNING = { isResyncing: (n: string) => n === 'd5' }
const GONE = { isUnavailable: (n: string) => n === 'd5' }
const done = (r: MetaResult<Outcome>): Outcome => {
  if (!r.ok) throw new Error(text(r.error))
  return r.value
}
const after = (r: MetaResult<Outcome>): string => (r.ok ? statesOf(raid5In(r.value.tree)) : text(r.error))

/** `OLD [NEW]`, -f with a `!` behind. */
const replacing = (of: Tree, line: string, facts: Partial<Live> = {}): MetaResult<Outcome> => {
  const force = line.endsWith('!')
  const [old = '', by] = line.replace('!', '').split(' ')
  return replace(
    { unit: 'd5', old, new: by ?? null, force },
    { tree: of, inventory: HOST, namesOf: (w) => [w], live: { ...IDLE, ...facts }, now: 7 },
  )
}
const attaching = (
  of: Tree,
  line: string,
  facts: Partial<Live> = {},
  how: { interlace?: string; check?: boolean } = {},
) =>
  attach(
    {
      words: ['d5', ...(line === '' ? [] : line.split(' '))],
      interlace: how.interlace ?? null,
      check: how.check ?? false,
    },
    { tree: of, inventory: HOST, live: { ...IDLE, ...facts }, now: 7 },
  )
const clearing = (of: Tree, force: boolean, facts: Partial<Live> = {}): string | readonly unknown[] => {
  const { outcome, errors } = clear({ all: false, force, recursive: false, softPartitions: false, names: ['d5'] }, of, {
    ...IDLE,
    ...facts,
  })
  return errors[0] === undefined ? outcome.changes : text(errors[0])
}

const BUSY = 'd5: resync in progress'
const ONLY_CLEAR = 'd5: only valid action is metaclear'
const IN_USE = 'd5: metadevice in use'
const FORCE = 'd5: operation requires -f (force) flag'

t.test('metareplace', async (t) => {
  const out = done(replacing(tree('okay erred okay'), '/disks/b /disks/g'))
  t.same(out.changes, [{ change: 'deviceReplaced', name: 'd5', device: '/disks/b', by: '/disks/g' }])
  t.equal(statesOf(raid5In(out.tree)), 'okay resync okay')
  t.match(raid5In(out.tree).columns[1], { name: '/disks/g', identity: 'file:1:/disks/g', start: 0, changed: 7 })
  const same = done(replacing(tree('okay erred okay'), '/disks/b'))
  t.same(same.changes, [{ change: 'deviceEnabled', name: 'd5', device: '/disks/b' }])
  const works = raid5In(done(replacing(tree('okay okay okay'), '/disks/a /disks/g')).tree)
  t.equal(statesOf(works), 'okay okay okay', 'it goes on')
  t.match(works, { copy: { of: 0, to: { name: '/disks/g', state: 'resync', changed: 7 } } })
  t.match(raid5In(done(replacing(tree('okay okay okay'), '/disks/a /disks/exact')).tree).copy, { of: 0 })
  t.equal(after(replacing(tree('okay okay okay'), '/disks/a')), 'resync okay okay', 'the disk was changed')
  t.match(
    raid5In(done(replacing(tree('okay erred okay'), '/disks/b c1t0d0s0')).tree).columns[1],
    { start: CYLINDER },
    'never on the label',
  )
})

t.test('metareplace: what runs and what cannot be touched', async (t) => {
  const r = (states: string, line = '/disks/b', facts: Partial<Live> = {}) =>
    after(replacing(tree(states), line, facts))
  t.equal(r('okay erred okay', '/disks/b', GONE), "d5: component is in unavailable state; run 'metastat -i'")
  t.equal(r('okay resync okay', '/disks/b !', RUNNING), BUSY)
  t.equal(r('okay okay okay', '/disks/b', RUNNING), BUSY, 'parity is made')
  t.equal(r('init initErred init', '/disks/b !'), ONLY_CLEAR)
  t.equal(r('init init init', '/disks/b !', RUNNING), IN_USE)
  t.equal(r('okay erred okay | init', '/disks/b', RUNNING), IN_USE, 'it grows')
  t.equal(r('okay erred okay', '/disks/z'), "d5: /disks/z: can't find component in unit")
  t.equal(r('okay erred okay', '/disks/g'), "d5: /disks/g: can't find component in unit")
})

t.test(
  'metareplace while another column is away: it could not be made again, should that one never come back',
  async (t) => {
    const away = { isMissing: ({ name: n }: { readonly name: string }) => n === '/disks/c' }
    const unavailable = "d5: component is in unavailable state; run 'metastat -i'"
    const r = (states: string, line: string) => after(replacing(tree(states), line, away))
    t.equal(r('okay okay okay', '/disks/a'), unavailable)
    t.equal(r('okay okay okay', '/disks/a /disks/g!'), unavailable)
    t.equal(r('okay okay okay', '/disks/c /disks/g'), 'okay okay resync', 'that one itself')
  },
)

t.test('metaclear of what could not be started: its journal goes with it', async (t) => {
  const away = { isMissing: ({ name: n }: { readonly name: string }) => n === '/disks/c' }
  t.equal(clearing(tree('okay okay okay'), false, away), FORCE)
  t.equal(clearing(tree('okay okay okay'), false, GONE), FORCE)
  t.equal(typeof clearing(tree('okay okay okay'), true, away), 'object')
  t.equal(typeof clearing(tree('okay okay erred'), true, GONE), 'object')
})

t.test('metareplace: which one first', async (t) => {
  const first = 'd5: /disks/a: must replace errored component first'
  const r = (states: string, line: string) => after(replacing(tree(states), line))
  t.equal(r('okay erred okay', '/disks/a'), first)
  t.equal(r('okay erred okay', '/disks/a!'), first)
  t.equal(r('lastErred erred okay', '/disks/b'), FORCE)
  t.equal(r('lastErred erred okay', '/disks/a!'), first)
  t.equal(r('lastErred erred okay', '/disks/b!'), 'lastErred resync okay')
  t.equal(r('okay lastErred lastErred', '/disks/a!'), first)
  t.equal(r('okay lastErred lastErred', '/disks/b'), FORCE)
  t.equal(r('okay lastErred lastErred', '/disks/b!'), 'okay resync lastErred')
  t.equal(r('lastErred resync okay', '/disks/b!'), 'lastErred resync okay', 'its resync could not go on')
  t.equal(r('okay okay okay | initErred', '/disks/a'), first)
  t.equal(r('okay okay okay | init initErred', '/disks/e'), 'okay okay okay | init init', 'zeroed again')
  t.equal(r('okay erred okay | initErred', '/disks/d'), 'okay erred okay | init')
  t.equal(r('okay erred okay | initErred', '/disks/b'), 'okay resync okay | initErred')
})

t.test('metareplace: what it is replaced with', async (t) => {
  const r = (line: string, of = tree('okay erred okay')) => after(replacing(of, line))
  t.equal(r('/disks/b /disks/small'), 'd5: /disks/small: No space left on device')
  t.equal(r('/disks/b c2t0d0s0'), 'd5: c2t0d0s0: No space left on device', 'the label costs a cylinder')
  t.equal(r('/disks/b /disks/a'), '/disks/a: has appeared more than once in the specification of d5')
  t.equal(r('/disks/b /disks/mounted'), '/disks/mounted: is mounted on /home')
  t.equal(r('/disks/b /disks/none'), '/disks/none: No such file or directory')
  const busy = device('/disks/b', 100 * CYLINDER, { usedBy: { how: 'busy', where: '' } })
  const enable = (states: string) =>
    after(
      replace(
        { unit: 'd5', old: '/disks/b', new: null, force: false },
        { tree: tree(states), inventory: inventoryOf([busy]), namesOf: () => [], live: IDLE, now: 7 },
      ),
    )
  t.equal(enable('okay okay okay'), 'okay resync okay', 'metad has it open itself')
  t.equal(enable('okay erred okay'), '/disks/b: Device or resource busy', 'a request hangs in it')
})

t.test('metareplace where a hot spare stands in', async (t) => {
  const { name: n, path, identity, extent, offset, size, start } = raid5('okay').columns[0] as Column
  const spare = { pool: name('hsp001'), original: { name: n, path, identity, extent, offset, size, start } }
  const of = tree('okay okay okay', { a: { ...slice('/disks/h'), spare } })
  const out = done(replacing(of, '/disks/a'))
  t.match(raid5In(out.tree).columns[0], { name: '/disks/h', state: 'okay' }, 'it stands in until its copy is whole')
  t.match(raid5In(out.tree).copy, { of: 0, to: { name: '/disks/a', state: 'resync', spare: null } })
  const stale = tree('resync okay okay', { a: { ...slice('/disks/h'), spare } })
  const made = done(replacing(stale, '/disks/a'))
  t.match(raid5In(made.tree).columns[0], { name: '/disks/a', state: 'resync', spare: null, relieves: '/disks/h' })
  t.equal(after(replacing(of, '/disks/h')), "d5: /disks/h: can't find component in unit", 'a spare is no column')
})

t.test('metattach', async (t) => {
  const out = done(attaching(tree('okay okay okay'), '/disks/f /disks/exact'))
  t.same(out.changes, [{ change: 'componentsAttached', name: 'd5', count: 2, check: false }])
  t.equal(statesOf(raid5In(out.tree)), 'okay okay okay | init init')
  t.equal(raid5In(out.tree).blocks, raid5('okay okay okay').blocks, 'not yet')
  t.equal(after(attaching(tree('okay erred okay'), '/disks/f')), 'okay erred okay | init')
})

t.test('metattach: refusals', async (t) => {
  const r = (states: string, line = '/disks/f', facts: Partial<Live> = {}) =>
    after(attaching(tree(states), line, facts))
  t.equal(r('okay resync okay | init'), IN_USE)
  t.equal(r('okay okay okay | initErred'), IN_USE)
  t.equal(r('okay resync okay'), BUSY)
  t.equal(r('okay okay okay', '/disks/f', RUNNING), BUSY)
  t.equal(r('erred lastErred okay'), 'd5: in Last Erred state, errored components must be replaced')
  t.equal(r('init initErred init'), ONLY_CLEAR)
  t.equal(r('init init init', '/disks/f', RUNNING), IN_USE)
  t.equal(r('okay okay okay', ''), 'd5: not enough components specified')
  t.equal(r('okay okay okay', '/disks/f /disks/small'), 'd5: /disks/small: No space left on device')
  t.equal(r('okay okay okay', '/disks/f /disks/f'), '/disks/f: has appeared more than once in the specification of d5')
  t.equal(r('okay okay okay', '/disks/mounted'), '/disks/mounted: is mounted on /home')
  const many = Array.from({ length: MAX_COLUMNS - 2 }, (_, i) => `/more/${i}`).join(' ')
  t.equal(r('okay okay okay', many), `d5: a RAID metadevice has at most ${MAX_COLUMNS} columns`)
  const of = tree('okay okay okay')
  t.equal(after(attaching(of, '/disks/f', {}, { check: true })), 'd5: "-n": illegal option')
  t.equal(after(attaching(of, '/disks/f', {}, { interlace: '16k' })), 'd5: "-i": illegal option')
  const huge = withUnits(of, [
    raid5('okay okay okay', { interlace: blocks(2 ** 21), lines: 2 ** 31, prewrite: blocks(8) }),
  ])
  t.equal(after(attaching(huge, '/disks/f')), 'd5: /disks/f: No space left on device')
})

t.test('columns are no submirrors', async (t) => {
  const of = tree('okay okay okay')
  const side = { mirror: 'd5', submirror: '/disks/a', force: true }
  t.equal(said(offline(side, { tree: of, live: IDLE, now: 1 })), 'd5: unit is not a mirror')
  t.equal(said(online(side, { tree: of, live: IDLE, now: 1 })), 'd5: unit is not a mirror')
  t.equal(said(detach(['d5', '/disks/a'], true, of, IDLE, 1)), 'd5: invalid metadevice type md_raid')
  const stripe = treeOf(['d1 1 1 /disks/a'])
  t.equal(
    said(
      replace(
        { unit: 'd1', old: '/disks/a', new: null, force: false },
        { tree: stripe, inventory: HOST, namesOf: (w) => [w], live: IDLE, now: 1 },
      ),
    ),
    'd1: unknown metadevice type',
  )
})

/** commands.md 3.23: `ok`, `f` only with -f, `R` refused; metareplace of the column that is worst, metattach of one. */
t.test('what is refused when', async (t) => {
  const rows: readonly (readonly [string, string, Partial<Live>, string, string, string])[] = [
    // state, columns, what runs, metaclear, metareplace, metattach
    ['Initializing', 'init init init', RUNNING, 'R', 'R', 'R'],
    ['Okay', 'okay okay okay', {}, 'ok', 'ok', 'ok'],
    ['Okay, and open', 'okay okay okay', { isOpen: () => true }, 'R', 'ok', 'ok'],
    ['one column Maintenance', 'erred okay okay', {}, 'f', 'ok', 'ok'],
    ['two columns bad', 'erred lastErred okay', {}, 'f', 'f', 'R'],
    ['resyncing', 'resync okay okay', RUNNING, 'R', 'R', 'R'],
    ['Initialization Failed', 'initErred init init', {}, 'f', 'R', 'R'],
    ['growing', 'okay okay okay | init', RUNNING, 'R', 'R', 'R'],
    ['parity is made', 'okay okay okay', RUNNING, 'R', 'R', 'R'],
  ]
  const verdict = (plain: boolean, forced: boolean): string => (plain ? 'ok' : forced ? 'f' : 'R')
  for (const [state, columns, facts, clears, replaces, attaches] of rows) {
    const of = tree(columns)
    const cleared = [false, true].map((force) => typeof clearing(of, force, facts) !== 'string')
    const replaced = ['/disks/a', '/disks/a!'].map((line) => replacing(of, line, facts).ok)
    t.equal(verdict(cleared[0] === true, cleared[1] === true), clears, `metaclear: ${state}`)
    t.equal(verdict(replaced[0] === true, replaced[1] === true), replaces, `metareplace: ${state}`)
    t.equal(attaching(of, '/disks/f', facts).ok ? 'ok' : 'R', attaches, `metattach: ${state}`)
  }
  t.equal(after(replacing(tree('erred okay okay'), '/disks/b')), 'd5: /disks/b: must replace errored component first')
})
