/**
 * The state machine of a RAID5 device (driver.md 4.8, 4.9): what errors, jobs, commands and a start make of its
 * columns. Pure; an event that does not fit the state is an error value and changes nothing.
 *
 * Invariants:
 * - of the serving columns at most one is Erred or in resync; whatever fails besides is Last Erred: it keeps its
 *   place, because something can only be read from it;
 * - a column is readable only after a job that made all of it durable said so;
 * - what a column is copied to is written and not read; its failure costs the copy alone, and when the column fails it
 *   takes its place at once, to be made from the others; what it has missed makes the copy begin anew;
 * - columns behind the serving ones are `init` or `initErred`; serving ones are either only that (the first
 *   initialisation) or never.
 */
import { err, ok, type Result } from '../base/result.js'
import { type Blocks, blocks } from '../base/units.js'
import { type MetaResult, metaError } from '../msg/errors.js'
import { notice, type NoticeText } from '../msg/notices.js'
import { outcome, type Outcome } from './operations.js'
import { MAX_COLUMNS, raid5Size } from './raid5geometry.js'
import { COLUMN_NEXT, type ColumnEvent, isInitFailed, isInitialising, membersOf, othersInStep } from './raid5tables.js'
import { relievedBy } from './standing.js'
import type { Column, ColumnCopy, Raid5Unit, Slice, Tree, UnitName } from './types.js'

export type JobResult = 'done' | 'failed' | 'cancelled'

export type Raid5Event =
  /** A read, write or flush of it failed and is believed. */
  | { readonly event: 'error'; readonly column: number }
  /** It cannot be opened, and everything can be read without it. */
  | { readonly event: 'openError'; readonly column: number }
  /** It could be opened, by somebody who begins to use the device. */
  | { readonly event: 'opened'; readonly column: number }
  | { readonly event: 'replace'; readonly column: number; readonly by: Slice }
  /** The same for one that works, and goes on doing so until all of it is there. */
  | { readonly event: 'copy'; readonly column: number; readonly by: Slice }
  | { readonly event: 'spare'; readonly column: number; readonly by: Slice; readonly pool: UnitName }
  | { readonly event: 'attach'; readonly by: readonly Slice[] }
  /** Parity is to be made again. */
  | { readonly event: 'regen' }
  /** The journal was replayed up to `epoch`, and that is durable: its entries are never replayed again. */
  /** @property damaged not everything that the journal had could be carried out, so parts of a column may be torn. */
  | { readonly event: 'started'; readonly epoch: number; readonly damaged?: boolean }
  /** Everything below `done`, in blocks of the column's data, is in step and durable: of one that is copied, the copy. */
  | { readonly event: 'checkpoint'; readonly column: number; readonly done: Blocks }
  /** @property failed the column whose error ended it; null: none, or it is not known. */
  | {
      readonly event: 'initEnd'
      readonly columns: readonly number[]
      readonly result: JobResult
      readonly failed: number | null
    }
  | {
      readonly event: 'resyncEnd'
      readonly column: number
      readonly result: JobResult
      readonly done: Blocks
      readonly failed: number | null
    }
  /** @property column the one that is copied; `failed` as above, what it is copied to counting as the last one. */
  | {
      readonly event: 'copyEnd'
      readonly column: number
      readonly result: JobResult
      readonly failed: number | null
    }
  /** What a column is copied to is away, and the device is to be served without it. */
  | { readonly event: 'copyMissed' }
  | { readonly event: 'regenEnd'; readonly result: JobResult }

export interface Raid5Advanced {
  readonly unit: Raid5Unit
  readonly notices: readonly NoticeText[]
}
/** An event that the state has no answer to. */
export interface IllegalRaid5Event {
  readonly event: string
  readonly column: number | null
  /** What is there instead. */
  readonly state: string
}
type Step = Result<Raid5Unit, IllegalRaid5Event>
type Answer = Result<Raid5Advanced, IllegalRaid5Event>

const illegal = (event: string, column: number | null, state: string): Result<never, IllegalRaid5Event> =>
  err({ event, column, state })
const quiet = (next: Step): Answer => (next.ok ? ok({ unit: next.value, notices: [] }) : next)

/** Moves a column by the table; `slice` puts other storage in its place. */
const moved = (
  u: Raid5Unit,
  column: number,
  event: ColumnEvent,
  now: number,
  slice: (Slice & Pick<Column, 'spare'>) | null = null,
): Step => {
  const c = u.columns[column]
  if (c === undefined) return illegal(event, column, 'no such column')
  const next = COLUMN_NEXT[c.state][event]
  if (next === undefined) return illegal(event, column, c.state)
  if (next === c.state && slice === null) return ok(u)
  // The end of a resync that was never committed may have left it a header with a number that is 2 higher.
  const errors = u.errors + (c.state === 'resync' && next === 'erred' ? 3 : 1)
  const { relieves: _, ...rest } = c
  const relieves = next === 'resync' ? relievedBy(c, slice) : {}
  const to: Column = { ...rest, ...slice, ...relieves, state: next, erredOrder: errors, changed: now }
  const checkpoint = u.checkpoint?.column === column ? null : u.checkpoint
  return ok({ ...u, errors, checkpoint, columns: u.columns.map((old, i) => (i === column ? to : old)) })
}

/** What is said of a column that failed; a spare goes back to its pool as Broken (hotspare.ts). */
const complaints = (u: Raid5Unit, before: Column, after: Column): readonly NoticeText[] => {
  if (after.state === before.state) return []
  const names = [u.name, before.name]
  return [
    notice('needsMaintenance', ...names),
    ...(after.state === 'lastErred' ? [notice('lastErred', ...names)] : []),
    ...(after.state === 'erred' && before.spare !== null ? [notice('spareReleased', ...names)] : []),
  ]
}

const failed = (u: Raid5Unit, column: number, event: ColumnEvent, now: number): Answer => {
  const before = u.columns[column]
  const next = moved(u, column, event, now)
  if (!next.ok) return next
  const after = next.value.columns[column]
  if (before === undefined || after === undefined) return illegal(event, column, 'no such column')
  return ok({ unit: next.value, notices: complaints(u, before, after) })
}

/** What it was copied to is free; a header that the end of the copy left there may have a number that is 2 higher. */
const withoutCopy = (u: Raid5Unit): Raid5Unit => (u.copy === null ? u : { ...u, errors: u.errors + 3, copy: null })

/** The column goes on as if nothing had been. */
const copyGivenUp = (u: Raid5Unit): Answer =>
  u.copy === null
    ? illegal('error', u.columns.length, 'no such column')
    : ok({
        unit: withoutCopy(u),
        notices: [notice('replaceWriteError', u.name, u.copy.to.name)],
      })

/** What it was to be copied to is made from the others; a spare that failed so is Broken (hotspare.ts). */
const copiedFailed = (u: Raid5Unit, { of, to }: ColumnCopy, now: number): Answer => {
  const erred = failed(withoutCopy(u), of, 'error', now)
  if (!erred.ok) return erred
  const { name, path, identity, extent, offset, size, start } = to
  const by = { name, path, identity, extent, offset, size, start, spare: null }
  const next = moved(erred.value.unit, of, 'replace', now, by)
  return next.ok ? ok({ unit: next.value, notices: erred.value.notices }) : next
}

/** One error is Maintenance; what fails while another column is not in step is the last to have its data. */
const errorAt = (u: Raid5Unit, column: number, now: number): Answer => {
  if (u.copy !== null && column === u.columns.length) return copyGivenUp(u)
  const state = u.columns[column]?.state
  const last = state === 'lastErred' || (state === 'okay' && !othersInStep(u, column))
  if (u.copy?.of !== column) return failed(u, column, last ? 'lastError' : 'error', now)
  if (!last) return copiedFailed(u, u.copy, now)
  const erred = failed(withoutCopy(u), column, 'lastError', now)
  if (!erred.ok) return erred
  return ok({ ...erred.value, notices: [...erred.value.notices, notice('replaceTerminated', u.name)] })
}

/** It works, and something else is to take its place: its data is there to be copied. */
export const canCopy = (u: Raid5Unit, column: number, by: Slice): boolean => {
  const c = u.columns[column]
  const room = u.serving === u.columns.length && u.columns.length < MAX_COLUMNS
  return c?.state === 'okay' && c.name !== by.name && room
}

const replaced = (u: Raid5Unit, column: number, by: Slice, now: number): Step =>
  isInitFailed(u) || isInitialising(u)
    ? illegal('replace', column, 'not initialised')
    : moved(u.copy?.of === column ? withoutCopy(u) : u, column, 'replace', now, { ...by, spare: null })

/** One at a time; another target for the same column takes the place of the first one. */
const copyBegun = (u: Raid5Unit, column: number, by: Slice, now: number): Step => {
  if (!canCopy(u, column, by)) return illegal('copy', column, u.columns[column]?.state ?? 'no such column')
  if (u.copy !== null && u.copy.of !== column) return illegal('copy', column, 'another one is being copied')
  const free = withoutCopy(u)
  const errors = free.errors + 1
  const to: Column = { ...by, state: 'resync', erredOrder: errors, spare: null, changed: now }
  return ok({ ...free, errors, copy: { of: column, to, done: blocks(0) } })
}

const spared = (u: Raid5Unit, column: number, by: Slice, pool: UnitName, now: number): Answer => {
  const c = u.columns[column]
  if (c === undefined || c.spare !== null)
    return illegal('spare', column, c === undefined ? 'no such column' : 'spared already')
  if (!othersInStep(u, column)) return illegal('spare', column, 'others are not in step')
  const { name, path, identity, extent, offset, size, start } = c
  const spare = { pool, original: { name, path, identity, extent, offset, size, start } }
  const next = moved(u, column, 'spare', now, { ...by, spare })
  return next.ok ? ok({ unit: next.value, notices: [notice('hotSpared', u.name, name, by.name)] }) : next
}

/** They serve once all of them are zeroes: until then nothing of them is mapped. */
const attached = (u: Raid5Unit, by: readonly Slice[], now: number): Step => {
  const busy = membersOf(u).find((c) => c.state !== 'okay' && c.state !== 'erred')
  if (busy !== undefined) return illegal('attach', null, busy.state)
  const errors = u.errors + 1
  const fresh = by.map((s): Column => ({ ...s, state: 'init', erredOrder: errors, spare: null, changed: now }))
  return ok({ ...u, errors, columns: [...u.columns, ...fresh] })
}

const initialised = (u: Raid5Unit, columns: readonly number[], now: number): Step => {
  let next = u
  for (const column of columns) {
    const step = moved(next, column, 'initialised', now)
    if (!step.ok) return step
    next = step.value
  }
  // Some were zeroed and one was not: they join together.
  const waiting = next.columns.findIndex((c) => c.state === 'init' || c.state === 'initErred')
  if (waiting >= 0) return illegal('initEnd', waiting, 'not initialised')
  if (next.serving === next.columns.length) return ok(next)
  const grown = { ...next, serving: next.columns.length }
  const size = raid5Size(grown, grown.geometry)
  return size.ok ? ok({ ...grown, ...size.value }) : illegal('initEnd', null, size.error)
}

/** Everything was made from the others: parity is right on every line, and what was Last Erred alone is covered. */
const regenerated = (u: Raid5Unit, column: number, now: number): Step => {
  const next = moved(u, column, 'regenerated', now)
  if (!next.ok) return next
  const whole = { ...next.value, regen: false }
  const lasts = whole.columns.flatMap((c, i) => (c.state === 'lastErred' ? [i] : []))
  const [only] = lasts
  return only === undefined || lasts.length > 1 || !othersInStep(whole, only)
    ? ok(whole)
    : moved(whole, only, 'covered', now)
}

/** A job that goes on from what was recorded before is another one from here on. */
const copyAnew = (u: Raid5Unit): Raid5Unit => {
  if (u.copy === null || u.copy.done === 0) return u
  const errors = u.errors + 1
  return { ...u, errors, copy: { ...u.copy, to: { ...u.copy.to, erredOrder: errors }, done: blocks(0) } }
}

const checkpointed = (u: Raid5Unit, column: number, done: Blocks): Raid5Unit => {
  if (u.copy?.of === column) return { ...u, copy: { ...u.copy, done } }
  const c = u.columns[column]
  return c?.state === 'resync' ? { ...u, checkpoint: { column, identity: c.identity, done } } : u
}

const resyncEnded = (u: Raid5Unit, e: Extract<Raid5Event, { readonly event: 'resyncEnd' }>, now: number): Answer => {
  const { column, result, done } = e
  if (u.columns[column]?.state !== 'resync')
    return illegal(e.event, column, u.columns[column]?.state ?? 'no such column')
  if (result === 'done') return quiet(regenerated(u, column, now))
  // Its own failure. That of another one is decided with that one's error, and this one waits for it.
  if (result === 'failed' && e.failed === column) return failed(u, column, 'error', now)
  const notices = result === 'failed' ? [notice('replaceTerminated', u.name)] : []
  return ok({ unit: checkpointed(u, column, done), notices })
}

const copyEnded = (u: Raid5Unit, e: Extract<Raid5Event, { readonly event: 'copyEnd' }>, now: number): Answer => {
  const c = u.columns[e.column]
  if (u.copy?.of !== e.column || c?.state !== 'okay') return illegal(e.event, e.column, c?.state ?? 'no such column')
  if (e.result === 'failed' && e.failed === u.columns.length) return copyGivenUp(u)
  if (e.result !== 'done') return quiet(ok(u))
  const errors = u.errors + 1
  const to: Column = { ...u.copy.to, state: 'okay', erredOrder: errors, changed: now }
  return quiet(ok({ ...u, errors, copy: null, columns: u.columns.map((old, i) => (i === e.column ? to : old)) }))
}

const initEnded = (u: Raid5Unit, e: Extract<Raid5Event, { readonly event: 'initEnd' }>, now: number): Answer => {
  if (e.result === 'done') return quiet(initialised(u, e.columns, now))
  // What is not being initialised is decided with its own errors.
  const target = e.result === 'failed' && e.failed !== null ? u.columns[e.failed]?.state : undefined
  return e.failed !== null && target === 'init' ? failed(u, e.failed, 'error', now) : quiet(ok(u))
}

/** @param now ms since the epoch. */
export const advanceRaid5 = (u: Raid5Unit, e: Raid5Event, now: number): Answer => {
  switch (e.event) {
    case 'error':
      return errorAt(u, e.column, now)
    case 'openError': {
      const state = u.columns[e.column]?.state
      if (e.column >= u.serving || state === 'init') return illegal(e.event, e.column, state ?? 'no such column')
      if (!othersInStep(u, e.column)) return illegal(e.event, e.column, 'others are not in step')
      return u.copy?.of === e.column ? copiedFailed(u, u.copy, now) : failed(u, e.column, 'error', now)
    }
    case 'opened':
      return quiet(moved(u, e.column, 'opened', now))
    case 'replace':
      return quiet(replaced(u, e.column, e.by, now))
    case 'copy':
      return quiet(copyBegun(u, e.column, e.by, now))
    case 'spare':
      return spared(u, e.column, e.by, e.pool, now)
    case 'attach':
      return quiet(attached(u, e.by, now))
    case 'regen': {
      const other = membersOf(u).find((c) => c.state !== 'okay')
      return other === undefined ? quiet(ok({ ...u, regen: true })) : illegal(e.event, null, other.state)
    }
    case 'started': {
      const sound = e.damaged === true ? copyAnew(u) : u
      return quiet(ok({ ...sound, journal: { ...u.journal, epoch: Math.max(u.journal.epoch, e.epoch) + 1 } }))
    }
    case 'copyMissed':
      return quiet(ok(copyAnew(u)))
    case 'checkpoint':
      return quiet(ok(checkpointed(u, e.column, e.done)))
    case 'initEnd':
      return initEnded(u, e, now)
    case 'resyncEnd':
      return resyncEnded(u, e, now)
    case 'copyEnd':
      return copyEnded(u, e, now)
    case 'regenEnd':
      return quiet(ok(e.result === 'done' && u.regen ? { ...u, regen: false } : u))
  }
}

export interface Raid5Noted {
  readonly outcome: Outcome
  readonly notices: readonly NoticeText[]
}
/** One event as a change of the tree; one that does not fit is reported as the defect it is. */
export const raid5Event = (tree: Tree, name: UnitName, e: Raid5Event, now: number): MetaResult<Raid5Noted> => {
  const u = tree.get(name)
  if (u?.kind !== 'raid5') return err(metaError('unitNotSetUp', name))
  const next = advanceRaid5(u, e, now)
  if (!next.ok) {
    const { event, column, state } = next.error
    return err(metaError('columnState', name, `${event} of column ${column ?? '-'} in ${state}`))
  }
  const { unit, notices } = next.value
  return ok({ outcome: outcome(tree, { put: unit === u ? [] : [unit] }), notices })
}
