/**
 * What errors of components mean (driver.md 2.3, 2.7, 4.8): the states to commit, what to say, and what
 * becomes of the requests that wait. One call takes everything that was reported since the last, so
 * that a dead disk with a queue of writes is one decision and one commit.
 */
import { err, ok, type Result } from '../base/result.js'
import { type MetaResult, metaError } from '../msg/errors.js'
import { notice, type NoticeText } from '../msg/notices.js'
import { type Advanced, advance, componentAt, stateOf, stateOutcome } from './mirrorstate.js'
import { outcome, type Outcome, unchanged } from './operations.js'
import { advanceRaid5, type Raid5Advanced } from './raid5state.js'
import { isInitFailed, isInitialising, isInService, membersOf, othersInStep, servingColumns } from './raid5tables.js'
import { blockWithoutSource, isWritten, type Openable, type Place, sidesIn, stripeComponents } from './sources.js'
import { stripeOf } from './tree.js'
import type { ColumnState, ComponentState, MirrorUnit, Raid5Unit, Tree, UnitName } from './types.js'

/** One report about a component, by what it is now; the same one may come many times. */
export interface Failure {
  /** The stripe, or the RAID5 device. */
  readonly unit: UnitName
  /** Index over all rows, or of the column. */
  readonly component: number
  readonly op: 'read' | 'write' | 'flush'
  /** No client has seen the error, and another source had the data. */
  readonly masked: boolean
  /** A bad block could not be rewritten, or reads back wrong. */
  readonly repairFailed: boolean
  /** Read errors of this component since it was opened, this one included. */
  readonly readErrors: number
}

export interface DecideContext {
  /** ms since the epoch. */
  readonly now: number
  /** A component with more read errors than this is taken out, even when each could be repaired. */
  readonly readErrorLimit: number
}

export interface Decision {
  readonly outcome: Outcome
  readonly notices: readonly NoticeText[]
  /** For a hold, once the outcome is durable and its plan installed. */
  readonly verdict: 'resume' | 'fail'
}

/** A block that was read elsewhere and rewritten is no reason to lose the rest of the disk. */
const isSmall = (f: Failure, { readErrorLimit }: DecideContext): boolean =>
  f.op === 'read' && !f.repairFailed && f.readErrors <= readErrorLimit

/** How a kind with states takes an error; `P` is where a component is. */
interface Patient<S, P> {
  readonly state: S
  /** null: replaced meanwhile. */
  readonly placeOf: (f: Failure) => P | null
  /** A read error that nobody could make up for costs its blocks, and not the component. */
  readonly bears: (state: S, place: P) => boolean
  readonly fail: (state: S, place: P) => Result<{ readonly state: S; readonly notices: readonly NoticeText[] }, unknown>
  readonly stateAt: (state: S, place: P) => ComponentState | ColumnState | undefined
  readonly outcome: (state: S) => Outcome
}

/** States in which an error changes nothing any more: the component is out, or its errors are its clients'. */
const isSettled = (s: ComponentState | ColumnState | undefined): boolean =>
  s === 'erred' || s === 'lastErred' || s === 'initErred'

const examine = <S, P>(patient: Patient<S, P>, failures: readonly Failure[], context: DecideContext): Decision => {
  let { state } = patient
  const notices: NoticeText[] = []
  const judged: P[] = []
  for (const f of failures) {
    const place = patient.placeOf(f)
    if (place === null || (isSmall(f, context) && (f.masked || patient.bears(state, place)))) continue
    const next = patient.fail(state, place)
    if (!next.ok) continue
    judged.push(place)
    state = next.value.state
    notices.push(...next.value.notices)
  }
  const stuck = judged.some((place) => !isSettled(patient.stateAt(state, place)))
  return { outcome: patient.outcome(state), notices, verdict: stuck ? 'fail' : 'resume' }
}

const placeIn = (m: MirrorUnit, tree: Tree, { unit, component }: Failure): Place | null => {
  const slot = m.submirrors.find((s) => s.unit === unit)?.slot
  const stripe = stripeOf(tree, unit)
  if (slot === undefined || stripe === null || stripeComponents(stripe)[component] === undefined) return null
  return { slot, component }
}

const raid5Outcome = (tree: Tree, u: Raid5Unit): Outcome => outcome(tree, { put: tree.get(u.name) === u ? [] : [u] })

/**
 * Failures in the order they were reported, of one metadevice. A stripe outside a mirror has no states:
 * its errors are its clients'. The verdict is `fail` only when a waiting request would meet the same
 * unchanged state again.
 */
export const decide = (
  tree: Tree,
  device: UnitName,
  failures: readonly Failure[],
  context: DecideContext,
): Decision => {
  const u = tree.get(device)
  switch (u?.kind) {
    case 'mirror':
      return examine(
        {
          state: stateOf(u, tree),
          placeOf: (f) => placeIn(u, tree, f),
          bears: () => false,
          fail: (state, place) => advance(state, { event: 'error', place }, context.now),
          stateAt: (state, place) => componentAt(state, place)?.state,
          outcome: (state) => stateOutcome(tree, state),
        },
        failures,
        context,
      )
    case 'raid5':
      return examine(
        {
          state: u,
          placeOf: (f) => (f.unit === u.name && membersOf(u)[f.component] !== undefined ? f.component : null),
          // Last Erred would stop all writes for one block.
          bears: (state, column) => state.columns[column]?.state === 'okay' && !othersInStep(state, column),
          fail: (state, column) => {
            // What took the place of the one that failed has done nothing.
            if (membersOf(state)[column]?.name !== membersOf(u)[column]?.name) return err(column)
            const next = advanceRaid5(state, { event: 'error', column }, context.now)
            return next.ok ? ok({ state: next.value.unit, notices: next.value.notices }) : next
          },
          // Where something else stands now, nobody waits for what failed.
          stateAt: (state, column) => {
            const now = membersOf(state)[column]
            return now === undefined || now.name !== membersOf(u)[column]?.name ? 'erred' : now.state
          },
          outcome: (state) => raid5Outcome(tree, state),
        },
        failures,
        context,
      )
    default:
      return { outcome: unchanged(tree), notices: [], verdict: 'fail' }
  }
}

/** Components of sides that are written, which cannot be opened and are not known to be erred. */
export const unopened = (m: MirrorUnit, tree: Tree, openable: Openable): readonly Place[] =>
  sidesIn(m, tree).flatMap(({ submirror, stripe }) =>
    isWritten(submirror)
      ? stripeComponents(stripe).flatMap((c, component) =>
          c.state === 'erred' || openable(c) ? [] : [{ slot: submirror.slot, component }],
        )
      : [],
  )

/**
 * One column may be missing, and is in Maintenance then; a Last Erred one that can be opened was away only for a
 * while. With two missing nothing is recorded, and before there is data nothing is missing that a start could do
 * without. Columns that only join are not needed.
 */
const openRaid5 = (
  tree: Tree,
  u: Raid5Unit,
  openable: Openable,
  now: number,
): MetaResult<Omit<Decision, 'verdict'>> => {
  const insufficient = err(metaError('insufficientDevices', u.name))
  const serving = servingColumns(u)
  const missing = serving.flatMap((c, i) => (isInService(c) && !openable(c) ? [i] : []))
  if (isInitialising(u)) return missing.length > 0 ? insufficient : ok({ outcome: unchanged(tree), notices: [] })
  if (isInitFailed(u)) return ok({ outcome: unchanged(tree), notices: [] })
  if (missing.length + serving.filter((c) => c.state === 'erred').length > 1) return insufficient
  const back = serving.flatMap((c, column) =>
    c.state === 'lastErred' && openable(c) ? [{ event: 'opened', column } as const] : [],
  )
  // What came back counts for what did not.
  const events = [...back, ...missing.map((column) => ({ event: 'openError', column }) as const)]
  let all: Raid5Advanced = { unit: u, notices: [] }
  for (const e of events) {
    const next = advanceRaid5(all.unit, e, now)
    // A column in resync has nothing that could be read instead of the missing one's.
    if (!next.ok) return insufficient
    const said = e.event === 'openError' ? [notice('raid5OpenError', u.name, serving[e.column]?.name ?? '')] : []
    all = { unit: next.value.unit, notices: [...all.notices, ...said, ...next.value.notices] }
  }
  return ok({ outcome: raid5Outcome(tree, all.unit), notices: all.notices })
}

/**
 * The metadevice is about to be used: what cannot be opened is in Maintenance if everything can be read
 * without it. Otherwise the open fails and nothing is recorded: it may only be a cable.
 */
export const decideOpen = (
  tree: Tree,
  device: UnitName,
  openable: Openable,
  now: number,
): MetaResult<Omit<Decision, 'verdict'>> => {
  const m = tree.get(device)
  if (m?.kind === 'raid5') return openRaid5(tree, m, openable, now)
  if (m?.kind !== 'mirror') return ok({ outcome: unchanged(tree), notices: [] })
  const failed = unopened(m, tree, openable)
  const sides = sidesIn(m, tree)
  if (blockWithoutSource(m.blocks, sides, openable) !== null) return err(metaError('insufficientDevices', m.name))
  let all: Advanced = { state: stateOf(m, tree), notices: [] }
  for (const place of failed) {
    const name = componentAt(all.state, place)?.name ?? ''
    const next = advance(all.state, { event: 'openError', place }, now)
    if (!next.ok) continue
    all = {
      state: next.value.state,
      notices: [...all.notices, notice('openError', m.name, name), ...next.value.notices],
    }
  }
  return ok({ outcome: stateOutcome(tree, all.state), notices: all.notices })
}
