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
import { columnBlocks } from './raid5geometry.js'
import { raid5Event } from './raid5state.js'
import { othersInStep } from './raid5tables.js'
import { ALL_OPENABLE, hasOtherSource, type Side, sidesIn } from './sources.js'
import { changedPools, configured, spareState, type Standing, standingSpares } from './standing.js'
import { ownComponents, poolOf, takesSpares, topLevel, withUnits } from './tree.js'
import type { Member, MirrorUnit, Raid5Unit, Slice, Spare, StripeUnit, Tree, UnitName } from './types.js'

/** A spare that fits a component in Maintenance. */
export interface Proposal {
  /** The mirror or RAID5 device. */
  readonly device: UnitName
  /** The submirror, or the RAID5 device itself. */
  readonly unit: UnitName
  /** Index over all rows, or of the column. */
  readonly component: number
  readonly pool: UnitName
  /** The spare as the component would have it: `start` is where the data would begin. */
  readonly by: Slice
  /** What is needed from there on. */
  readonly blocks: Blocks
}

const NONE: ReadonlySet<string> = new Set()

/** Where the data begins on a spare that is large enough, else null (driver.md 3.2). */
export const startOn = (s: Spare, needed: Blocks, labelWanted: boolean): Blocks | null => {
  if (labelWanted && s.labelled && s.size >= needed) return blocks(0)
  return s.size - s.start >= needed ? s.start : null
}

interface Wanted {
  readonly device: UnitName
  readonly unit: StripeUnit | Raid5Unit
  readonly component: number
  readonly blocks: Blocks
  /** The component begins with the label that the metadevice shows as its block 0. */
  readonly labelWanted: boolean
}

/** Components of a submirror that wait for a spare. */
const wantedOf = (m: MirrorUnit, side: Side, sides: readonly Side[]): readonly Wanted[] => {
  const { submirror, stripe } = side
  // Nothing could be copied to it: the copy would begin when it comes online, and then this asks again.
  if (submirror.state === 'offline') return []
  let index = 0
  return stripe.rows.flatMap((row) =>
    row.components.flatMap((c): Wanted[] => {
      const component = index++
      const place = { slot: submirror.slot, component }
      if (c.state !== 'erred' || c.spare !== null || !hasOtherSource(m.blocks, sides, place, ALL_OPENABLE)) return []
      const labelWanted = stripe.labelled && component === 0
      return [{ device: m.name, unit: stripe, component, blocks: blocksPerComponent(row), labelWanted }]
    }),
  )
}

/** The column that waits for one, while all others hold their data. */
const wantedColumn = (u: Raid5Unit): readonly Wanted[] => {
  const component = u.columns.findIndex((c, i) => c.state === 'erred' && c.spare === null && othersInStep(u, i))
  return component < 0 ? [] : [{ device: u.name, unit: u, component, blocks: columnBlocks(u), labelWanted: false }]
}

/** What everything wants that could be brought in step now. */
const wanting = (tree: Tree, live: Pick<Live, 'isResyncing'>): readonly Wanted[] =>
  topLevel(tree).flatMap((unit) => {
    if (live.isResyncing(unit.name)) return []
    if (unit.kind === 'raid5') return wantedColumn(unit)
    if (unit.kind !== 'mirror') return []
    const sides = sidesIn(unit, tree)
    return sides.flatMap((side) => wantedOf(unit, side, sides))
  })

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
 * What could be taken now, no spare twice. A device waits while it resyncs: that would have to be
 * stopped for this one, and the end of a resync asks again. Last Erred components are not spared: what
 * is wrong with them is that nothing else has their data.
 * @param held names of spares that are Available and cannot be opened yet: as if they were in use
 */
export const poke = (
  tree: Tree,
  live: Pick<Live, 'isResyncing'>,
  held: ReadonlySet<string> = NONE,
): readonly Proposal[] => {
  const standing = standingSpares(tree)
  const promised = new Set<string>()
  return wanting(tree, live).flatMap(({ device, unit, component, blocks: needed, labelWanted }): Proposal[] => {
    const pool = unit.hotSparePool === null ? null : poolOf(tree, unit.hotSparePool)
    for (const s of pool?.spares ?? []) {
      if (pool === null || promised.has(s.name) || held.has(s.name) || spareState(s, standing) !== 'Available') continue
      const start = startOn(s, needed, labelWanted)
      if (start === null) continue
      promised.add(s.name)
      return [{ device, unit: unit.name, component, pool: pool.name, by: sliceFrom(s, start), blocks: needed }]
    }
    return []
  })
}

export interface Taken {
  readonly outcome: Outcome
  readonly notices: readonly NoticeText[]
}

const advanced = (tree: Tree, { device, unit, component, by, pool }: Proposal, now: number): Taken | null => {
  const u = tree.get(device)
  if (u?.kind === 'raid5') {
    const next = raid5Event(tree, device, { event: 'spare', column: component, by, pool }, now)
    return next.ok ? next.value : null
  }
  const slot = u?.kind === 'mirror' ? u.submirrors.find((s) => s.unit === unit)?.slot : undefined
  if (u?.kind !== 'mirror' || slot === undefined) return null
  const next = advance(stateOf(u, tree), { event: 'spare', place: { slot, component }, by, pool }, now)
  return next.ok ? { outcome: stateOutcome(tree, next.value.state), notices: next.value.notices } : null
}

/** The spare stands in and is to be resynced; null when the tree has moved on and poke must be asked again. */
export const take = (
  tree: Tree,
  live: Pick<Live, 'isResyncing'>,
  p: Proposal,
  now: number,
  held: ReadonlySet<string> = NONE,
): Taken | null => {
  const same = JSON.stringify(p)
  if (!poke(tree, live, held).some((other) => JSON.stringify(other) === same)) return null
  const next = advanced(tree, p, now)
  return next === null ? null : { ...next, outcome: settleSpares(tree, next.outcome, now) }
}

/** The spare failed before it was used: nobody takes it any more. */
export const refuse = (tree: Tree, p: Proposal, now: number): Taken => {
  const put = changedPools(tree, (s) => (s.name === p.by.name && !s.broken ? { ...s, broken: true, changed: now } : s))
  return { outcome: outcome(tree, { put }), notices: [notice('hotSpareOpenError', p.unit, p.by.name)] }
}

const hasFailed = (c: Member): boolean => c.state === 'erred' && c.spare !== null
const withOriginal = <C extends Member>(c: C): C => (hasFailed(c) ? { ...c, ...configured(c), spare: null } : c)

/** Units whose failed spares are gone: the component is what it was, and in Maintenance. */
const givenUp = (tree: Tree): readonly (StripeUnit | Raid5Unit)[] =>
  [...tree.values()].filter(takesSpares).flatMap((unit): (StripeUnit | Raid5Unit)[] => {
    if (!ownComponents(unit).some(hasFailed)) return []
    if (unit.kind === 'raid5') return [{ ...unit, columns: unit.columns.map(withOriginal) }]
    return [{ ...unit, rows: unit.rows.map((r) => ({ ...r, components: r.components.map(withOriginal) })) }]
  })

/** It failed while it was copied, so what it was copied to is made from the others. */
const gaveWay = ({ unit, component }: Standing, after: Tree): boolean => {
  const now = after.get(unit.name)
  if (unit.kind !== 'raid5' || now?.kind !== 'raid5') return false
  return unit.columns.some((c, i) => c === component && unit.copy?.of === i && now.columns[i]?.state === 'resync')
}

/**
 * What a change of the tree means for the spares, to be committed with it (driver.md 3.4, 3.5). A spare
 * whose component was put into Maintenance is Broken, and the component has its own slice again; one
 * that stands in no more is Available, or Broken if it was Last Erred. Spares that began or ceased to
 * stand in get the time.
 */
export const settleSpares = (before: Tree, change: Outcome, now: number): Outcome => {
  const stood = new Map([...standingSpares(before), ...standingSpares(change.tree)])
  if (stood.size === 0) return change
  const restored = givenUp(change.tree)
  const tree = restored.length === 0 ? change.tree : withUnits(change.tree, restored)
  const stands = standingSpares(tree)
  const stoodBefore = standingSpares(before)
  const pools = changedPools(tree, (s) => {
    const last = stood.get(s.name)
    if (last === undefined || (stands.has(s.name) && stoodBefore.has(s.name))) return s
    if (stands.has(s.name)) return s.changed === now ? s : { ...s, changed: now }
    const failed = last.component.state === 'erred' || last.component.state === 'lastErred' || gaveWay(last, tree)
    return { ...s, broken: failed, changed: now }
  })
  const put = [...restored, ...pools]
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
