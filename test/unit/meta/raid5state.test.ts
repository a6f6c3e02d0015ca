/** One assertion or more per row of driver.md 4.8, what deliberately differs, and every state that can come about. */
import t from 'tap'
import { readFileSync } from 'node:fs'
import { blocks } from '../../../src/base/units.js'
import { advanceRaid5, raid5Event, type Raid5Event } from '../../../src/meta/raid5state.js'
import {
  COLUMN_NEXT,
  isGrowing,
  isInitFailed,
  isInitialising,
  isInService,
  othersReadable,
  raid5StateOf,
} from '../../../src/meta/raid5tables.js'
import type { ColumnState, Raid5Unit } from '../../../src/meta/types.js'
import { afterRaid5, type AfterRaid5, LAYOUT, raid5, slice, statesOf, treeWith } from './raid5s.js'
import { name, text } from './world.js'

const done = (u: Raid5Unit | string, ...events: readonly Raid5Event[]): AfterRaid5 => {
  const x = afterRaid5(typeof u === 'string' ? raid5(u) : u, ...events)
  if (typeof x === 'string') throw new Error(x)
  return x
}
const error = (column: number): Raid5Event => ({ event: 'error', column })
const opened = (column: number): Raid5Event => ({ event: 'opened', column })
const openError = (column: number): Raid5Event => ({ event: 'openError', column })
const replace = (column: number, path = '/new'): Raid5Event => ({ event: 'replace', column, by: slice(path) })
const spare = (column: number): Raid5Event => ({ event: 'spare', column, by: slice('/spare'), pool: name('hsp001') })
type Result = 'done' | 'failed' | 'cancelled'
const resyncEnd = (column: number, result: Result, failed: number | null = null): Raid5Event => ({
  event: 'resyncEnd',
  column,
  result,
  done: blocks(4096),
  failed,
})
const initEnd = (columns: readonly number[], result: Result, failed: number | null = null): Raid5Event => ({
  event: 'initEnd',
  columns,
  result,
  failed,
})
const attach = (...paths: readonly string[]): Raid5Event => ({ event: 'attach', by: paths.map((p) => slice(p)) })

t.test('I/O error: the first column is in Maintenance, those after it Last Erred', async (t) => {
  const first = done('okay okay okay okay', error(1))
  t.equal(first.states, 'okay erred okay okay')
  t.same(first.notices, ['md: d5: /disks/b needs maintenance'])
  t.match(first.unit, { errors: 9, columns: [{}, { erredOrder: 9, changed: 5000 }, { erredOrder: 0, changed: 1000 }] })
  const second = done(first.unit, error(3))
  t.equal(second.states, 'okay erred okay lastErred')
  t.same(second.notices, ['md: d5: /disks/d needs maintenance', 'md: d5: /disks/d last erred'])
  t.equal(done(second.unit, error(0)).states, 'lastErred erred okay lastErred', 'and so is every other')
})

t.test('further errors of the same column change nothing and say nothing', async (t) => {
  const u = raid5('okay erred lastErred')
  for (const column of [1, 2]) {
    const x = done(u, error(column))
    t.equal(x.unit, u)
    t.same(x.notices, [])
  }
})

t.test('a column that is not in step counts like one that failed', async (t) => {
  t.equal(done('resync okay okay', error(1)).states, 'resync lastErred okay', 'its data is not there yet')
  t.equal(done('resync okay okay', error(0)).states, 'erred okay okay', 'half a column is no last resort')
  t.equal(done('lastErred okay okay', error(1)).states, 'lastErred lastErred okay')
  t.equal(done('okay okay okay | init', error(0)).states, 'erred okay okay | init', 'one that joins has no data')
})

t.test('open failure', async (t) => {
  const x = done('okay okay okay', openError(2))
  t.equal(x.states, 'okay okay erred')
  t.same(x.notices, ['md: d5: /disks/c needs maintenance'])
  for (const states of ['erred okay okay', 'resync okay okay', 'lastErred okay okay'])
    t.equal(afterRaid5(raid5(states), openError(2)), 'illegal: openError of 2 in others are not in step', states)
  t.equal(done('okay okay lastErred', openError(2)).states, 'okay okay erred', 'everything can be read without it')
  t.match(afterRaid5(raid5('init init init'), openError(0)), /^illegal/, 'it may be a cable')
  t.match(afterRaid5(raid5('okay okay okay | init'), openError(3)), /^illegal/)
})

t.test('Last Erred and it opens: Okay', async (t) => {
  const x = done('erred lastErred okay', opened(1))
  t.equal(x.states, 'erred okay okay')
  t.same(x.notices, [])
  t.equal(done('erred lastErred lastErred', opened(1), opened(2)).states, 'erred okay okay')
  t.match(afterRaid5(raid5('erred okay okay'), opened(0)), /^illegal/, 'Maintenance missed writes')
})

t.test('resync', async (t) => {
  t.equal(done('okay resync okay', resyncEnd(1, 'done')).states, 'okay okay okay')
  const covered = done('lastErred resync okay', resyncEnd(1, 'done'))
  t.equal(covered.states, 'erred okay okay', 'the rest has everything of it: writable again')
  t.same(covered.notices, [])
  t.equal(done('lastErred resync lastErred', resyncEnd(1, 'done')).states, 'lastErred okay lastErred', 'of two, none')
  t.equal(done('okay resync okay', resyncEnd(1, 'failed', 1)).states, 'okay erred okay')
  const source = done('lastErred resync okay', resyncEnd(1, 'failed', 0))
  t.same(source.notices, ['md: d5: needs maintenance, replace terminated'])
  t.equal(source.states, 'lastErred resync okay', 'another one failed: it waits')
  t.match(source.unit.checkpoint, { column: 1, identity: 'file:1:/disks/b', done: 4096 })
  t.match(done('okay resync okay', resyncEnd(1, 'cancelled')).unit.checkpoint, { done: 4096 })
  t.match(afterRaid5(raid5('okay erred okay'), resyncEnd(1, 'done')), /^illegal/, 'it failed meanwhile')
  t.equal(done(raid5('okay resync okay', { regen: true }), resyncEnd(1, 'done')).unit.regen, false, 'parity is right')
})

t.test(
  'a column that fails in resync is behind what its header says when the end of the resync was not committed',
  async (t) => {
    for (const states of ['okay resync okay', 'lastErred resync okay', 'lastErred resync lastErred']) {
      const header = done(states, resyncEnd(1, 'done')).unit.errors
      t.ok(done(states, error(1)).unit.errors > header, states)
      t.ok(done(states, resyncEnd(1, 'failed', 1)).unit.errors > header, states)
    }
  },
)

t.test('checkpoints are those of a column in resync, and go with it', async (t) => {
  const x = done('okay resync okay', { event: 'checkpoint', column: 1, done: blocks(64) })
  t.same(x.unit.checkpoint, { column: 1, identity: 'file:1:/disks/b', done: 64 })
  for (const e of [error(1), replace(1), resyncEnd(1, 'done')]) t.equal(done(x.unit, e).unit.checkpoint, null, e.event)
  t.match(done(x.unit, error(0)).unit.checkpoint, { column: 1 }, 'another column is another matter')
  const u = raid5('okay erred okay')
  t.equal(done(u, { event: 'checkpoint', column: 1, done: blocks(64) }).unit, u)
})

t.test('initialisation', async (t) => {
  const all = initEnd([0, 1, 2], 'done')
  t.equal(done('init init init', all).states, 'okay okay okay')
  const failed = done('init init init', error(1))
  t.equal(failed.states, 'init initErred init')
  t.ok(isInitFailed(failed.unit))
  t.equal(done('init init init', initEnd([0, 1, 2], 'failed', 2)).states, 'init init initErred')
  t.equal(done('init init init', initEnd([0, 1, 2], 'failed')).states, 'init init init', 'no column failed')
  t.equal(done('init init init', initEnd([0, 1, 2], 'cancelled')).states, 'init init init')
  t.match(afterRaid5(failed.unit, all), /^illegal/)
  for (const states of ['init init init', 'init initErred init'])
    t.match(afterRaid5(raid5(states), replace(1)), /^illegal/, 'only metaclear')
})

t.test('attached columns join when all of them are zeroes', async (t) => {
  const x = done('okay okay okay', attach('/x', '/y'))
  t.equal(x.states, 'okay okay okay | init init')
  t.equal(x.unit.blocks, raid5('okay okay okay').blocks)
  t.match(x.unit.columns[4], { name: '/y', spare: null, changed: 5000 })
  const joined = done(x.unit, initEnd([3, 4], 'done'))
  t.equal(joined.states, 'okay okay okay okay okay')
  t.equal(joined.unit.actualBlocks, 4 * LAYOUT.lines * LAYOUT.interlace)
  t.equal(joined.unit.blocks, raid5('okay okay okay okay okay').blocks)
  const failed = done(x.unit, error(4))
  t.equal(failed.states, 'okay okay okay | init initErred')
  t.match(afterRaid5(failed.unit, initEnd([3], 'done')), /^illegal/)
  const again = done(failed.unit, replace(4, '/z'))
  t.equal(again.states, 'okay okay okay | init init')
  t.equal(again.unit.columns[4]?.name, '/z')
  t.equal(done('erred okay okay', attach('/x'), initEnd([3], 'done')).states, 'erred okay okay okay')
  for (const states of ['okay resync okay', 'erred lastErred okay', 'init init init', 'okay okay okay | init'])
    t.match(afterRaid5(raid5(states), attach('/x')), /^illegal/, states)
})

t.test('metareplace', async (t) => {
  for (const states of ['okay okay okay', 'okay erred okay', 'okay resync okay', 'erred lastErred okay']) {
    const x = done(states, replace(1))
    t.equal(x.states.split(' ')[1], 'resync', states)
    t.match(x.unit.columns[1], { name: '/new', identity: 'file:1:/new', changed: 5000 })
  }
})

t.test('a column that works is copied', async (t) => {
  const copy = (column: number, path = '/new'): Raid5Event => ({ event: 'copy', column, by: slice(path) })
  const copyEnd = (column: number, result: Result, failed: number | null = null): Raid5Event => ({
    event: 'copyEnd',
    column,
    result,
    failed,
  })
  const x = done('okay okay okay', copy(1))
  t.equal(x.states, 'okay okay okay')
  t.match(x.unit, { copy: { of: 1, to: { name: '/new', state: 'resync' } }, columns: [{}, { name: '/disks/b' }, {}] })
  t.equal(raid5StateOf(x.unit), 'resyncing')
  t.equal(raid5StateOf(x.unit, false), 'waiting')
  const whole = done(x.unit, copyEnd(1, 'done'))
  t.match(whole.unit, { copy: null, columns: [{}, { name: '/new', state: 'okay', spare: null }, {}] })
  t.ok(whole.unit.errors > x.unit.errors)
  t.equal(done(x.unit, copyEnd(1, 'failed', 1)).unit, x.unit, 'it waits')
  t.equal(done(x.unit, copyEnd(1, 'cancelled')).unit, x.unit)
  for (const e of [error(3), copyEnd(1, 'failed', 3)]) {
    const lost = done(x.unit, e)
    t.match(lost.unit, { copy: null, columns: [{}, { name: '/disks/b', state: 'okay' }, {}] })
    t.same(lost.notices, ['md: d5: /new write error, replace terminated'])
    t.ok(lost.unit.errors > whole.unit.errors, 'a header that says otherwise is an old one')
  }
  for (const e of [error(1), openError(1)]) {
    const made = done(x.unit, e)
    t.equal(made.states, 'okay resync okay')
    t.match(made.unit, { copy: null, checkpoint: null, columns: [{}, { name: '/new' }, {}] })
    t.same(made.notices, ['md: d5: /disks/b needs maintenance'])
  }
  const besides = done(x.unit, error(0))
  t.equal(besides.states, 'erred okay okay', 'another one is missing, and the copy goes on')
  t.match(besides.unit.copy, { of: 1 })
  const last = done(besides.unit, error(1))
  t.equal(last.states, 'erred lastErred okay')
  t.equal(last.unit.copy, null, 'nothing could make it')
  t.same(last.notices, [
    'md: d5: /disks/b needs maintenance',
    'md: d5: /disks/b last erred',
    'md: d5: needs maintenance, replace terminated',
  ])
  t.match(afterRaid5(x.unit, copy(0)), /^illegal/, 'one at a time')
  t.match(done(x.unit, copy(1, '/other')).unit.copy, { to: { name: '/other' } })
  for (const e of [attach('/more'), { event: 'regen' } as const, copyEnd(0, 'done')])
    t.match(afterRaid5(x.unit, e), /^illegal/, e.event)
  for (const states of ['okay erred okay', 'okay resync okay', 'okay lastErred okay'])
    t.match(afterRaid5(raid5(states), copy(1)), /^illegal/, states)
  const spared = done('okay erred okay', spare(1), resyncEnd(1, 'done'), copy(1, '/disks/b'))
  t.match(spared.unit.columns[1], { name: '/spare', state: 'okay' })
  t.match(done(spared.unit, copyEnd(1, 'done')).unit.columns[1], { name: '/disks/b', spare: null, state: 'okay' })
  const broken = done(spared.unit, error(1))
  t.match(broken.unit.columns[1], { name: '/disks/b', spare: null, state: 'resync' })
  t.same(broken.notices, ['md: d5: /spare needs maintenance', 'md: d5: /spare hotspare errored and released'])
})

t.test('how far a copy came', async (t) => {
  const by = slice('/new')
  const checkpoint = (done: number): Raid5Event => ({ event: 'checkpoint', column: 1, done: blocks(done) })
  const x = done('okay okay okay', { event: 'copy', column: 1, by }, checkpoint(64))
  t.match(x.unit, { copy: { of: 1, done: 64 }, checkpoint: null })
  const cancelled: Raid5Event = { event: 'copyEnd', column: 1, result: 'cancelled', failed: null }
  for (const e of [cancelled, error(0), { event: 'started', epoch: 1 } as const])
    t.equal(done(x.unit, e).unit.copy?.done, 64, e.event)
  for (const e of [{ event: 'copyMissed' }, { event: 'started', epoch: 1, damaged: true }] as const) {
    const anew = done(x.unit, e).unit
    t.equal(anew.copy?.done, 0, `${e.event}: it may differ below`)
    t.ok((anew.copy?.to.erredOrder ?? 0) > (x.unit.copy?.to.erredOrder ?? 0), 'what is under way goes on from nowhere')
    t.equal(done(anew, e).unit.errors, anew.errors, 'once')
  }
  t.equal(done(x.unit, { event: 'copy', column: 1, by: slice('/other') }).unit.copy?.done, 0, 'another disk')
  const own = raid5('okay okay okay')
  t.equal(done(own, { event: 'copyMissed' }).unit, own)
  t.equal(done(x.unit, error(1)).unit.checkpoint, null, 'what it becomes is made anew')
})

t.test('hot spares', async (t) => {
  const x = done('okay erred okay', spare(1))
  t.equal(x.states, 'okay resync okay')
  t.same(x.notices, ['md: d5: hotspared device /disks/b with /spare'])
  t.match(x.unit.columns[1], { name: '/spare', spare: { pool: 'hsp001', original: { name: '/disks/b' } } })
  t.match(afterRaid5(x.unit, spare(1)), /^illegal/)
  t.match(afterRaid5(raid5('erred lastErred okay'), spare(0)), /^illegal/, 'what it needs may not be readable')
  t.match(afterRaid5(raid5('okay okay okay'), spare(0)), /^illegal/)
  const failed = done(x.unit, error(1))
  t.same(failed.notices, ['md: d5: /spare needs maintenance', 'md: d5: /spare hotspare errored and released'])
  const back = done(x.unit, resyncEnd(1, 'done'), replace(1, '/disks/b'))
  t.match(back.unit.columns[1], { name: '/disks/b', spare: null, relieves: '/spare', state: 'resync' })
  t.equal(done(back.unit, resyncEnd(1, 'done')).unit.columns[1]?.relieves, undefined)
  t.equal(
    done(failed.unit, replace(1, '/disks/b')).unit.columns[1]?.relieves,
    undefined,
    'nobody waits for a broken one',
  )
})

t.test('parity on request', async (t) => {
  const x = done('okay okay okay', { event: 'regen' })
  t.ok(x.unit.regen)
  t.equal(raid5StateOf(x.unit), 'regen')
  t.equal(done(x.unit, { event: 'regenEnd', result: 'done' }).unit.regen, false)
  for (const result of ['failed', 'cancelled'] as const)
    t.ok(done(x.unit, { event: 'regenEnd', result }).unit.regen, 'still wanted')
  t.equal(done(x.unit, error(0)).states, 'erred okay okay', 'an error costs one column, not all (driver.md B.1)')
  for (const states of ['erred okay okay', 'resync okay okay', 'init init init', 'okay okay okay | init'])
    t.match(afterRaid5(raid5(states), { event: 'regen' }), /^illegal/, states)
})

t.test('a start', async (t) => {
  const u = raid5('okay erred lastErred')
  const x = done(u, { event: 'started', epoch: 1 })
  t.same(x.unit.journal, { unit: 77, epoch: 2 })
  t.equal(x.states, statesOf(u))
})

t.test('what the whole is', async (t) => {
  const rows: readonly (readonly [string, ReturnType<typeof raid5StateOf>])[] = [
    ['okay okay okay', 'okay'],
    ['okay erred okay', 'erred'],
    ['okay erred lastErred', 'lastErred'],
    ['okay okay lastErred', 'lastErred'],
    ['okay resync okay', 'resyncing'],
    ['lastErred resync okay', 'resyncing'],
    ['init init init', 'initializing'],
    ['init initErred init', 'initFailed'],
    ['okay okay okay | init', 'okay'],
    ['okay okay okay | initErred', 'erred'],
    ['okay okay resync | init', 'resyncing'],
  ]
  for (const [states, state] of rows) t.equal(raid5StateOf(raid5(states)), state, states)
  t.equal(raid5StateOf(raid5('lastErred resync okay'), false), 'lastErred', 'the resync could not go on')
  t.equal(raid5StateOf(raid5('okay resync okay'), false), 'waiting')
  t.same(raid5('okay erred lastErred | init initErred').columns.map(isInService), [true, false, true, true, false])
  t.ok(isGrowing(raid5('okay okay okay | init')))
  t.notOk(isGrowing(raid5('okay okay okay | init initErred')))
  t.notOk(isInitialising(raid5('okay okay okay | init')))
  t.ok(isInitialising(raid5('init init init')))
})

t.test('as a change of the tree', async (t) => {
  const tree = treeWith(raid5('okay okay okay'))
  const x = raid5Event(tree, name('d5'), error(0), 7)
  t.ok(x.ok && statesOf(x.value.outcome.put[0] as Raid5Unit) === 'erred okay okay')
  const same = raid5Event(tree, name('d5'), opened(0), 7)
  t.ok(same.ok && same.value.outcome.tree === tree, 'nothing to commit')
  const bad = raid5Event(tree, name('d5'), resyncEnd(0, 'done'), 7)
  t.equal(bad.ok ? '' : text(bad.error), 'd5: operation on a column in illegal state: resyncEnd of column 0 in okay')
  t.equal(raid5Event(tree, name('d6'), error(0), 7).ok, false)
})

t.test('the document says what the table says', async (t) => {
  const lines = readFileSync('docs/state-machines.md', 'utf8').split('\n')
  const cells = (line: string): readonly string[] =>
    line
      .split('|')
      .slice(1, -1)
      .map((c) => c.trim().replaceAll('`', ''))
  const at = lines.findIndex((l) => l.startsWith('| column |'))
  const events = cells(lines[at] ?? '').slice(1)
  const said = lines.slice(at + 2, at + 2 + Object.keys(COLUMN_NEXT).length).map((line) => {
    const [state = '', ...to] = cells(line)
    const next: Record<string, string> = {}
    for (const [i, event] of events.entries()) if ((to[i] ?? '') !== '') next[event] = to[i] ?? ''
    return [state, next] as const
  })
  t.same(Object.fromEntries(said), COLUMN_NEXT)
})

/**
 * What the columns hold, in the coarsest terms: whether each has the data of every line. Between two events
 * anything may be written, which only reaches columns that are written.
 */
interface Known {
  readonly unit: Raid5Unit
  readonly good: readonly boolean[]
}
const WRITTEN: readonly ColumnState[] = ['okay', 'resync']
const isWritable = (u: Raid5Unit): boolean => u.columns.every((c) => c.state !== 'lastErred')
const written = ({ unit: u, good }: Known): Known =>
  isWritable(u)
    ? { unit: u, good: good.map((g, i) => g && WRITTEN.includes(u.columns[i]?.state ?? 'erred')) }
    : { unit: u, good }

const EVENTS = (u: Raid5Unit): readonly Raid5Event[] => [
  ...u.columns.flatMap((_, i): readonly Raid5Event[] => [
    error(i),
    opened(i),
    openError(i),
    replace(i),
    spare(i),
    { event: 'checkpoint', column: i, done: blocks(64) },
    ...u.columns.flatMap((_, j) => [resyncEnd(i, 'failed', j), initEnd([i], 'failed', j)]),
    resyncEnd(i, 'done'),
    resyncEnd(i, 'cancelled'),
  ]),
  ...(u.columns.length < 4 ? [attach('/disks/x')] : []),
  initEnd(
    u.columns.flatMap((c, i) => (c.state === 'init' ? [i] : [])),
    'done',
  ),
  { event: 'regen' },
  { event: 'started', epoch: 1 },
  { event: 'regenEnd', result: 'done' },
]

t.test('in every state that can come about nothing is lost by a decision', async (t) => {
  const key = ({ unit: u, good }: Known): string =>
    `${statesOf(u)} ${good.join()} ${u.regen} ${u.columns.map((c) => (c.spare === null ? '' : 's')).join()}`
  const seen = new Map<string, Known>()
  const start = raid5('init init init')
  const queue: Known[] = [{ unit: start, good: [false, false, false] }]
  let transitions = 0
  while (queue.length > 0) {
    const known = queue.pop()
    if (known === undefined || seen.has(key(known))) continue
    seen.set(key(known), known)
    const { unit: u, good } = known
    for (const e of EVENTS(u)) {
      // The administrator's order is metareplace's to see to: with -f a Last Erred column may be given up.
      if (e.event === 'replace' && (u.columns[e.column]?.state === 'lastErred' || !readableWithout(u, e.column)))
        continue
      const next = advanceRaid5(u, e, 5000)
      if (!next.ok) continue
      transitions++
      const { unit: after } = next.value
      const content = after.columns.map((c, i) => {
        const before = u.columns[i]?.state
        if (e.event === 'initEnd' && e.result === 'done' && before === 'init') return true
        // A regeneration reads all others.
        if (e.event === 'resyncEnd' && e.result === 'done' && e.column === i)
          return othersReadable(u, i) && u.columns.slice(0, u.serving).every((_, j) => j === i || good[j] === true)
        if (c.name !== u.columns[i]?.name || (e.event === 'replace' && e.column === i)) return false
        return good[i] ?? false
      })
      check({ unit: after, good: content }, u, e)
      queue.push(written({ unit: after, good: content }), { unit: after, good: content })
    }
  }
  t.ok(seen.size > 100, `${seen.size} states, ${transitions} transitions`)

  function readableWithout(u: Raid5Unit, column: number): boolean {
    return u.columns.slice(0, u.serving).every((c, i) => i === column || c.state === 'okay' || c.state === 'lastErred')
  }
  function check({ unit: u, good }: Known, before: Raid5Unit, e: Raid5Event): void {
    const serving = u.columns.slice(0, u.serving)
    const joining = u.columns.slice(u.serving)
    const one = serving.filter((c) => c.state === 'erred' || c.state === 'resync').length
    const initial = serving.filter((c) => c.state === 'init' || c.state === 'initErred').length
    const problems = [
      ...(one > 1 ? ['two columns are not readable'] : []),
      ...(initial > 0 && initial < serving.length ? ['data beside none'] : []),
      ...(joining.some((c) => c.state !== 'init' && c.state !== 'initErred') ? ['a column has joined early'] : []),
      ...serving.flatMap((c, i) =>
        (c.state === 'okay' || c.state === 'lastErred') && good[i] !== true
          ? [`column ${i} is read and has no data`]
          : [],
      ),
      ...(u.checkpoint !== null && u.columns[u.checkpoint.column]?.state !== 'resync' ? ['a stray checkpoint'] : []),
    ]
    if (problems.length > 0) throw new Error(`${statesOf(before)}, ${JSON.stringify(e)}: ${problems.join(', ')}`)
  }
})
