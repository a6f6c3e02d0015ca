/**
 * Where the data of a mirror can be read: which ranges have a source, and whether a component has
 * another one for everything it holds (driver.md 2.3, 2.5). The answer must be exact: a range taken
 * for covered that is not would be lost, and the other way round a good disk would stay Last Erred.
 *
 * Sides have rows of their own footprints. Between two row borders each side repeats its own pattern of
 * columns, so one common period of the patterns is looked at instead of the whole address space. The
 * work is bounded by that period (or the range) divided by the smallest interlace.
 */
import { type Blocks, blocks } from '../base/units.js'
import { stripeOf } from './tree.js'
import type { Component, Member, MirrorUnit, Row, Slot, StripeUnit, Submirror, Tree, UnitName } from './types.js'

export interface Side {
  readonly submirror: Submirror
  readonly stripe: StripeUnit
}

/** A component of a mirror: `component` counts over all rows of the submirror, row 0 first. */
export interface Place {
  readonly slot: Slot
  readonly component: number
}

/** In slot order. A submirror whose stripe is missing is left out: records do not allow it. */
export const sidesOf = (m: MirrorUnit, stripe: (name: UnitName) => StripeUnit | null | undefined): readonly Side[] =>
  m.submirrors.flatMap((submirror) => {
    const found = stripe(submirror.unit)
    return found === null || found === undefined ? [] : [{ submirror, stripe: found }]
  })
export const sidesIn = (m: MirrorUnit, tree: Tree): readonly Side[] => sidesOf(m, (name) => stripeOf(tree, name))

export const stripeComponents = (stripe: StripeUnit): readonly Component[] => stripe.rows.flatMap((r) => r.components)

/** The rows of one side with the columns that count. */
interface Piece {
  readonly base: number
  readonly end: number
  readonly interlace: number
  readonly columns: readonly boolean[]
}
export type Cover = readonly Piece[]

/** @param counts is asked for every component of the side, by its index over all rows. */
export const coverOf = (rows: readonly Row[], counts: (c: Component, index: number) => boolean): Cover => {
  let base = 0
  let index = 0
  return rows.map((row) => {
    const columns = row.components.map((c) => counts(c, index++))
    const piece = { base, end: base + row.blocks, interlace: row.interlace, columns }
    base = piece.end
    return piece
  })
}

const pieceAt = (cover: Cover, b: number): Piece | undefined => cover.find((p) => b >= p.base && b < p.end)

/** Whether block `b` of the piece lies on a column that counts, and the first block for which that may be different. */
const lookAt = (p: Piece, b: number): { readonly counts: boolean; readonly until: number } => {
  const width = p.columns.length
  if (width === 1) return { counts: p.columns[0] ?? false, until: p.end }
  const segment = Math.floor((b - p.base) / p.interlace)
  return { counts: p.columns[segment % width] ?? false, until: p.base + (segment + 1) * p.interlace }
}

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b))

/** After this many blocks all patterns repeat; `limit` when that is too far to matter. */
const period = (pieces: readonly Piece[], limit: number): number => {
  let common = 1
  for (const p of pieces) {
    const own = p.columns.length === 1 ? 1 : p.interlace * p.columns.length
    common = (common / gcd(common, own)) * own
    if (common >= limit) return limit
  }
  return common
}

/** Between two row borders: the first block of `of` that no one of `by` has. */
const uncoveredBetween = (from: number, to: number, of: Piece | null, by: readonly Piece[]): number | null => {
  if (of?.columns.every((c) => !c) === true) return null
  if (by.some((p) => p.columns.every((c) => c))) return null
  const partly = by.filter((p) => p.columns.some((c) => c))
  const end = from + period(of === null ? partly : [of, ...partly], to - from)
  let b = from
  while (b < end) {
    const target = of === null ? null : lookAt(of, b)
    if (target !== null && !target.counts) {
      b = target.until
      continue
    }
    const next = partly.reduce((far, p) => {
      const seen = lookAt(p, b)
      return seen.counts ? Math.max(far, seen.until) : far
    }, b)
    if (next === b) return b
    b = next
  }
  return null
}

/** The first block below `size` that lies on `of` (null: any block) and on none of `by`; null when there is none. */
export const firstUncovered = (size: Blocks, of: Cover | null, by: readonly Cover[]): Blocks | null => {
  const borders = new Set<number>([0, size])
  for (const cover of of === null ? by : [of, ...by])
    for (const p of cover) for (const at of [p.base, p.end]) if (at < size) borders.add(at)
  const sorted = [...borders].sort((a, b) => a - b)
  for (const [i, from] of sorted.entries()) {
    const to = sorted[i + 1]
    if (to === undefined) break
    const target = of === null ? null : pieceAt(of, from)
    if (target === undefined) continue
    const found = uncoveredBetween(
      from,
      to,
      target,
      by.flatMap((cover) => pieceAt(cover, from) ?? []),
    )
    if (found !== null) return blocks(found)
  }
  return null
}

/** In step: what its components hold is the mirror's data, but for regions that an optimized resync still copies. */
export const inStep = (s: Submirror): boolean => s.state === 'okay' || s.state === 'optimized'
/** An optimized resync is outstanding. */
export const isStale = (s: Submirror): boolean => s.state === 'optimized' || s.state === 'offlineResync'
/** Whether client writes go there; to those of its components that are not Erred. */
export const isWritten = (s: Submirror): boolean => s.state !== 'attached' && s.state !== 'offline'

/** Whether a component is a read source (driver.md 2.2, 2.3): Maintenance and Resyncing ones never are. */
export const isSource = (s: Submirror, c: Component): boolean =>
  inStep(s) && (c.state === 'okay' || c.state === 'lastErred')

/** Whether the storage can be opened, as far as it was tried. */
export type Openable = (c: Member) => boolean
export const ALL_OPENABLE: Openable = () => true

/** The first block that nothing can be read from once the side `without` is gone; null when all of it can be. */
export const blockWithoutSource = (
  size: Blocks,
  sides: readonly Side[],
  openable: Openable,
  without: Slot | null = null,
): Blocks | null =>
  firstUncovered(
    size,
    null,
    sides
      .filter((s) => s.submirror.slot !== without)
      .map((s) => coverOf(s.stripe.rows, (c) => isSource(s.submirror, c) && openable(c))),
  )

/**
 * driver.md 2.3, "another source": the other sides have one for everything that the component at
 * `place` holds within the mirror. For a Last Erred component only those count that erred later.
 */
export const hasOtherSource = (size: Blocks, sides: readonly Side[], place: Place, openable: Openable): boolean => {
  const own = sides.find((s) => s.submirror.slot === place.slot)
  const judged = own === undefined ? undefined : stripeComponents(own.stripe)[place.component]
  if (own === undefined || judged === undefined) return false
  const counts = (s: Submirror, c: Component): boolean =>
    isSource(s, c) &&
    openable(c) &&
    (judged.state !== 'lastErred' || c.state !== 'lastErred' || c.erredOrder > judged.erredOrder)
  return (
    firstUncovered(
      size,
      coverOf(own.stripe.rows, (_, index) => index === place.component),
      sides.filter((s) => s !== own).map((s) => coverOf(s.stripe.rows, (c) => counts(s.submirror, c))),
    ) === null
  )
}
