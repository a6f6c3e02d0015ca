/**
 * What errors of components mean (driver.md 2.3, 2.7): the states to commit, what to say, and what
 * becomes of the requests that wait. One call takes everything that was reported since the last, so
 * that a dead disk with a queue of writes is one decision and one commit.
 */
import { err, ok } from '../base/result.js'
import { type MetaResult, metaError } from '../msg/errors.js'
import { notice, type NoticeText } from '../msg/notices.js'
import { type Advanced, advance, componentAt, type MirrorState, stateOf, stateOutcome } from './mirrorstate.js'
import { type Outcome, unchanged } from './operations.js'
import { blockWithoutSource, isWritten, type Openable, type Place, sidesIn, stripeComponents } from './sources.js'
import { stripeOf } from './tree.js'
import type { MirrorUnit, Tree, UnitName } from './types.js'

/** One report about a component, by what it is now; the same one may come many times. */
export interface Failure {
  /** The stripe. */
  readonly unit: UnitName
  /** Index over all rows. */
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
const counts = (f: Failure, { readErrorLimit }: DecideContext): boolean =>
  f.op !== 'read' || !f.masked || f.repairFailed || f.readErrors > readErrorLimit

const placeOf = (m: MirrorUnit, tree: Tree, unit: UnitName, component: number): Place | null => {
  const slot = m.submirrors.find((s) => s.unit === unit)?.slot
  const stripe = stripeOf(tree, unit)
  if (slot === undefined || stripe === null || stripeComponents(stripe)[component] === undefined) return null
  return { slot, component }
}

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
  const m = tree.get(device)
  if (m?.kind !== 'mirror') return { outcome: unchanged(tree), notices: [], verdict: 'fail' }
  let state: MirrorState = stateOf(m, tree)
  const notices: NoticeText[] = []
  const judged: Place[] = []
  for (const f of failures) {
    if (!counts(f, context)) continue
    const place = placeOf(m, tree, f.unit, f.component)
    if (place === null) continue
    const next = advance(state, { event: 'error', place }, context.now)
    if (!next.ok) continue
    judged.push(place)
    state = next.value.state
    notices.push(...next.value.notices)
  }
  const stuck = judged.some((place) => {
    const s = componentAt(state, place)?.state
    return s !== 'erred' && s !== 'lastErred'
  })
  return { outcome: stateOutcome(tree, state), notices, verdict: stuck ? 'fail' : 'resume' }
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
 * The mirror is about to be used: what cannot be opened is in Maintenance if everything can be read
 * without it. Otherwise the open fails and nothing is recorded: it may only be a cable.
 */
export const decideOpen = (
  tree: Tree,
  device: UnitName,
  openable: Openable,
  now: number,
): MetaResult<Omit<Decision, 'verdict'>> => {
  const m = tree.get(device)
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
