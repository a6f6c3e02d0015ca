/** The order replay, commit, serve, and when a replay is made at all. */
import t from 'tap'
import { ok } from '../../../src/base/result.js'
import { blocks } from '../../../src/base/units.js'
import { Raid5Starts, toBeDrained } from '../../../src/daemon/raid5start.js'
import { State } from '../../../src/daemon/state.js'
import { outcome } from '../../../src/meta/operations.js'
import { withUnits } from '../../../src/meta/tree.js'
import type { ColumnState, Raid5Unit, Tree } from '../../../src/meta/types.js'
import { name, treeOf } from '../meta/world.js'
import { Gate, settled } from './gate.js'

const D5 = name('d5')
const raid5In = (tree: Tree): Raid5Unit => {
  const u = tree.get(D5)
  if (u?.kind !== 'raid5') throw new Error('no d5')
  return u
}
const withStates = (tree: Tree, states: readonly ColumnState[]): Tree => {
  const u = raid5In(tree)
  return withUnits(tree, [{ ...u, columns: u.columns.map((c, i) => ({ ...c, state: states[i] ?? c.state })) }])
}
const TREE = withStates(treeOf(['d5 -r /disks/a /disks/b /disks/c']), ['okay', 'okay', 'okay'])

const rig = async (tree: Tree = TREE) => {
  const gate = Gate.of(tree)
  const state = new State(gate)
  state.load()
  const log: string[] = []
  let device: number | undefined
  const starts = new Raid5Starts({
    state,
    metadevices: { reserve: () => Promise.resolve(7), deviceOf: () => device },
    log: { info: () => undefined },
    notice: (_, text) => log.push(text),
  })
  const begin = (picture = false) => {
    const install = () => {
      device = 7
      log.push('install')
      return Promise.resolve(ok(true))
    }
    const started = starts.start(raid5In(state.tree), install, picture)
    return started.then((r) => log.push(r.ok ? 'ok' : r.error.code))
  }
  const replayed = (errno: number, damaged = 0, epoch = 1): void =>
    starts.event({ kind: 'replayed', device: 7, generation: 1, errno, groups: 2, blocks: blocks(16), damaged, epoch })
  return { gate, state, starts, log, begin, replayed, forget: () => (device = undefined) }
}

t.test('the next epoch is durable before the start is over, and not before the replay is', async (t) => {
  const { gate, state, starts, log, begin, replayed } = await rig()
  t.ok(starts.isNeeded(raid5In(state.tree)))
  const over = begin()
  await settled()
  t.equal(gate.waiting.length, 0, 'nothing is committed while the journal is replayed')
  replayed(0)
  await settled()
  t.same(log, ['install'], 'the commit is waited for')
  await gate.let(true)
  await over
  t.same(log, ['install', 'ok'])
  t.equal(raid5In(state.tree).journal.epoch, 2)
  t.notOk(starts.isNeeded(raid5In(state.tree)), 'what comes now is the plan that serves')
  t.notOk(starts.isStarted(D5))
  t.ok(starts.isNeeded(raid5In(TREE)), 'of another epoch it would have to be replayed')
  starts.serves(D5)
  t.ok(starts.isStarted(D5))
  t.notOk(starts.isNeeded(raid5In(state.tree)))
})

t.test('what a degraded device cannot replay is shown, in the same epoch, until something changes', async (t) => {
  const degraded = withStates(TREE, ['erred', 'lastErred', 'okay'])
  const { gate, state, starts, log, begin, replayed, forget } = await rig(degraded)
  const unit = raid5In(state.tree)
  t.notOk(starts.wantsPicture(unit), 'the replay is tried first')
  let over = begin()
  await settled()
  replayed(5)
  await over
  t.ok(starts.wantsPicture(unit))
  t.notOk(starts.wantsPicture(raid5In(TREE)), 'of a whole one the column that failed goes out')
  over = begin(true)
  await settled()
  replayed(0)
  await over
  t.equal(gate.waiting.length, 0, 'no epoch is committed')
  t.match(log.at(-2), /d5: its journal cannot be replayed; read only/)
  t.ok(starts.isPictured(unit))
  t.notOk(starts.isNeeded(unit), 'what comes now is the plan that shows it')
  t.notOk(starts.isStarted(D5))
  const changed = raid5In(withStates(degraded, ['erred', 'okay', 'okay']))
  t.ok(starts.isNeeded(changed) && !starts.isPictured(changed), 'another record')
  starts.retry(D5)
  t.ok(starts.isNeeded(unit), 'asked for')
  // The picture fails as well: that is tried once.
  over = begin()
  await settled()
  replayed(5)
  await over
  over = begin(true)
  await settled()
  replayed(12)
  await over
  t.notOk(starts.wantsPicture(unit))
  t.ok(starts.hasFailed(unit))
  forget()
  starts.forget(D5)
  t.notOk(starts.isPictured(unit))
})

t.test('a record that is out of date goes on behind what the journal has', async (t) => {
  for (const recorded of [1, 3]) {
    const unit = raid5In(TREE)
    const at = withUnits(TREE, [{ ...unit, journal: { ...unit.journal, epoch: recorded } }])
    const { gate, state, starts, log, begin, replayed } = await rig(at)
    const over = begin()
    await settled()
    replayed(0, 0, 9)
    await settled()
    await gate.let(true)
    await over
    t.equal(raid5In(state.tree).journal.epoch, 10)
    t.notOk(starts.isNeeded(raid5In(state.tree)))
    t.equal(
      log.some((l) => /newer than the state database/.test(l)),
      recorded !== 1,
      'what -k made is new',
    )
  }
})

t.test('a replay that failed raises no epoch, and is made again only for another record or when asked', async (t) => {
  const { gate, state, starts, log, begin, replayed } = await rig()
  const over = begin()
  await settled()
  replayed(5)
  await over
  t.same(log, ['install', 'sys'])
  t.equal(gate.waiting.length, 0)
  t.equal(raid5In(state.tree).journal.epoch, 1)
  t.ok(starts.hasFailed(raid5In(state.tree)))
  t.notOk(starts.hasFailed({ ...raid5In(state.tree) }))
  starts.retry(D5)
  t.notOk(starts.hasFailed(raid5In(state.tree)))
})

t.test('a commit that fails leaves it unstarted', async (t) => {
  const { gate, state, starts, log, begin, replayed } = await rig()
  const over = begin()
  await settled()
  replayed(0)
  await gate.let(false)
  await over
  t.notMatch(log, ['install', 'ok'])
  t.equal(raid5In(state.tree).journal.epoch, 1)
  t.ok(starts.isNeeded(raid5In(state.tree)))
})

t.test('what changed during the replay stays changed, and what was cleared is not made again', async (t) => {
  const changed = await rig()
  const over = changed.begin()
  await settled()
  const erred = changed.state.perform((tree) => {
    const next = withStates(tree, ['okay', 'erred', 'okay'])
    return ok(outcome(tree, { put: [raid5In(next)] }))
  })
  await changed.gate.let(true)
  await erred
  changed.replayed(0, 3)
  await settled()
  await changed.gate.let(true)
  await over
  t.match(changed.log[1], /d5: 3 parts of the journal were damaged/)
  t.same(
    raid5In(changed.state.tree).columns.map((c) => c.state),
    ['okay', 'erred', 'okay'],
  )
  t.equal(raid5In(changed.state.tree).journal.epoch, 2)

  const cleared = await rig()
  const end = cleared.begin()
  await settled()
  const gone = cleared.state.perform((tree) => ok(outcome(tree, { remove: [D5] })))
  await cleared.gate.let(true)
  await gone
  cleared.replayed(0)
  await end
  t.same(cleared.log, ['install', 'unitNotSetUp'])
  t.notOk(cleared.state.tree.has(D5))
})

t.test('it is replayed again when the engine has forgotten it, and never before it has data', async (t) => {
  const { gate, state, starts, begin, replayed, forget } = await rig()
  const over = begin()
  await settled()
  replayed(0)
  await settled()
  await gate.let(true)
  await over
  starts.serves(D5)
  t.ok(starts.isStarted(D5))
  forget()
  t.ok(starts.isNeeded(raid5In(state.tree)))
  for (const raw of ['init', 'initErred'] as const)
    t.notOk(starts.isNeeded(raid5In(withStates(TREE, ['okay', 'okay', raw]))), raw)
})

t.test('memory is brought to the columns before one comes back, joins, or all of it goes', async (t) => {
  const of = (...states: ColumnState[]): Tree => withStates(TREE, states)
  t.same(toBeDrained(TREE, TREE), [])
  t.same(toBeDrained(TREE, of('erred', 'okay', 'okay')), [], 'a column that goes waits for nothing')
  t.same(toBeDrained(of('erred', 'okay', 'okay'), of('resync', 'okay', 'okay')), ['d5'])
  t.same(toBeDrained(of('resync', 'okay', 'okay'), TREE), [])
  t.same(toBeDrained(TREE, new Map()), ['d5'])
  t.same(toBeDrained(TREE, withUnits(TREE, [{ ...raid5In(TREE), serving: 4 }])), ['d5'])
})
