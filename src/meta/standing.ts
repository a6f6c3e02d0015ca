/**
 * Which spares stand in for a component, or wait until the component that relieved them is in step. Nothing
 * else says that a spare is in use, so the two cannot disagree: whoever gives a component another slice, or
 * takes its metadevice away, frees the spare.
 */
import { ownComponents, takesSpares, withUnits } from './tree.js'
import type { Member, PoolUnit, Raid5Unit, Slice, Spare, StripeUnit, Tree } from './types.js'

export interface Standing {
  readonly unit: StripeUnit | Raid5Unit
  readonly component: Member
}

const spareOf = (c: Member): readonly string[] => [
  ...(c.spare === null ? [] : [c.name]),
  ...(c.relieves === undefined ? [] : [c.relieves]),
]

/** A spare stands in this unit, or waits for a component of it. */
export const hasSpareInUse = (u: StripeUnit | Raid5Unit): boolean => ownComponents(u).some((c) => spareOf(c).length > 0)

/** By the spare's name. */
export const standingSpares = (tree: Tree): ReadonlyMap<string, Standing> =>
  new Map(
    [...tree.values()].flatMap((unit): [string, Standing][] =>
      takesSpares(unit)
        ? ownComponents(unit).flatMap((component): [string, Standing][] =>
            spareOf(component).map((name) => [name, { unit, component }]),
          )
        : [],
    ),
  )

/** The component as it was configured: what metastat shows, md.tab names and the layout follows from. */
export const configured = (c: Member): Slice => c.spare?.original ?? c

/**
 * What a component that gets `slice` (null: keeps its own) owes to a spare. One that was whole, or on its way
 * there, is kept until its successor is; one that failed is no use to anybody.
 */
export const relievedBy = (c: Member, slice: object | null): Pick<Member, 'relieves'> => {
  if (slice !== null && c.spare !== null) return c.state === 'okay' || c.state === 'resync' ? { relieves: c.name } : {}
  return c.relieves === undefined ? {} : { relieves: c.relieves }
}

/** Texts of commands.md 4.7. */
export type SpareState = 'Available' | 'In use' | 'Broken'
export const spareState = (s: Spare, standing: ReadonlyMap<string, Standing>): SpareState => {
  if (standing.has(s.name)) return 'In use'
  return s.broken ? 'Broken' : 'Available'
}

/** The pools in which `change` makes another spare of one; equal spares stay equal. */
export const changedPools = (tree: Tree, change: (s: Spare) => Spare): readonly PoolUnit[] =>
  [...tree.values()].flatMap((unit) => {
    if (unit.kind !== 'pool') return []
    const spares = unit.spares.map(change)
    return spares.some((s, i) => s !== unit.spares[i]) ? [{ ...unit, spares }] : []
  })

export const withPools = (tree: Tree, pools: readonly PoolUnit[]): Tree =>
  pools.length === 0 ? tree : withUnits(tree, pools)
