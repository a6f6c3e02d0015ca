/** Mirrors in any state, for tests of meta/, and short ways to say what became of them. */
import {
  advance,
  advanceAll,
  type MirrorEvent,
  type MirrorState,
  stateOf,
  stateOutcome,
} from '../../../src/meta/mirrorstate.js'
import { stripeComponents } from '../../../src/meta/sources.js'
import { withUnits } from '../../../src/meta/tree.js'
import type { Component, ComponentState, MirrorUnit, Submirror, SubmirrorState, Tree } from '../../../src/meta/types.js'
import { mirrorIn, stripeIn } from './world.js'

/** Sides by the name of their stripe, components by the end of their name (`a` is /disks/a). */
export interface Changes {
  readonly sides?: Readonly<Record<string, SubmirrorState | Partial<Submirror>>>
  readonly components?: Readonly<Record<string, ComponentState | Partial<Component>>>
  readonly mirror?: Partial<MirrorUnit>
}

export const changed = (
  tree: Tree,
  mirror: string,
  { sides = {}, components = {}, mirror: facts = {} }: Changes,
): Tree => {
  const m = mirrorIn(tree, mirror)
  const submirrors = m.submirrors.map((s) => {
    const to = sides[s.unit]
    return to === undefined ? s : { ...s, ...(typeof to === 'string' ? { state: to } : to) }
  })
  let order = m.errors
  const stripes = m.submirrors.map((s) => {
    const stripe = stripeIn(tree, s.unit)
    const rows = stripe.rows.map((r) => ({
      ...r,
      components: r.components.map((c) => {
        const to = components[c.name.split('/').at(-1) ?? '']
        if (to === undefined) return c
        return { ...c, ...(typeof to === 'string' ? { state: to, erredOrder: ++order } : to) }
      }),
    }))
    return { ...stripe, rows }
  })
  return withUnits(tree, [...stripes, { ...m, submirrors, errors: order, ...facts }])
}

/** `okay okay | erred`: components of the sides in slot order. */
export const componentStates = (tree: Tree, mirror = 'd0'): string =>
  mirrorIn(tree, mirror)
    .submirrors.map((s) =>
      stripeComponents(stripeIn(tree, s.unit))
        .map((c) => c.state)
        .join(' '),
    )
    .join(' | ')
export const sideStates = (tree: Tree, mirror = 'd0'): string =>
  mirrorIn(tree, mirror)
    .submirrors.map((s) => (s.unsynced === true ? `${s.state}!` : s.state))
    .join(' ')

export interface After {
  readonly tree: Tree
  readonly state: MirrorState
  readonly sides: string
  readonly components: string
  readonly notices: readonly string[]
}
/** What follows from the events, or `illegal: ...` of the one that did not fit. */
export const after = (tree: Tree, events: readonly MirrorEvent[] | MirrorEvent, now = 5000): After | string => {
  const state = stateOf(mirrorIn(tree, 'd0'), tree)
  const next = Array.isArray(events)
    ? advanceAll(state, events as readonly MirrorEvent[], now)
    : advance(state, events as MirrorEvent, now)
  if (!next.ok) return `illegal: ${next.error.event} in ${next.error.state}`
  const result = stateOutcome(tree, next.value.state).tree
  return {
    tree: result,
    state: next.value.state,
    sides: sideStates(result),
    components: componentStates(result),
    notices: next.value.notices.map((n) => n.text),
  }
}
