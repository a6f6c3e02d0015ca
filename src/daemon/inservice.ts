/** Which components of a metadevice are in service, and the tree that a plan is made of when some are not open. Pure. */
import { isInService, membersOf } from '../meta/raid5tables.js'
import { isWritten } from '../meta/sources.js'
import { componentsOf, stripeOf, topLevel, withUnits } from '../meta/tree.js'
import type { Component, Member, Metadevice, Tree } from '../meta/types.js'

export const keyOf = (c: Member): string => `${c.path}\0${c.identity}`

/** What of `unit` is read or written: the components that must be open. */
export const inService = (unit: Metadevice, tree: Tree): readonly Member[] => {
  if (unit.kind === 'raid5') return membersOf(unit).filter(isInService)
  if (unit.kind !== 'mirror') return componentsOf(unit, tree)
  return unit.submirrors.flatMap((s) => {
    const stripe = isWritten(s) ? stripeOf(tree, s.unit) : null
    return stripe === null ? [] : componentsOf(stripe, tree).filter((c) => c.state !== 'erred')
  })
}

/** Without it `unit` is another one: a column that only waits to join, or a copy of one, is not missed by anybody. */
export const isEssential = (unit: Metadevice, c: Member): boolean =>
  unit.kind !== 'raid5' || unit.columns.slice(0, unit.serving).some((own) => own === c)

/**
 * The tree for the plan of `unit`: what is not open (missing, or on a side that is not written) is in Maintenance,
 * so that the engine asks for no descriptor of it.
 */
export const asServed = (unit: Metadevice, tree: Tree, missing: (c: Member) => boolean): Tree => {
  if (unit.kind === 'raid5') {
    const left = (c: Member): boolean => missing(c) && !isEssential(unit, c)
    if (!membersOf(unit).some(left)) return tree
    const copy = unit.copy !== null && left(unit.copy.to) ? null : unit.copy
    return withUnits(tree, [
      { ...unit, copy, columns: unit.columns.map((c) => (left(c) ? { ...c, state: 'initErred' } : c)) },
    ])
  }
  if (unit.kind !== 'mirror') return tree
  const put = unit.submirrors.flatMap((s) => {
    const stripe = stripeOf(tree, s.unit)
    const closed = (c: Member): boolean => !isWritten(s) || missing(c)
    if (stripe === null || !componentsOf(stripe, tree).some(closed)) return []
    const rows = stripe.rows.map((r) => ({
      ...r,
      components: r.components.map((c): Component => (closed(c) ? { ...c, state: 'erred' } : c)),
    }))
    return [{ ...stripe, rows }]
  })
  return withUnits(tree, put)
}

export const servedBy = (tree: Tree): ReadonlyMap<string, Member> =>
  new Map(topLevel(tree).flatMap((u) => inService(u, tree).map((c): [string, Member] => [keyOf(c), c])))

/** metareplace -e of a component that is still open: it is copied as a whole. */
export const isRenewed = (before: Member, after: Member): boolean =>
  after.state === 'resync' && before.state !== 'resync'
