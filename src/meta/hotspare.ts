/**
 * Hot spares at work (driver.md 3): which spare would stand in for which component, what taking it
 * makes of both, and how spares come back.
 *
 * Invariants: a spare stands in for one component at most; one that is Broken for none; a pool is
 * searched in its own order, and the first that fits is taken, however large. A proposal is only that:
 * the daemon looks at the spare first, and taking it asks again whether it is still the right one.
 */
import { type Blocks, blocks } from '../base/units.js'
import { notice, type NoticeText } from '../msg/notices.js'
import type { Live } from './kind.js'
import { blocksPerComponent } from './layout.js'
import { advance, stateOf, stateOutcome } from './mirrorstate.js'
import { outcome, type Outcome, then } from './operations.js'
import { ALL_OPENABLE, hasOtherSource, type Place, type Side, sidesIn } from './sources.js'
import { changedPools, configured, spareState, standingSpares } from './standing.js'
import { poolOf, topLevel, withUnits } from './tree.js'
import type { Component, MirrorUnit, PoolUnit, Slice, Spare, StripeUnit, Tree, UnitName } from './types.js'

/** A spare that fits a component in Maintenance. */
export interface Proposal {
  readonly mirror: UnitName
  readonly place: Place
  /** The submirror. */
  readonly stripe: UnitName
  readonly pool: UnitName
  /** The spare as the component would have it: `start` is where the data would begin. */
  readonly by: Slice
  /** What is needed from there on. */
  readonly blocks: Blocks
}

/** Where the data begins on a spare that is large enough, else null (driver.md 3.2). */
export const startOn = (s: Spare, needed: Blocks, labelWanted: boolean): Blocks | null => {
  if (labelWanted && s.labelled && s.size >= needed) return blocks(0)
  return s.size - s.start >= needed ? s.start : null
}

interface Wanted {
  readonly place: Place
  readonly blocks: Blocks
  /** The component begins with the label that the metadevice shows as its block 0. */
  readonly labelWanted: boolean
}

/** Components of a submirror that wait for a spare. */
const wanting = (m: MirrorUnit, side: Side, sides: readonly Side[]): readonly Wanted[] => {
  const { submirror, stripe } = side
  // Nothing could be copied to it: the copy would begin when it comes online, and then this asks again.
  if (submirror.state === 'offline') return []
  let component = 0
  return stripe.rows.flatMap((row) =>
    row.components.flatMap((c): Wanted[] => {
      const place = { slot: submirror.slot, component: component++ }
      if (c.state !== 'erred' || c.spare !== null || !hasOtherSource(m.blocks, sides, place, ALL_OPENABLE)) return []
      return [{ place, blocks: blocksPerComponent(row), labelWanted: stripe.labelled && place.component === 0 }]
    }),
  )
}

const sliceFrom = ({ name, path, identity, extent, offset, size }: Spare, start: Blocks): Slice => ({
  name,
  path,
  identity,
  extent,
  offset,
  size,
  start,
})

/**
 * What could be taken now, no spare twice. A mirror waits while it resyncs: its copy would have to be
 * stopped for this one, and the end of a resync asks again. Last Erred components are not spared: what
 * is wrong with them is that nothing else has their data.
 */
export const poke = (tree: Tree, live: Pick<Live, 'isResyncing'>): readonly Proposal[] => {
  const standing = standingSpares(tree)
  const promised = new Set<string>()
  const proposalFor = (m: MirrorUnit, stripe: StripeUnit, pool: PoolUnit, wanted: Wanted): Proposal | null => {
    for (const s of pool.spares) {
      if (promised.has(s.name) || spareState(s, standing) !== 'Available') continue
      const start = startOn(s, wanted.blocks, wanted.labelWanted)
      if (start === null) continue
      promised.add(s.name)
      const by = sliceFrom(s, start)
      return { mirror: m.name, place: wanted.place, stripe: stripe.name, pool: pool.name, by, blocks: wanted.blocks }
    }
    return null
  }
  return topLevel(tree).flatMap((m) => {
    if (m.kind !== 'mirror' || live.isResyncing(m.name)) return []
    const sides = sidesIn(m, tree)
    return sides.flatMap((side) => {
      const pool = side.stripe.hotSparePool === null ? null : poolOf(tree, side.stripe.hotSparePool)
      if (pool === null) return []
      return wanting(m, side, sides).flatMap((w) => proposalFor(m, side.stripe, pool, w) ?? [])
    })
  })
}

export interface Taken {
  readonly outcome: Outcome
  readonly notices: readonly NoticeText[]
}

/** The spare stands in and is to be resynced; null when the tree has moved on and poke must be asked again. */
export const take = (tree: Tree, live: Pick<Live, 'isResyncing'>, p: Proposal, now: number): Taken | null => {
  const m = tree.get(p.mirror)
  const same = JSON.stringify(p)
  if (m?.kind !== 'mirror' || !poke(tree, live).some((other) => JSON.stringify(other) === same)) return null
  const next = advance(stateOf(m, tree), { event: 'spare', place: p.place, by: p.by, pool: p.pool }, now)
  if (!next.ok) return null
  return {
    outcome: settleSpares(tree, stateOutcome(tree, next.value.state), now),
    notices: next.value.notices,
  }
}

/** The spare failed before it was used: nobody takes it any more. */
export const refuse = (tree: Tree, p: Proposal, now: number): Taken => {
  const put = changedPools(tree, (s) => (s.name === p.by.name && !s.broken ? { ...s, broken: true, changed: now } : s))
  return { outcome: outcome(tree, { put }), notices: [notice('hotSpareOpenError', p.stripe, p.by.name)] }
}

const withOriginal = (c: Component): Component => ({ ...c, ...configured(c), spare: null })

/** Stripes whose failed spares are gone: the component is what it was, and in Maintenance. */
const givenUp = (tree: Tree): readonly StripeUnit[] =>
  [...tree.values()].flatMap((unit) => {
    if (unit.kind !== 'stripe') return []
    const failed = (c: Component): boolean => c.state === 'erred' && c.spare !== null
    if (!unit.rows.some((r) => r.components.some(failed))) return []
    const rows = unit.rows.map((r) => ({
      ...r,
      components: r.components.map((c) => (failed(c) ? withOriginal(c) : c)),
    }))
    return [{ ...unit, rows }]
  })

/**
 * What a change of the tree means for the spares, to be committed with it (driver.md 3.4, 3.5). A spare
 * whose component was put into Maintenance is Broken, and the component has its own slice again; one
 * that stands in no more is Available, or Broken if it was Last Erred. Spares that began or ceased to
 * stand in get the time.
 */
export const settleSpares = (before: Tree, change: Outcome, now: number): Outcome => {
  const stood = new Map([...standingSpares(before), ...standingSpares(change.tree)])
  if (stood.size === 0) return change
  const stripes = givenUp(change.tree)
  const tree = stripes.length === 0 ? change.tree : withUnits(change.tree, stripes)
  const stands = standingSpares(tree)
  const stoodBefore = standingSpares(before)
  const pools = changedPools(tree, (s) => {
    const last = stood.get(s.name)
    if (last === undefined || (stands.has(s.name) && stoodBefore.has(s.name))) return s
    if (stands.has(s.name)) return s.changed === now ? s : { ...s, changed: now }
    const failed = last.component.state === 'erred' || last.component.state === 'lastErred'
    return { ...s, broken: failed, changed: now }
  })
  const put = [...stripes, ...pools]
  return put.length === 0 ? change : then(change, outcome(change.tree, { put }))
}

/**
 * metastat -i: spares that nobody uses and that cannot be read leave their pools (commands.md 4).
 * @param failed names; those that are in use by now stay.
 */
export const forgetSpares = (tree: Tree, failed: ReadonlySet<string>): Outcome => {
  const standing = standingSpares(tree)
  const goes = (s: Spare): boolean => failed.has(s.name) && spareState(s, standing) === 'Available'
  const holders = [...tree.values()].filter((u) => u.kind === 'pool').filter((p) => p.spares.some(goes))
  return outcome(tree, {
    put: holders.map((p) => ({ ...p, spares: p.spares.filter((s) => !goes(s)) })),
    warnings: holders.flatMap((p) =>
      p.spares
        .filter(goes)
        .map((s) => [
          `NOTICE: Hotspare ${s.name} in ${p.name} has failed.`,
          `\tDeleting ${s.name} since it not in use`,
          '',
        ]),
    ),
  })
}
