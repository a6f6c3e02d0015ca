/**
 * What a RAID5 device wants made next (driver.md 4.9): zeroes, a column from the others, parity. Pure; the daemon
 * runs one job at a time and asks again.
 */
import { type Blocks, blocks } from '../base/units.js'
import { isGrowing, isInitialising, membersOf, othersReadable } from './raid5tables.js'
import type { Column, Raid5Unit } from './types.js'

export type Raid5Target =
  | { readonly kind: 'initialise'; readonly columns: readonly number[] }
  | { readonly kind: 'regenerate'; readonly column: number }
  /** The column's content goes to what is to take its place. */
  | { readonly kind: 'copy'; readonly column: number }
  | { readonly kind: 'parity' }

export interface Raid5Plan {
  readonly target: Raid5Target
  /** Everything below, in blocks of a column's data, was made on this very storage before. */
  readonly from: Blocks
}

export const columnsOf = (t: Raid5Target): readonly number[] => {
  switch (t.kind) {
    case 'initialise':
      return t.columns
    case 'regenerate':
    case 'copy':
      return [t.column]
    case 'parity':
      return []
  }
}

export const sameRaid5Target = (a: Raid5Target, b: Raid5Target): boolean =>
  a.kind === b.kind && columnsOf(a).join() === columnsOf(b).join()

/**
 * What is written, and since when it wants it: a column that failed in between missed writes, and one that was
 * replaced is other storage. `started` does not count: the journal saw to what was under way.
 */
export const raid5TargetIdentity = (u: Raid5Unit, t: Raid5Target): string => {
  const storage = (c: Column | undefined): readonly unknown[] => [c?.identity ?? '', c?.erredOrder ?? 0]
  const copy = t.kind === 'copy' ? storage(u.copy?.to) : []
  return JSON.stringify([t.kind, ...columnsOf(t).map((i) => [i, ...storage(u.columns[i])]), ...copy])
}

/** Everything that is wanted and could be made now, in order. */
export const wantedRaid5Jobs = (u: Raid5Unit): readonly Raid5Target[] => {
  const initial = u.columns.flatMap((c, i) => (c.state === 'init' ? [i] : []))
  const stale = u.columns.flatMap((c, i) => (c.state === 'resync' && othersReadable(u, i) ? [i] : []))
  return [
    ...stale.map((column) => ({ kind: 'regenerate', column }) as const),
    ...(u.copy !== null && u.columns[u.copy.of]?.state === 'okay'
      ? [{ kind: 'copy', column: u.copy.of } as const]
      : []),
    ...(isInitialising(u) || isGrowing(u) ? [{ kind: 'initialise', columns: initial } as const] : []),
    // What a column is copied to would miss the parity that the column gets.
    ...(u.regen && membersOf(u).every((c) => c.state === 'okay') ? [{ kind: 'parity' } as const] : []),
  ]
}

/** Of columns alone it is recorded: zeroes and parity are made from the start again, as driver.md 4.9 has it. */
const startOf = (u: Raid5Unit, t: Raid5Target): Blocks => {
  if (t.kind === 'copy') return u.copy?.done ?? blocks(0)
  const { checkpoint: c } = u
  const goesOn = t.kind === 'regenerate' && c?.column === t.column && c.identity === u.columns[t.column]?.identity
  return goesOn ? c.done : blocks(0)
}

/** What a job writes that the device is served without when it is away: then the plan has no place for it. */
const besides = (u: Raid5Unit, t: Raid5Target): readonly Column[] => {
  if (t.kind === 'copy') return u.copy === null ? [] : [u.copy.to]
  return t.kind === 'initialise' ? t.columns.flatMap((i) => u.columns[i] ?? []) : []
}

/**
 * @param tried targets that failed since the last time something changed: they are not tried again.
 * @param isMissing it cannot be opened
 * @returns null when nothing is wanted that could be made now.
 */
export const nextRaid5Job = (
  u: Raid5Unit,
  tried: readonly Raid5Target[] = [],
  isMissing: (c: Column) => boolean = () => false,
): Raid5Plan | null => {
  const target = wantedRaid5Jobs(u).find(
    (t) => !besides(u, t).some(isMissing) && !tried.some((other) => sameRaid5Target(t, other)),
  )
  return target === undefined ? null : { target, from: startOf(u, target) }
}
