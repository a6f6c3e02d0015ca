/** metasync: copies are wanted again, cancelled, begun as at boot; sides are compared (commands.md 3.10). */
import { err, ok, type Result } from '../base/result.js'
import type { Request } from '../ctl/protocol.js'
import { parseUnitName } from '../meta/names.js'
import { outcome, type Outcome } from '../meta/operations.js'
import { wantedResyncs } from '../meta/resyncs.js'
import { derive } from '../meta/mirrortables.js'
import { inStep, sidesIn } from '../meta/sources.js'
import type { MirrorUnit, Tree } from '../meta/types.js'
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

const mirrorNamed = (system: System, word: string): MetaResult<MirrorUnit> => {
  const name = parseUnitName(word)
  if (!name.ok) return name
  const unit = system.tree.get(name.value)
  if (unit === undefined) return err(metaError('unitNotSetUp', name.value))
  return unit.kind === 'mirror' ? ok(unit) : err(metaError('unknownType', name.value))
}

/** Operands are independent of each other. */
const each = async (
  system: System,
  send: Send,
  names: readonly string[],
  one: (m: MirrorUnit) => Promise<Result<unknown, MetaError>>,
): Promise<number> => {
  let status = 0
  for (const word of names) {
    const mirror = mirrorNamed(system, word)
    const done = mirror.ok ? await one(mirror.value) : mirror
    if (done.ok) continue
    send({ reply: 'error', error: done.error })
    status = STATUS_SYNC
  }
  return status
}

const start = (system: System, bufferBlocks: number | null) => async (m: MirrorUnit) => {
  const applied = await system.apply((tree) => {
    const synced = mirrorEvent(tree, m.name, { event: 'sync' })
    return synced.ok ? ok(synced.value.outcome) : synced
  })
  if (!applied.ok) return applied
  system.hosting.setBuffer(m.name, bufferBlocks)
  void system.resyncs.kick(m.name)
  return ok(undefined)
}

const cancelled = (tree: Tree, m: MirrorUnit): Outcome => {
  const now = tree.get(m.name)
  const wanted = now?.kind === 'mirror' && !now.cancelled && wantedResyncs(now, tree).length > 0
  return outcome(tree, { put: wanted ? [{ ...now, cancelled: true }] : [] })
}

const cancel = (system: System) => async (m: MirrorUnit) => {
  if (!(await system.resyncs.cancel(m.name))) return ok(undefined)
  // It may have been between two copies, where no end of one records it.
  return system.apply((tree) => ok(cancelled(tree, m)))
}

const problemOf = (m: MirrorUnit, v: Verified): MetaError | null => {
  if (v.ending === 'cancelled') return metaError('verifyCancelled', m.name)
  return v.ending === 'failed' ? metaError('sys', m.name, strerrorOf(v.errno)) : null
}

/** Answers when all is compared; what was found is told also of a comparison that did not come to its end. */
const compare = (system: System, send: Send, r: SyncRequest) => async (m: MirrorUnit) => {
  const { name } = m
  if (system.resyncs.isRunning(name)) return err(metaError('resyncInProgress', name))
  const comparable = sidesIn(m, system.tree).filter(
    (s) => inStep(s.submirror) && !derive(s.submirror, s.stripe).allErred,
  )
  if (comparable.length < 2) return err(metaError('nothingToCompare', name))
  system.hosting.setBuffer(name, r.bufferBlocks)
  const repaired = r.verify === 'repair'
  const verifying = system.resyncs.verify(name, repaired)
  if (verifying === null) return err(metaError('verifyInProgress', name))
  const ticker = setInterval(() => {
    const p = system.resyncs.progress(name)
    if (p?.kind === 'verify') send({ reply: 'progress', name, done: p.done, total: Math.max(p.total, 1) })
  }, PROGRESS_MS)
  const verified = await verifying
  clearInterval(ticker)
  const { mismatchBlocks, ranges } = verified
  const problem = problemOf(m, verified)
  if (problem === null || mismatchBlocks > 0)
    send({ reply: 'verified', report: { name, repaired, mismatchBlocks, ranges } })
  return problem === null ? ok(undefined) : err(problem)
}

/** `-r` goes on in the background, as SVM's. */
const boot = async (system: System, bufferBlocks: number | null): Promise<number> => {
  for (const unit of system.tree.values()) if (unit.kind === 'mirror') system.hosting.setBuffer(unit.name, bufferBlocks)
  await system.startResyncs()
  return 0
}

/** Not in turn with other commands, except what changes something: a copy may take days. */
export const sync = (system: System, send: Send, r: SyncRequest): Promise<number> => {
  if (r.restart) return boot(system, r.bufferBlocks)
  if (r.verify !== null) return each(system, send, r.names, compare(system, send, r))
  if (r.cancel) return each(system, send, r.names, cancel(system))
  return system.writer.run(() => each(system, send, r.names, start(system, r.bufferBlocks)))
}
