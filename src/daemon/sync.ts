/**
 * metasync: copies are wanted again, cancelled, begun as at boot; sides are compared, and data with parity
 * (commands.md 3.10).
 */
import { err, ok, type Result } from '../base/result.js'
import type { Request } from '../ctl/protocol.js'
import { parseUnitName } from '../meta/names.js'
import { outcome, type Outcome } from '../meta/operations.js'
import { wantedResyncs } from '../meta/resyncs.js'
import { derive } from '../meta/mirrortables.js'
import { isInitFailed, isInitialising, membersOf } from '../meta/raid5tables.js'
import { raid5Event } from '../meta/raid5state.js'
import { inStep, sidesIn } from '../meta/sources.js'
import type { MirrorUnit, Raid5Unit, Tree } from '../meta/types.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import type { Verified } from '../resync/scheduler.js'
import { strerrorOf } from '../sys/errno.js'
import { mirrorEvent } from './resyncs.js'
import type { Send } from './server.js'
import type { System } from './system.js'

type SyncRequest = Extract<Request, { op: 'sync' }>

/** metasync's per-device failure. */
const STATUS_SYNC = 255
const PROGRESS_MS = 500

type Resynced = MirrorUnit | Raid5Unit

const unitNamed = (system: System, word: string): MetaResult<Resynced> => {
  const name = parseUnitName(word)
  if (!name.ok) return name
  const unit = system.tree.get(name.value)
  if (unit === undefined) return err(metaError('unitNotSetUp', name.value))
  const resynced = unit.kind === 'mirror' || unit.kind === 'raid5'
  return resynced ? ok(unit) : err(metaError('unknownType', name.value))
}

/** Operands are independent of each other. */
const each = async (
  system: System,
  send: Send,
  names: readonly string[],
  one: (u: Resynced) => Promise<Result<unknown, MetaError>>,
): Promise<number> => {
  let status = 0
  for (const word of names) {
    const unit = unitNamed(system, word)
    const done = unit.ok ? await one(unit.value) : unit
    if (done.ok) continue
    send({ reply: 'error', error: done.error })
    status = STATUS_SYNC
  }
  return status
}

/** Everything that was interrupted; with -p all parity as well. A journal whose replay failed is replayed. */
const startRaid5 = async (system: System, u: Raid5Unit, { bufferBlocks, parity }: SyncRequest) => {
  const { name } = u
  if (isInitFailed(u)) return err(metaError('onlyClear', name))
  if (system.resyncs.isRunning(name) || membersOf(u).some((c) => c.state === 'resync'))
    if (parity || system.resyncs.isRunning(name)) return err(metaError('resyncInProgress', name))
  if (parity && isInitialising(u)) return err(metaError('inUse', name))
  if (parity) {
    const wanted = await system.apply((tree) => {
      const now = tree.get(name)
      if (now?.kind === 'raid5' && membersOf(now).some((c) => c.state !== 'okay'))
        return err(metaError('columnsNotOkay', name))
      const noted = raid5Event(tree, name, { event: 'regen' }, Date.now())
      return noted.ok ? ok(noted.value.outcome) : noted
    })
    if (!wanted.ok) return wanted
  }
  system.hosting.setBuffer(name, bufferBlocks)
  await system.serving.retry(name)
  void system.resyncs.kick(name)
  return ok(undefined)
}

const start = (system: System, r: SyncRequest) => async (m: Resynced) => {
  if (m.kind === 'raid5') return startRaid5(system, m, r)
  if (r.parity) return err(metaError('unknownType', m.name))
  const applied = await system.apply((tree) => {
    const synced = mirrorEvent(tree, m.name, { event: 'sync' })
    return synced.ok ? ok(synced.value.outcome) : synced
  })
  if (!applied.ok) return applied
  system.hosting.setBuffer(m.name, r.bufferBlocks)
  void system.resyncs.kick(m.name)
  return ok(undefined)
}

const cancelled = (tree: Tree, m: MirrorUnit): Outcome => {
  const now = tree.get(m.name)
  const wanted = now?.kind === 'mirror' && !now.cancelled && wantedResyncs(now, tree).length > 0
  return outcome(tree, { put: wanted ? [{ ...now, cancelled: true }] : [] })
}

/** Of RAID5 a comparison only: nothing records that a column's resync is not wanted any more. */
const cancel = (system: System) => async (m: Resynced) => {
  if (m.kind === 'raid5') {
    if (system.resyncs.isRunning(m.name)) return err(metaError('notAMirror', m.name))
    await system.resyncs.cancel(m.name)
    return ok(undefined)
  }
  if (!(await system.resyncs.cancel(m.name))) return ok(undefined)
  // It may have been between two copies, where no end of one records it.
  return system.apply((tree) => ok(cancelled(tree, m)))
}

const problemOf = (m: Resynced, v: Verified): MetaError | null => {
  if (v.ending === 'cancelled')
    return metaError(m.kind === 'mirror' ? 'verifyCancelled' : 'parityVerifyCancelled', m.name)
  return v.ending === 'failed' ? metaError('sys', m.name, strerrorOf(v.errno)) : null
}

/** Why there is nothing to compare, or nothing may be repaired. */
const incomparable = (system: System, m: Resynced, repair: boolean): MetaError | null => {
  if (m.kind === 'raid5') {
    // What a column is copied to would miss the parity that the column gets.
    if (repair && m.copy !== null) return metaError('resyncInProgress', m.name)
    const whole = m.columns.slice(0, m.serving).every((c) => c.state === 'okay')
    return whole && system.serving.isStarted(m.name) ? null : metaError('columnsNotOkay', m.name)
  }
  const comparable = sidesIn(m, system.tree).filter(
    (s) => inStep(s.submirror) && !derive(s.submirror, s.stripe).allErred,
  )
  return comparable.length < 2 ? metaError('nothingToCompare', m.name) : null
}

/** Answers when all is compared; what was found is told also of a comparison that did not come to its end. */
const compare = (system: System, send: Send, r: SyncRequest) => async (m: Resynced) => {
  const { name, kind } = m
  if (system.resyncs.isRunning(name)) return err(metaError('resyncInProgress', name))
  const repaired = r.verify === 'repair'
  const nothing = incomparable(system, m, repaired)
  if (nothing !== null) return err(nothing)
  system.hosting.setBuffer(name, r.bufferBlocks)
  const verifying = system.resyncs.verify(name, repaired)
  if (verifying === null) return err(metaError(kind === 'mirror' ? 'verifyInProgress' : 'parityVerifyInProgress', name))
  const ticker = setInterval(() => {
    const p = system.resyncs.progress(name)
    if (p?.kind === 'verify') send({ reply: 'progress', name, done: p.done, total: Math.max(p.total, 1) })
  }, PROGRESS_MS)
  const verified = await verifying
  clearInterval(ticker)
  const { mismatchBlocks, ranges } = verified
  const problem = problemOf(m, verified)
  if (problem === null || mismatchBlocks > 0)
    send({ reply: 'verified', report: { name, kind, repaired, mismatchBlocks, ranges } })
  return problem === null ? ok(undefined) : err(problem)
}

/** `-r` goes on in the background, as SVM's. */
const boot = async (system: System, bufferBlocks: number | null): Promise<number> => {
  for (const unit of system.tree.values())
    if (unit.kind === 'mirror' || unit.kind === 'raid5') system.hosting.setBuffer(unit.name, bufferBlocks)
  await system.startResyncs()
  return 0
}

/** Not in turn with other commands, except what changes something: a copy may take days. */
export const sync = (system: System, send: Send, r: SyncRequest): Promise<number> => {
  if (r.restart) return boot(system, r.bufferBlocks)
  if (r.verify !== null) return each(system, send, r.names, compare(system, send, r))
  if (r.cancel) return each(system, send, r.names, cancel(system))
  return system.writer.run(() => each(system, send, r.names, start(system, r)))
}
