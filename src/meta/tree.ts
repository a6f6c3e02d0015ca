/** The device graph: who stands on whom, what is used, and in which order metastat shows it. */
import { unreachable } from '../base/result.js'
import type { Component, Kind, MirrorUnit, StripeUnit, Tree, Unit, UnitName } from './types.js'

export const EMPTY_TREE: Tree = new Map<UnitName, Unit>()
/** Units of one set (13 bits of the minor number). */
export const MAX_UNITS = 8192

export const withUnits = (tree: Tree, put: readonly Unit[], remove: readonly UnitName[] = []): Tree => {
  const next = new Map(tree)
  for (const name of remove) next.delete(name)
  for (const unit of put) next.set(unit.name, unit)
  return next
}

/** Names of the metadevices directly below. */
export const childrenOf = (unit: Unit): readonly UnitName[] => {
  switch (unit.kind) {
    case 'stripe':
      return []
    case 'mirror':
      return unit.submirrors.map((s) => s.unit)
    default:
      return unreachable(unit)
  }
}

/** The metadevice that stands on `name`; there is at most one. */
export const parentOf = (tree: Tree, name: UnitName): Unit | null => {
  for (const unit of tree.values()) if (childrenOf(unit).includes(name)) return unit
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
export const stripesOf = (unit: Unit, tree: Tree): readonly StripeUnit[] =>
  unit.kind === 'stripe'
    ? [unit]
    : childrenOf(unit).flatMap((name) => {
        const child = tree.get(name)
        return child === undefined ? [] : stripesOf(child, tree)
      })

/** Components of `unit` and everything below it. */
export const componentsOf = (unit: Unit, tree: Tree): readonly Component[] =>
  stripesOf(unit, tree).flatMap((s) => s.rows.flatMap((r) => r.components))

export interface UsedComponent {
  readonly unit: UnitName
  readonly component: Component
}
export const usedComponents = (tree: Tree): readonly UsedComponent[] =>
  [...tree.values()].flatMap((unit) =>
    unit.kind === 'stripe'
      ? unit.rows.flatMap((r) => r.components.map((component) => ({ unit: unit.name, component })))
      : [],
  )

/** Kinds in the order of metastat (commands.md 4.1). */
const KIND_ORDER: Readonly<Record<Kind, number>> = { mirror: 0, stripe: 1 }

/** Every unit by kind, most recent first within a kind. */
export const statOrder = (tree: Tree): readonly Unit[] =>
  [...tree.values()].sort((a, b) => KIND_ORDER[a.kind] - KIND_ORDER[b.kind] || b.minor - a.minor)

/** Units without a parent, in that order. */
export const topLevel = (tree: Tree): readonly Unit[] => {
  const children = new Set([...tree.values()].flatMap(childrenOf))
  return statOrder(tree).filter((u) => !children.has(u.name))
}

/** A unit followed by what it stands on, as metastat prints it. */
export const withChildren = (unit: Unit, tree: Tree): readonly Unit[] => [
  unit,
  ...childrenOf(unit).flatMap((name) => {
    const child = tree.get(name)
    return child === undefined ? [] : withChildren(child, tree)
  }),
]

/** The first free minor number at or after `counter`, then from 0; null when all are taken. */
export const freeMinor = (tree: Tree, counter: number): number | null => {
  const taken = new Set([...tree.values()].map((u) => u.minor))
  for (let i = 0; i < MAX_UNITS; i++) {
    const minor = (counter + i) % MAX_UNITS
    if (!taken.has(minor)) return minor
  }
  return null
}

/** Units of `after` that changed or stand on one that did: their plans must be compiled again. */
export const changedUnits = (before: Tree, after: Tree): readonly Unit[] => {
  const same = (unit: Unit): boolean =>
    before.get(unit.name) === unit &&
    childrenOf(unit).every((name) => {
      const child = after.get(name)
      return child !== undefined && same(child)
    })
  return [...after.values()].filter((u) => !same(u))
}
