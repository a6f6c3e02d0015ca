/**
 * The state machine of a mirror (driver.md 2.2 to 2.4): its sides, their components, and what errors,
 * copies, commands and a start make of them. Pure; an event that does not fit the state is an error value.
 *
 * Invariants:
 * - a component becomes Last Erred only while it is a source and no other one has all of its data; it
 *   becomes Erred as soon as others do;
 * - a component that is not a source never becomes one by an error: half a copy is no last resort
 *   (Solaris lets a Resyncing component become Last Erred);
 * - whether a side is in step is kept apart from its components' states, so that an error during a
 *   copy cannot make a side readable that was never copied (driver.md B.2).
 */
import { assert, err, ok, type Result } from '../base/result.js'
import type { Blocks } from '../base/units.js'
import { notice, type NoticeText } from '../msg/notices.js'
import { COMPONENT_NEXT, type ComponentEvent, derive, SIDE_NEXT, type SideEvent } from './mirrortables.js'
import { outcome, type Outcome } from './operations.js'
import {
  ALL_OPENABLE,
  hasOtherSource,
  inStep,
  isStale,
  type Openable,
  type Place,
  type Side,
  sidesOf,
  stripeComponents,
} from './sources.js'
import { relievedBy } from './standing.js'
import type { Checkpoint, Component, MirrorUnit, Slice, Slot, StripeUnit, Submirror, Tree, UnitName } from './types.js'

/** What a resync writes. */
export type ResyncTarget =
  | { readonly kind: 'full' | 'optimized'; readonly slot: Slot }
  | { readonly kind: 'component'; readonly slot: Slot; readonly component: number }

export type MirrorEvent =
  /** A read, write, flush or rewrite of it failed and is believed. */
  | { readonly event: 'error'; readonly place: Place }
  /** It cannot be opened, and all of the mirror can be read without it. */
  | { readonly event: 'openError'; readonly place: Place }
  | { readonly event: 'replace'; readonly place: Place; readonly by: Slice }
  | { readonly event: 'spare'; readonly place: Place; readonly by: Slice; readonly pool: UnitName }
  | { readonly event: 'offline'; readonly slot: Slot }
  | { readonly event: 'online'; readonly slot: Slot }
  | { readonly event: 'detach'; readonly slot: Slot }
  /** Whatever was cancelled or failed is wanted again. */
  | { readonly event: 'sync' }
  | { readonly event: 'checkpoint'; readonly target: ResyncTarget; readonly done: Blocks }
  | {
      readonly event: 'resyncEnd'
      readonly target: ResyncTarget
      readonly result: 'done' | 'failed' | 'cancelled'
      /** Everything below is copied. */
      readonly done: Blocks
      /** What could not be read or written, its error decided before; null when it was none of these. */
      readonly failed: Place | null
    }
  /** metad starts; `log`: what the dirty regions say. */
  | { readonly event: 'load'; readonly log: 'clean' | 'dirty' | 'lost'; readonly openable: Openable }

export interface MirrorState {
  readonly mirror: MirrorUnit
  readonly stripes: ReadonlyMap<UnitName, StripeUnit>
}
export interface Advanced {
  readonly state: MirrorState
  readonly notices: readonly NoticeText[]
}
/** An event that the state has no answer to. */
export interface IllegalEvent {
  readonly event: string
  readonly slot: Slot | null
  readonly component: number | null
  /** What is there instead. */
  readonly state: string
}
type Step = Result<MirrorState, IllegalEvent>

export const stateOf = (mirror: MirrorUnit, tree: Tree): MirrorState => ({
  mirror,
  stripes: new Map(
    mirror.submirrors.flatMap((s): [UnitName, StripeUnit][] => {
      const stripe = tree.get(s.unit)
      return stripe?.kind === 'stripe' ? [[s.unit, stripe]] : []
    }),
  ),
})
const sides = (state: MirrorState): readonly Side[] => sidesOf(state.mirror, (name) => state.stripes.get(name))
const sideAt = (state: MirrorState, slot: Slot): Side | undefined => sides(state).find((s) => s.submirror.slot === slot)
export const componentAt = (state: MirrorState, place: Place): Component | undefined => {
  const side = sideAt(state, place.slot)
  return side === undefined ? undefined : stripeComponents(side.stripe)[place.component]
}

const illegal = (
  event: string,
  slot: Slot | null,
  component: number | null,
  state: string,
): Result<never, IllegalEvent> => err({ event, slot, component, state })

const withSide = (state: MirrorState, slot: Slot, change: (s: Submirror) => Submirror): MirrorState => ({
  ...state,
  mirror: { ...state.mirror, submirrors: state.mirror.submirrors.map((s) => (s.slot === slot ? change(s) : s)) },
})

const withComponent = (state: MirrorState, place: Place, component: Component): MirrorState => {
  const side = sideAt(state, place.slot)
  assert(side !== undefined, `slot ${place.slot}`)
  let index = 0
  const rows = side.stripe.rows.map((r) => ({
    ...r,
    components: r.components.map((c) => (index++ === place.component ? component : c)),
  }))
  return { ...state, stripes: new Map(state.stripes).set(side.stripe.name, { ...side.stripe, rows }) }
}

/** Moves a component by the table; `slice` puts other storage in its place. */
const moved = (
  state: MirrorState,
  place: Place,
  event: ComponentEvent,
  now: number,
  slice: (Slice & Pick<Component, 'spare'>) | null = null,
): Step => {
  const c = componentAt(state, place)
  if (c === undefined) return illegal(event, place.slot, place.component, 'no such component')
  const next = COMPONENT_NEXT[c.state][event]
  if (next === undefined) return illegal(event, place.slot, place.component, c.state)
  if (next === c.state && slice === null) return ok(state)
  const errors = state.mirror.errors + 1
  const mirror = { ...state.mirror, errors }
  const { relieves: _, ...rest } = c
  const relieves = next === 'resync' ? relievedBy(c, slice) : {}
  const component = { ...rest, ...slice, ...relieves, state: next, erredOrder: errors, changed: now }
  return ok(withComponent({ ...state, mirror }, place, component))
}

const sideMoved = (state: MirrorState, slot: Slot, event: SideEvent): Step => {
  const s = state.mirror.submirrors.find((x) => x.slot === slot)
  if (s === undefined) return illegal(event, slot, null, 'no such submirror')
  const next = SIDE_NEXT[s.state][event]
  if (next === undefined) return illegal(event, slot, null, s.state)
  if (next === s.state) return ok(state)
  const { unsynced, ...rest } = s
  // What was not in step before it went offline has more to catch up than what was written meanwhile.
  const full = unsynced === true && next === 'offlineResync'
  const out = next === 'offline' && (s.state === 'attached' || s.state === 'resync')
  const was: Pick<Submirror, 'unsynced'> = out ? { unsynced: true } : {}
  return ok(withSide(state, slot, () => ({ ...rest, ...was, state: full ? 'resync' : next })))
}

const withoutCheckpoint = (state: MirrorState, matches: (c: Checkpoint) => boolean): MirrorState => {
  const { checkpoint } = state.mirror
  if (checkpoint === null || !matches(checkpoint)) return state
  return { ...state, mirror: { ...state.mirror, checkpoint: null } }
}
const isAt = (place: Place) => (c: Checkpoint) => c.slot === place.slot && c.component === place.component
const uncancelled = (state: MirrorState): MirrorState =>
  state.mirror.cancelled ? { ...state, mirror: { ...state.mirror, cancelled: false } } : state

const targetComponent = (t: ResyncTarget): number | null => (t.kind === 'component' ? t.component : null)

/** What is being written, by the storage's own identity; null when the target is not there. */
export const targetIdentity = (state: MirrorState, target: ResyncTarget): string | null => {
  const side = sideAt(state, target.slot)
  if (side === undefined) return null
  const all = stripeComponents(side.stripe)
  if (target.kind !== 'component') return all.map((c) => c.identity).join(' ')
  return all[target.component]?.identity ?? null
}

const isCopied = (state: MirrorState, t: ResyncTarget): boolean =>
  t.kind === 'component'
    ? componentAt(state, t)?.state === 'resync'
    : sideAt(state, t.slot)?.submirror.state === 'resync'

/** An optimized resync needs none: it keeps its place in the dirty regions. */
const withCheckpoint = (state: MirrorState, target: ResyncTarget, done: Blocks): MirrorState => {
  const identity = targetIdentity(state, target)
  if (target.kind === 'optimized' || identity === null || !isCopied(state, target)) return state
  const checkpoint = { slot: target.slot, component: targetComponent(target), identity, done }
  return { ...state, mirror: { ...state.mirror, checkpoint } }
}

/** Errors at `place`: Maintenance when the data is elsewhere or was never here, else Last Erred. */
const failed = (state: MirrorState, place: Place, elsewhere: boolean, now: number): Result<Advanced, IllegalEvent> => {
  const side = sideAt(state, place.slot)
  const c = componentAt(state, place)
  if (side === undefined || c === undefined) return illegal('error', place.slot, place.component, 'no such component')
  const only =
    !elsewhere && inStep(side.submirror) && !hasOtherSource(state.mirror.blocks, sides(state), place, ALL_OPENABLE)
  const next = moved(state, place, only && c.state === 'okay' ? 'lastError' : 'error', now)
  if (!next.ok) return next
  const after = componentAt(next.value, place)?.state
  if (after === c.state) return ok({ state: next.value, notices: [] })
  const names = [side.stripe.name, c.name]
  return ok({
    state: withoutCheckpoint(next.value, isAt(place)),
    notices: [notice('needsMaintenance', ...names), ...(after === 'lastErred' ? [notice('lastErred', ...names)] : [])],
  })
}

/** Puts `by` where the component is and has it copied; a side that had given up is copied as a whole again. */
const renewed = (
  state: MirrorState,
  place: Place,
  event: 'replace' | 'spare',
  by: Slice & Pick<Component, 'spare'>,
  now: number,
): Step => {
  const side = sideAt(state, place.slot)
  if (side?.submirror.state === 'offline') return illegal(event, place.slot, place.component, 'offline')
  const next = moved(state, place, event, now, by)
  if (!next.ok) return next
  const fresh = uncancelled(withoutCheckpoint(next.value, isAt(place)))
  return side?.submirror.state === 'attached' ? sideMoved(fresh, place.slot, 'sync') : ok(fresh)
}

/** A stripe that is no submirror any more; the same object when nothing of it changes. */
export const released = (stripe: StripeUnit, now: number | null = null): StripeUnit => {
  const reset = (c: Component): Component => {
    const next = COMPONENT_NEXT[c.state].detach ?? c.state
    if (next === c.state && c.erredOrder === 0) return c
    const { relieves: _, ...rest } = c
    return { ...rest, state: next, erredOrder: 0, changed: next === c.state ? c.changed : (now ?? c.changed) }
  }
  const all = stripeComponents(stripe)
  if (all.every((c) => reset(c) === c)) return stripe
  return { ...stripe, rows: stripe.rows.map((r) => ({ ...r, components: r.components.map(reset) })) }
}

const detached = (state: MirrorState, slot: Slot, now: number): Step => {
  const side = sideAt(state, slot)
  if (side === undefined) return illegal('detach', slot, null, 'no such submirror')
  if (state.mirror.submirrors.length === 1) return illegal('detach', slot, null, 'the last submirror')
  const free = released(side.stripe, now)
  const submirrors = state.mirror.submirrors.filter((s) => s.slot !== slot)
  const stripes = free === side.stripe ? state.stripes : new Map(state.stripes).set(free.name, free)
  return ok(withoutCheckpoint({ mirror: { ...state.mirror, submirrors }, stripes }, (c) => c.slot === slot))
}

/** Every side that the event means something to; those it means nothing to stay as they are. */
const eachSide = (state: MirrorState, event: SideEvent, which: (s: Side) => boolean): MirrorState =>
  sides(state).reduce((next, side) => {
    if (!which(side)) return next
    const step = sideMoved(next, side.submirror.slot, event)
    return step.ok ? step.value : next
  }, state)

/** A side without a component that could be written has nothing to resync. */
const synced = (state: MirrorState): MirrorState =>
  eachSide(uncancelled(state), 'sync', (s) => !derive(s.submirror, s.stripe).allErred)

/**
 * driver.md 2.9. One side in step stays as it is, if possible one that is whole: its content counts
 * where the sides may differ. Pass 0 says that nobody cares. While no side can be opened nothing is
 * decided: the same question comes again with the first that can.
 */
const loaded = (state: MirrorState, log: 'clean' | 'dirty' | 'lost', openable: Openable): MirrorState => {
  const { pass } = state.mirror
  const known =
    log === 'lost' ? eachSide(state, 'logLost', () => true) : pass === 0 ? state : eachSide(state, 'load', () => true)
  const candidates = sides(known).filter((s) => s.submirror.state === 'okay')
  const whole = candidates.find((s) => stripeComponents(s.stripe).every((c) => c.state === 'okay' && openable(c)))
  const right =
    whole ?? candidates.find((s) => stripeComponents(s.stripe).some((c) => c.state !== 'erred' && openable(c)))
  if (log === 'clean' || pass === 0 || candidates.length < 2 || right === undefined) return known
  return eachSide(known, 'crash', (s) => s.submirror.slot !== right.submirror.slot && s.submirror.state === 'okay')
}

const ended = (
  state: MirrorState,
  e: Extract<MirrorEvent, { readonly event: 'resyncEnd' }>,
  now: number,
): Result<Advanced, IllegalEvent> => {
  const { target, result } = e
  if (result === 'cancelled') {
    const kept = withCheckpoint(state, target, e.done)
    const notices = [notice('resyncCancelled', state.mirror.name)]
    return ok({ state: { ...kept, mirror: { ...kept.mirror, cancelled: true } }, notices })
  }
  const step = result === 'done' ? done(state, target, now) : gaveUp(state, target, e.failed)
  if (!step.ok) return step
  return ok({ state: step.value, notices: [] })
}

const done = (state: MirrorState, target: ResyncTarget, now: number): Step => {
  const component = targetComponent(target)
  const next =
    component === null
      ? sideMoved(state, target.slot, target.kind === 'full' ? 'fullDone' : 'optimizedDone')
      : moved(state, { slot: target.slot, component }, 'copied', now)
  if (!next.ok) return next
  return ok(withoutCheckpoint(next.value, (c) => c.slot === target.slot && c.component === component))
}

/** What failed on the target itself is Erred by now; the rest of a side is still worth copying. */
const gaveUp = (state: MirrorState, target: ResyncTarget, cause: Place | null): Step => {
  if (target.kind === 'component')
    return moved(state, { slot: target.slot, component: target.component }, 'copyFailed', 0)
  const side = sideAt(state, target.slot)
  const onTarget = cause?.slot === target.slot && componentAt(state, cause)?.state === 'erred'
  if (side !== undefined && onTarget && !derive(side.submirror, side.stripe).allErred) return ok(state)
  const next = sideMoved(state, target.slot, target.kind === 'full' ? 'fullFailed' : 'optimizedFailed')
  return next.ok ? ok(withoutCheckpoint(next.value, (c) => c.slot === target.slot)) : next
}

/** Last Erred components that others cover now: the earliest first, so that the last of them stays. */
const settled = (state: MirrorState, now: number): MirrorState => {
  const lasts = sides(state)
    .flatMap((s) =>
      stripeComponents(s.stripe).map((c, component) => ({ c, place: { slot: s.submirror.slot, component } })),
    )
    .filter(({ c }) => c.state === 'lastErred')
    .sort((a, b) => a.c.erredOrder - b.c.erredOrder)
  return lasts.reduce((next, { place }) => {
    if (!hasOtherSource(next.mirror.blocks, sides(next), place, ALL_OPENABLE)) return next
    const step = moved(next, place, 'covered', now)
    assert(step.ok, 'a Last Erred component can be covered')
    return step.value
  }, state)
}

/** A side's time is that of the last change of what metastat makes of it. */
const stamped = (before: MirrorState, after: MirrorState, now: number): MirrorState => {
  const look = (state: MirrorState, slot: Slot): string => {
    const side = sideAt(state, slot)
    return side === undefined ? '' : JSON.stringify(derive(side.submirror, side.stripe))
  }
  const changed = after.mirror.submirrors.filter((s) => look(before, s.slot) !== look(after, s.slot))
  return changed.reduce((state, { slot }) => withSide(state, slot, (s) => ({ ...s, changed: now })), after)
}

const step = (state: MirrorState, e: MirrorEvent, now: number): Result<Advanced, IllegalEvent> => {
  const quiet = (next: Step): Result<Advanced, IllegalEvent> =>
    next.ok ? ok({ state: next.value, notices: [] }) : next
  switch (e.event) {
    case 'error':
      return failed(state, e.place, false, now)
    case 'openError':
      return failed(state, e.place, true, now)
    case 'replace':
      return quiet(renewed(state, e.place, 'replace', { ...e.by, spare: null }, now))
    case 'spare': {
      const c = componentAt(state, e.place)
      const side = sideAt(state, e.place.slot)
      if (c === undefined || side === undefined || c.spare !== null)
        return illegal(
          'spare',
          e.place.slot,
          e.place.component,
          c === undefined ? 'no such component' : 'spared already',
        )
      const { name, path, identity, extent, offset, size, start } = c
      const spare = { pool: e.pool, original: { name, path, identity, extent, offset, size, start } }
      const next = renewed(state, e.place, 'spare', { ...e.by, spare }, now)
      return next.ok
        ? ok({ state: next.value, notices: [notice('hotSpared', side.stripe.name, name, e.by.name)] })
        : next
    }
    case 'offline':
      // What is not written any more cannot go on from where a copy was.
      return quiet(
        sideMoved(
          withoutCheckpoint(state, (c) => c.slot === e.slot),
          e.slot,
          'offline',
        ),
      )
    case 'online':
      return quiet(sideMoved(uncancelled(state), e.slot, 'online'))
    case 'detach':
      return quiet(detached(state, e.slot, now))
    case 'sync':
      return quiet(ok(synced(state)))
    case 'checkpoint':
      return quiet(ok(withCheckpoint(state, e.target, e.done)))
    case 'resyncEnd':
      return ended(state, e, now)
    case 'load':
      return quiet(ok(loaded(state, e.log, e.openable)))
  }
}

/** Cancelled is what is left to copy; a mirror with nothing left is not. */
const stillCancelled = (state: MirrorState): MirrorState => {
  const left = sides(state).some(
    ({ submirror: s, stripe }) => isStale(s) || s.state === 'resync' || derive(s, stripe).resyncing,
  )
  return left ? state : uncancelled(state)
}

/** @param now ms since the epoch. */
export const advance = (state: MirrorState, e: MirrorEvent, now: number): Result<Advanced, IllegalEvent> => {
  const next = step(state, e, now)
  if (!next.ok) return next
  const { state: after, notices } = next.value
  return ok({ state: stamped(state, stillCancelled(settled(after, now)), now), notices })
}

/** Several events in order; the first that does not fit ends it, and nothing has happened. */
export const advanceAll = (
  state: MirrorState,
  events: readonly MirrorEvent[],
  now: number,
): Result<Advanced, IllegalEvent> => {
  let all: Advanced = { state, notices: [] }
  for (const e of events) {
    const next = advance(all.state, e, now)
    if (!next.ok) return next
    all = { state: next.value.state, notices: [...all.notices, ...next.value.notices] }
  }
  return ok(all)
}

/** The units that differ from the tree's, as one outcome. */
export const stateOutcome = (
  tree: Tree,
  state: MirrorState,
  what: Partial<Pick<Outcome, 'changes' | 'warnings'>> = {},
): Outcome => {
  const put = [state.mirror, ...state.stripes.values()].filter((u) => tree.get(u.name) !== u)
  return outcome(tree, { put, ...what })
}
