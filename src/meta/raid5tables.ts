/**
 * The transitions of the columns of a RAID5 device as a table, and what follows from the columns' states
 * (driver.md 4.8). A missing entry is an event that the state has no answer to.
 */
import type { Column, ColumnState, Raid5Unit } from './types.js'

/**
 * `error`: the others have all of its data, or it had none. `lastError`: without it something cannot be read.
 * `covered`: the others have all of it again. `opened`: it answers after it failed to.
 */
export type ColumnEvent =
  'error' | 'lastError' | 'covered' | 'opened' | 'replace' | 'spare' | 'regenerated' | 'initialised'

/** An error of what is Erred already comes from a request that was under way. */
export const COLUMN_NEXT: Readonly<Record<ColumnState, Partial<Readonly<Record<ColumnEvent, ColumnState>>>>> = {
  init: { error: 'initErred', initialised: 'okay' },
  initErred: { error: 'initErred', replace: 'init' },
  okay: { error: 'erred', lastError: 'lastErred', opened: 'okay', replace: 'resync' },
  erred: { error: 'erred', replace: 'resync', spare: 'resync' },
  lastErred: { error: 'erred', lastError: 'lastErred', covered: 'erred', opened: 'okay', replace: 'resync' },
  resync: { error: 'erred', opened: 'resync', replace: 'resync', regenerated: 'okay' },
}

/** All that it reads or writes: its columns in order, then the one that a column is copied to. */
export const membersOf = (u: Raid5Unit): readonly Column[] => (u.copy === null ? u.columns : [...u.columns, u.copy.to])

/** Columns with data of the address space, and their parity. */
export const servingColumns = (u: Raid5Unit): readonly Column[] => u.columns.slice(0, u.serving)
const joining = (u: Raid5Unit): readonly Column[] => u.columns.slice(u.serving)
const has = (columns: readonly Column[], ...states: readonly ColumnState[]): boolean =>
  columns.some((c) => states.includes(c.state))

/** The first initialisation failed: there is no data, and there will be none. */
export const isInitFailed = (u: Raid5Unit): boolean => has(servingColumns(u), 'initErred')
/** There is no data yet; nobody may open it. */
export const isInitialising = (u: Raid5Unit): boolean => has(servingColumns(u), 'init') && !isInitFailed(u)
/** It has no data yet, and nobody may open it: it is being initialised, or that failed. */
export const isRaw = (u: Raid5Unit): boolean => has(servingColumns(u), 'init', 'initErred')
/** Attached columns are being initialised; one that failed stops that for all. */
export const isGrowing = (u: Raid5Unit): boolean => has(joining(u), 'init') && !has(joining(u), 'initErred')

/** Whether a column is read or written at all, by clients or to be brought in step. */
export const isInService = (c: Column): boolean => c.state !== 'erred' && c.state !== 'initErred'

/** Every serving column but `column` holds its data. */
export const othersInStep = (u: Raid5Unit, column: number): boolean =>
  servingColumns(u).every((c, i) => i === column || c.state === 'okay')
/** Every serving column but `column` is read. */
export const othersReadable = (u: Raid5Unit, column: number): boolean =>
  servingColumns(u).every((c, i) => i === column || c.state === 'okay' || c.state === 'lastErred')

/** metastat's State of the whole, by what is tested first (commands.md 4.5). */
export type Raid5State =
  'resyncing' | 'waiting' | 'initializing' | 'okay' | 'erred' | 'lastErred' | 'initFailed' | 'regen'

/**
 * @param running something is brought in step now. `waiting`: a column's resync does not run, mostly because
 *   something that it needs cannot be read; a column that is Last Erred says more than that.
 */
export const raid5StateOf = (u: Raid5Unit, running = true): Raid5State => {
  const serving = servingColumns(u)
  const last = has(serving, 'lastErred')
  const stale = has(serving, 'resync') || u.copy !== null
  if (stale && running) return 'resyncing'
  if (isInitFailed(u)) return 'initFailed'
  if (has(serving, 'init')) return 'initializing'
  if (last) return 'lastErred'
  if (stale) return 'waiting'
  if (has(serving, 'erred') || has(joining(u), 'initErred')) return 'erred'
  return u.regen ? 'regen' : 'okay'
}
