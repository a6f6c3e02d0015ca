/**
 * Which copy a mirror wants next (driver.md 2.9): first what was written while sides could not be told
 * equal, then components, then whole sides. Pure; the daemon runs one copy at a time and asks again.
 */
import { type Blocks, blocks } from '../base/units.js'
import { targetIdentity, type MirrorState, type ResyncTarget, stateOf } from './mirrorstate.js'
import { derive } from './mirrortables.js'
import { ALL_OPENABLE, hasOtherSource, isStale, isWritten, type Side, sidesIn, stripeComponents } from './sources.js'
import type { MirrorUnit, Tree } from './types.js'

export interface ResyncPlan {
  readonly target: ResyncTarget
  /** Everything below was copied to this very target before. */
  readonly from: Blocks
}

export const sameTarget = (a: ResyncTarget, b: ResyncTarget): boolean =>
  a.kind === b.kind &&
  a.slot === b.slot &&
  (a.kind !== 'component' || (b.kind === 'component' && a.component === b.component))

const optimizedOf = ({ submirror: s }: Side): readonly ResyncTarget[] =>
  isStale(s) ? [{ kind: 'optimized', slot: s.slot }] : []

/** A component without another source is copied when it has one again. */
const componentsOf = (m: MirrorUnit, sides: readonly Side[], { submirror, stripe }: Side): readonly ResyncTarget[] =>
  isWritten(submirror)
    ? stripeComponents(stripe).flatMap((c, component): ResyncTarget[] =>
        c.state === 'resync' && hasOtherSource(m.blocks, sides, { slot: submirror.slot, component }, ALL_OPENABLE)
          ? [{ kind: 'component', slot: submirror.slot, component }]
          : [],
      )
    : []

const fullOf = ({ submirror: s, stripe }: Side): readonly ResyncTarget[] =>
  s.state === 'resync' && !derive(s, stripe).allErred ? [{ kind: 'full', slot: s.slot }] : []

/** Everything a mirror wants copied, in order; also while it is cancelled. */
export const wantedResyncs = (m: MirrorUnit, tree: Tree): readonly ResyncTarget[] => {
  const sides = sidesIn(m, tree)
  if (sides.length < 2) return []
  return [...sides.flatMap(optimizedOf), ...sides.flatMap((s) => componentsOf(m, sides, s)), ...sides.flatMap(fullOf)]
}

/** The checkpoint counts only for the storage it was made on. */
const startOf = (state: MirrorState, target: ResyncTarget): Blocks => {
  const { checkpoint: c } = state.mirror
  const component = target.kind === 'component' ? target.component : null
  if (c === null || target.kind === 'optimized' || c.slot !== target.slot || c.component !== component) return blocks(0)
  return c.identity === targetIdentity(state, target) ? c.done : blocks(0)
}

/**
 * @param tried targets that failed since the last time something changed: they are not tried again.
 * @returns null when nothing is wanted, or a resync was cancelled.
 */
export const nextResync = (m: MirrorUnit, tree: Tree, tried: readonly ResyncTarget[] = []): ResyncPlan | null => {
  if (m.cancelled) return null
  const target = wantedResyncs(m, tree).find((t) => !tried.some((other) => sameTarget(t, other)))
  return target === undefined ? null : { target, from: startOf(stateOf(m, tree), target) }
}

/** An optimized resync is outstanding: most commands refuse (commands.md 3.6 to 3.9). */
export const optimizedPending = (m: MirrorUnit): boolean => m.submirrors.some(isStale)

/** metasync -r and every start: the mirrors of pass 1, then those of pass 2, ...; pass 0 never (commands.md 3.10). */
export const bootPasses = (units: Iterable<MirrorUnit>): readonly (readonly MirrorUnit[])[] => {
  const passes = new Map<number, MirrorUnit[]>()
  for (const m of units) if (m.pass > 0) passes.set(m.pass, [...(passes.get(m.pass) ?? []), m])
  return [...passes.entries()].sort(([a], [b]) => a - b).map(([, mirrors]) => mirrors)
}
