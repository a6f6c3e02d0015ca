/** The device graph: who stands on whom, what is used, and in which order metastat shows it. */
import { unreachable } from '../base/result.js'
import type {
  Kind,
  Member,
  Metadevice,
  MirrorUnit,
  PoolUnit,
  Raid5Unit,
  Slice,
  StripeUnit,
  Tree,
  Unit,
  UnitName,
} from './types.js'

export const EMPTY_TREE: Tree = new Map<UnitName, Unit>()
/** Units of one set (13 bits of the minor number). */
export const MAX_UNITS = 8192

export const withUnits = (tree: Tree, put: readonly Unit[], remove: readonly UnitName[] = []): Tree => {
  const next = new Map(tree)
  for (const name of remove) next.delete(name)
  for (const unit of put) next.set(unit.name, unit)
  return next
}

export const isMetadevice = (unit: Unit): unit is Metadevice => unit.kind !== 'pool'
export const metadeviceOf = (tree: Tree, name: UnitName): Metadevice | null => {
  const unit = tree.get(name)
  return unit !== undefined && isMetadevice(unit) ? unit : null
}
export const poolOf = (tree: Tree, name: UnitName): PoolUnit | null => {
  const unit = tree.get(name)
  return unit?.kind === 'pool' ? unit : null
}

/** Names of the metadevices directly below. */
export const childrenOf = (unit: Unit): readonly UnitName[] => {
  switch (unit.kind) {
    case 'stripe':
    case 'raid5':
    case 'pool':
      return []
    case 'mirror':
      return unit.submirrors.map((s) => s.unit)
    default:
      return unreachable(unit)
  }
}

/** The metadevice that stands on `name`; there is at most one. */
export const parentOf = (tree: Tree, name: UnitName): Metadevice | null => {
  for (const unit of tree.values()) if (isMetadevice(unit) && childrenOf(unit).includes(name)) return unit
  return null
}

export const stripeOf = (tree: Tree, name: UnitName): StripeUnit | null => {
  const unit = tree.get(name)
  return unit?.kind === 'stripe' ? unit : null
}

/** The submirror stripes in slot order. */
export const submirrorStripes = (mirror: MirrorUnit, tree: Tree): readonly StripeUnit[] =>
  mirror.submirrors.flatMap((s) => stripeOf(tree, s.unit) ?? [])

/** Every stripe in `unit`, itself included, in order. */
export const stripesOf = (unit: Metadevice, tree: Tree): readonly StripeUnit[] =>
  unit.kind === 'stripe'
    ? [unit]
    : childrenOf(unit).flatMap((name) => {
        const child = metadeviceOf(tree, name)
        return child === null ? [] : stripesOf(child, tree)
      })

/** What `unit` itself reads and writes. */
export const ownComponents = (unit: Metadevice): readonly Member[] => {
  switch (unit.kind) {
    case 'stripe':
      return unit.rows.flatMap((r) => r.components)
    case 'raid5':
      return unit.copy === null ? unit.columns : [...unit.columns, unit.copy.to]
    case 'mirror':
      return []
    default:
      return unreachable(unit)
  }
}
/** Components of `unit` and everything below it. */
export const componentsOf = (unit: Metadevice, tree: Tree): readonly Member[] =>
  withChildren(unit, tree).flatMap(ownComponents)

export interface UsedComponent {
  readonly unit: UnitName
  readonly component: Member
}
/** Components that are read and written now. */
export const usedComponents = (tree: Tree): readonly UsedComponent[] =>
  [...tree.values()]
    .filter(isMetadevice)
    .flatMap((unit) => ownComponents(unit).map((component) => ({ unit: unit.name, component })))

export interface UsedSlice {
  readonly unit: UnitName
  readonly slice: Slice
  /** It is there as a spare, so other pools may list it too. */
  readonly spare: boolean
}
/** Everything that may not be given to anybody else. */
export const usedSlices = (tree: Tree): readonly UsedSlice[] =>
  [...tree.values()].flatMap((unit): readonly UsedSlice[] => {
    switch (unit.kind) {
      case 'stripe':
      case 'raid5':
        return ownComponents(unit).flatMap((c) => [
          { unit: unit.name, slice: c, spare: c.spare !== null },
          // It comes back when the spare leaves, so it is not free.
          ...(c.spare === null ? [] : [{ unit: unit.name, slice: c.spare.original, spare: false }]),
        ])
      case 'pool':
        return unit.spares.map((slice) => ({ unit: unit.name, slice, spare: true }))
      case 'mirror':
        return []
      default:
        return unreachable(unit)
    }
  })

/** Kinds in the order of metastat (commands.md 4.1). */
const KIND_ORDER: Readonly<Record<Kind, number>> = { mirror: 0, raid5: 1, stripe: 2, pool: 3 }

/** Every unit by kind, most recent first within a kind. */
export const statOrder = (tree: Tree): readonly Unit[] =>
  [...tree.values()].sort((a, b) => KIND_ORDER[a.kind] - KIND_ORDER[b.kind] || b.minor - a.minor)

/** Metadevices without a parent, in that order. */
export const topLevel = (tree: Tree): readonly Metadevice[] => {
  const children = new Set([...tree.values()].flatMap(childrenOf))
  return statOrder(tree)
    .filter(isMetadevice)
    .filter((u) => !children.has(u.name))
}

/** Hot spare pools, most recent first. */
export const poolsOf = (tree: Tree): readonly PoolUnit[] => statOrder(tree).filter((u) => u.kind === 'pool')

/** Its members may be replaced by hot spares. */
export const takesSpares = (unit: Unit): unit is StripeUnit | Raid5Unit =>
  unit.kind === 'stripe' || unit.kind === 'raid5'

/** Some metadevice takes its spares from this pool. */
export const isReferenced = (pool: UnitName, tree: Tree): boolean =>
  [...tree.values()].some((u) => takesSpares(u) && u.hotSparePool === pool)

/** A metadevice followed by what it stands on, as metastat prints it. */
export const withChildren = (unit: Metadevice, tree: Tree): readonly Metadevice[] => [
  unit,
  ...childrenOf(unit).flatMap((name) => {
    const child = metadeviceOf(tree, name)
    return child === null ? [] : withChildren(child, tree)
  }),
]

/** The first of `units` free at or after `counter`, then from 0; null when all are taken. */
const freeNumber = (units: readonly Unit[], counter: number): number | null => {
  const taken = new Set(units.map((u) => u.minor))
  for (let i = 0; i < MAX_UNITS; i++) {
    const minor = (counter + i) % MAX_UNITS
    if (!taken.has(minor)) return minor
  }
  return null
}
/** A minor number for a metadevice: the search begins at `counter`. */
export const freeMinor = (tree: Tree, counter: number): number | null =>
  freeNumber([...tree.values()].filter(isMetadevice), counter)
/** The place of a new pool: behind the latest. */
export const freePoolNumber = (tree: Tree): number | null => {
  const pools = poolsOf(tree)
  return freeNumber(pools, (pools[0]?.minor ?? -1) + 1)
}

/** Metadevices of `after` that changed or stand on one that did: their plans must be compiled again. */
export const changedUnits = (before: Tree, after: Tree): readonly Metadevice[] => {
  const same = (unit: Metadevice): boolean =>
    before.get(unit.name) === unit &&
    childrenOf(unit).every((name) => {
      const child = metadeviceOf(after, name)
      return child !== null && same(child)
    })
  return [...after.values()].filter(isMetadevice).filter((u) => !same(u))
}
