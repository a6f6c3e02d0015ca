/**
 * The metadevices of this root: the tree that the state database holds, the engine that serves it,
 * and the one writer that changes both. Invariants:
 * - the tree in memory is the tree of the last commit; a failed commit changes neither;
 * - a side leaves a mirror's plan only after the record says it is not in step, and becomes readable
 *   only after the record says it is (docs/commit-order.md);
 * - whatever cannot be opened is not served, and says so; it is tried again by every change.
 */
import { join } from 'node:path'
import { err, ok } from '../base/result.js'
import type { DataPlane, NbdTerms } from '../dataplane/types.js'
import type { DatabaseHealth, RecordChanges, StateDatabase } from '../db/types.js'
import { finishGrowth, type Outcome } from '../meta/operations.js'
import { mdCf } from '../meta/mdcf.js'
import { readTree, recordChanges } from '../meta/records.js'
import { changedUnits, metadeviceOf, topLevel, withChildren } from '../meta/tree.js'
import type { Metadevice, MirrorUnit, Submirror, SubmirrorState, Tree, Unit, UnitName } from '../meta/types.js'
import { errorText, type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import type { NativeEvent } from '../plan/events.js'
import { type Outcome as ResyncOutcome, ResyncScheduler, type Target } from '../resync/scheduler.js'
import { writeAtomically } from '../sys/files.js'
import type { Components } from './components.js'
import type { Config } from './config.js'
import type { Places } from './daemon.js'
import { ComponentErrors } from './errors.js'
import type { Logger, Notice } from './log.js'
import type { Metadevices } from './metadevices.js'
import { openKey, OpenMarks } from './openmarks.js'
import { inServiceOf, recovered } from './recovery.js'
import { Writer } from './writer.js'

export interface SystemParts {
  readonly config: Config
  readonly where: Places
  readonly db: StateDatabase
  readonly engine: DataPlane
  readonly metadevices: Metadevices
  readonly components: Components
  readonly log: Logger
  readonly notice: Notice
}

export interface Exported {
  readonly unit: Metadevice
  readonly device: number
}

export class System {
  readonly parts: SystemParts
  readonly writer = new Writer()
  readonly resyncs: ResyncScheduler
  readonly #marks: OpenMarks
  readonly #errors: ComponentErrors
  /** Why a metadevice is not served. */
  readonly #unserved = new Map<UnitName, MetaError>()
  /** What metasync asked for, until the next metasync. */
  readonly #bufferBlocks = new Map<UnitName, number>()
  #tree: Tree = new Map()

  constructor(parts: SystemParts) {
    this.parts = parts
    this.#marks = new OpenMarks(parts.db)
    this.#errors = new ComponentErrors(parts.notice, parts.components)
    this.resyncs = new ResyncScheduler({
      next: (mirror) => this.writer.run(() => this.#nextTarget(mirror)),
      ended: (mirror, target, outcome) => this.writer.run(() => this.#resyncEnded(mirror, target, outcome)),
      start: (mirror, target, job, from) => {
        const device = this.parts.metadevices.deviceOf(mirror)
        if (device === undefined) throw new Error(`resync of ${mirror}, which is not served`)
        const { resyncBufferBlocks, resyncBytesPerSecond: bytesPerSecond } = this.parts.config
        const bufferBlocks = this.#bufferBlocks.get(mirror) ?? resyncBufferBlocks
        this.parts.engine.resync(device, {
          job,
          target: target.slot,
          kind: 'full',
          component: null,
          from,
          bufferBlocks,
          bytesPerSecond,
          checkpointMillis: 0,
        })
      },
      cancel: (mirror) => {
        const device = this.parts.metadevices.deviceOf(mirror)
        if (device !== undefined) this.parts.engine.cancelResync(device)
      },
    })
  }

  get tree(): Tree {
    return this.#tree
  }
  /** Without a healthy state database nothing may change (commands.md 5.4). */
  get readOnly(): boolean {
    return this.parts.db.health !== 'good'
  }
  unserved(name: UnitName): MetaError | undefined {
    return this.#unserved.get(name)
  }

  /** Everything remembered, back in the engine. */
  async load(): Promise<void> {
    const { db, log, notice } = this.parts
    if (db.health === 'stale') notice('warning', 'md: state database is stale')
    const { tree, errors } = readTree(db.records)
    for (const e of errors) log.error({ object: e.object }, errorText(e))
    this.#tree = tree
    const dirty = this.#marks.load()
    const back = recovered(tree, dirty)
    if (!this.readOnly && (back.put.length > 0 || dirty.size > 0)) {
      const changes = new Map(recordChanges(back))
      for (const name of dirty) changes.set(openKey(name), null)
      const committed = await db.commit(changes)
      if (!committed.ok) throw new Error(errorText(committed.error))
      this.#marks.forget(dirty)
    }
    this.#tree = back.tree
    for (const unit of back.put)
      log.warn({ unit: unit.name }, 'mirror was in use when metad ended: it will be resynced')
    for (const unit of topLevel(this.#tree)) await this.#serve(unit)
  }

  /** Mirrors with a submirror that waits for its data, by pass (commands.md 3.10). */
  startResyncs(): void {
    if (this.readOnly) return
    const mirrors = topLevel(this.#tree).filter((u) => u.kind === 'mirror')
    this.resyncs.kickAll(mirrors).catch((e: unknown) => this.parts.log.error(e, 'resync'))
  }

  /**
   * Carries out an outcome computed on the current tree: opens what is new, commits, then swaps plans.
   * An error leaves everything as it was. Called inside the writer.
   */
  async apply(outcome: Outcome, extra: RecordChanges = new Map()): Promise<MetaResult<void>> {
    if (outcome.tree === this.#tree) return ok(undefined)
    const { db, metadevices, log } = this.parts
    const changed = new Set(changedUnits(this.#tree, outcome.tree))
    const acquired = []
    for (const unit of topLevel(outcome.tree)) {
      if (!changed.has(unit)) continue
      const got = await metadevices.acquire(
        inServiceOf(unit, (s) => this.#canOpen(s)),
        outcome.tree,
      )
      if (!got.ok) {
        for (const a of acquired) metadevices.release(a)
        return got
      }
      acquired.push(got.value)
    }
    const committed = await db.commit(new Map([...recordChanges(outcome), ...extra]))
    if (!committed.ok) {
      for (const a of acquired) metadevices.release(a)
      return committed
    }
    this.#tree = outcome.tree
    const top = topLevel(outcome.tree)
    const served = new Set(top.map((u) => u.name))
    for (const name of metadevices.names())
      if (!served.has(name)) await this.resyncs.paused(name, () => metadevices.remove(name))
    for (const name of this.#unserved.keys()) if (!outcome.tree.has(name)) this.#unserved.delete(name)
    for (const unit of top)
      if (changed.has(unit) || metadevices.deviceOf(unit.name) === undefined) await this.#serve(unit)
    for (const a of acquired) metadevices.release(a)
    await this.#writeMdCf(log)
    return ok(undefined)
  }

  /** Submirrors that wait for their data get it. */
  kickResyncs(units: readonly Unit[]): void {
    for (const u of units)
      if (u.kind === 'mirror' && u.submirrors.some((s) => s.state === 'attached' || s.state === 'resync'))
        this.resyncs.kick(u.name).catch((e: unknown) => this.parts.log.error(e, 'resync'))
  }

  /** @param blocks 0 or null: the setting; at most 2048 (md_max_xfer_bufsz). Counts from the next copy on. */
  setResyncBuffer(mirror: UnitName, blocks: number | null): void {
    if (blocks === null || blocks === 0) this.#bufferBlocks.delete(mirror)
    else this.#bufferBlocks.set(mirror, Math.min(blocks, 2048))
  }

  exported(): readonly Exported[] {
    return topLevel(this.#tree).flatMap((unit) => {
      const device = this.parts.metadevices.deviceOf(unit.name)
      return device === undefined ? [] : [{ unit, device }]
    })
  }

  /** A client may come in: a mirror is recorded as possibly unequal first. */
  admit(device: number, readOnly: boolean): Promise<MetaResult<void>> {
    return this.writer.run(async () => {
      const name = this.parts.metadevices.nameOf(device)
      const unit = name === undefined ? undefined : this.#tree.get(name)
      if (name === undefined || unit === undefined) return err(metaError('unitNotSetUp'))
      if (readOnly || this.readOnly || unit.kind !== 'mirror' || unit.submirrors.length < 2) return ok(undefined)
      return this.#marks.set(name)
    })
  }

  adopt(device: number, fd: number, terms: NbdTerms, residual: Uint8Array): void {
    const name = this.parts.metadevices.nameOf(device)
    if (name !== undefined)
      this.parts.metadevices.adopt(name, fd, { ...terms, readOnly: terms.readOnly || this.readOnly }, residual)
  }

  event(e: NativeEvent): void {
    switch (e.kind) {
      case 'componentError':
        this.#errors.report(e, this.#tree)
        return
      case 'resyncProgress':
      case 'resyncEnded':
        this.resyncs.event(e)
        return
      case 'componentRepaired':
      case 'held':
      case 'regionsDirty':
      case 'regionsIdle':
      case 'resyncCheckpoint':
      case 'verifyMismatch':
        this.parts.log.error({ event: e }, 'event without a handler')
        return
      case 'connectionClosed': {
        const name = this.parts.metadevices.closed(e.device, e.connection)
        this.parts.log.debug({ device: e.device, connection: e.connection }, `client gone: ${e.reason}`)
        if (name !== undefined && this.#marks.has(name)) void this.writer.run(() => this.#settle(name))
        return
      }
    }
  }

  async healthChanged(health: DatabaseHealth): Promise<void> {
    if (health === 'stale') this.parts.notice('warning', 'md: state database is stale')
    // Plans carry the rule that a stale set is read-only, so they are all swapped.
    await this.writer.run(async () => {
      for (const unit of topLevel(this.#tree)) await this.#serve(unit)
    })
  }

  /** Tries again what could not be opened (metastat -i). */
  probe(): Promise<void> {
    return this.writer.run(async () => {
      for (const unit of topLevel(this.#tree))
        if (withChildren(unit, this.#tree).some((u) => this.#unserved.has(u.name))) await this.#serve(unit)
      if (!this.readOnly) this.kickResyncs(topLevel(this.#tree))
    })
  }

  async stop(): Promise<void> {
    await this.resyncs.stop()
    await this.parts.metadevices.disconnectAll()
    await this.writer.run(async () => {
      for (const name of this.#marks.names()) await this.#settle(name)
    })
    await this.writer.idle()
  }

  #canOpen(s: Submirror): boolean {
    return !this.#unserved.has(s.unit)
  }

  /**
   * Puts `unit` (again) into the engine. A submirror that cannot be opened is left out of its mirror,
   * and recorded as not in step before the mirror takes a write without it.
   */
  async #serve(unit: Metadevice): Promise<void> {
    const { metadevices, notice } = this.parts
    const failed = await this.#openable(unit)
    for (const [name, e] of failed) {
      if (!this.#unserved.has(name)) notice('warning', `md: ${name}: open error: ${errorText(e)}`)
      this.#unserved.set(name, e)
    }
    let serving = unit
    if (unit.kind === 'mirror') {
      for (const s of unit.submirrors) if (!failed.has(s.unit)) this.#unserved.delete(s.unit)
      const lost = unit.submirrors.filter((s) => failed.has(s.unit) && s.state === 'okay')
      const left = unit.submirrors.some((s) => !failed.has(s.unit) && s.state === 'okay')
      if (left && lost.length > 0 && !this.readOnly) {
        const next = await this.#record(unit, lost, 'attached')
        if (!next.ok) return this.#unserve(unit.name, next.error)
        unit = next.value
      }
      serving = inServiceOf(unit, (s) => !failed.has(s.unit))
      const cause = [...failed.values()][0]
      if (!left) return this.#unserve(unit.name, cause ?? metaError('noReadableSubmirrors', unit.name))
    }
    const acquired = await metadevices.acquire(serving, this.#tree)
    if (!acquired.ok) return this.#unserve(unit.name, acquired.error)
    const installed = await this.resyncs.paused(unit.name, () =>
      metadevices.install(serving, this.#tree, acquired.value, this.readOnly),
    )
    if (!installed.ok) return this.#unserve(unit.name, installed.error)
    this.#unserved.delete(unit.name)
  }

  async #unserve(name: UnitName, e: MetaError): Promise<void> {
    this.#unserved.set(name, e)
    this.parts.notice('warning', `md: ${name}: open error: ${e.object ?? ''} ${errorText(e)}`)
    await this.parts.metadevices.remove(name)
  }

  /** Submirrors of a mirror that cannot be opened, and why. */
  async #openable(unit: Metadevice): Promise<ReadonlyMap<UnitName, MetaError>> {
    const failed = new Map<UnitName, MetaError>()
    if (unit.kind !== 'mirror') return failed
    for (const s of unit.submirrors) {
      const stripe = metadeviceOf(this.#tree, s.unit)
      if (stripe === null) continue
      const got = await this.parts.metadevices.acquire(stripe, this.#tree)
      if (got.ok) this.parts.metadevices.release(got.value)
      else failed.set(s.unit, got.error)
    }
    return failed
  }

  /** Commits a state of some submirrors; the tree follows. */
  async #record(m: MirrorUnit, which: readonly Submirror[], state: SubmirrorState): Promise<MetaResult<MirrorUnit>> {
    const submirrors = m.submirrors.map((s) => (which.includes(s) ? { ...s, state, changed: Date.now() } : s))
    const unit = { ...m, submirrors }
    const committed = await this.parts.db.commit(recordChanges({ put: [unit], remove: [] }))
    if (!committed.ok) return committed
    this.#tree = new Map(this.#tree).set(unit.name, unit)
    return ok(unit)
  }

  async #nextTarget(name: UnitName): Promise<Target | undefined> {
    const m = this.#tree.get(name)
    if (m?.kind !== 'mirror' || this.readOnly || this.parts.metadevices.deviceOf(name) === undefined) return undefined
    const serving = inServiceOf(m, (s) => this.#canOpen(s))
    const target = serving.submirrors.find((s) => s.state === 'attached' || s.state === 'resync')
    if (target === undefined) return undefined
    if (target.state !== 'resync') {
      const recorded = await this.#record(m, [target], 'resync')
      if (!recorded.ok) return undefined
    }
    return { slot: target.slot }
  }

  async #resyncEnded(name: UnitName, target: Target, outcome: ResyncOutcome): Promise<void> {
    const m = this.#tree.get(name)
    const submirror = m?.kind === 'mirror' ? m.submirrors.find((s) => s.slot === target.slot) : undefined
    if (m?.kind !== 'mirror' || submirror === undefined) return
    const state = outcome === 'done' ? 'okay' : outcome === 'cancelled' ? 'resync' : 'attached'
    if (outcome === 'cancelled') this.parts.notice('warning', `md: ${name}: Resync cancelled`)
    const recorded = await this.#record({ ...m, cancelled: outcome === 'cancelled' }, [submirror], state)
    if (!recorded.ok) {
      this.parts.log.error({ mirror: name }, `resync not recorded: ${errorText(recorded.error)}`)
      return
    }
    if (outcome !== 'done') return
    const grown = finishGrowth(this.#tree, name)
    if (grown.tree !== this.#tree) {
      await this.apply(grown)
      return
    }
    const unit = metadeviceOf(this.#tree, name)
    if (unit !== null) await this.#serve(unit)
    await this.#writeMdCf(this.parts.log)
  }

  /** Last close: the sides are flushed, hence equal, and the record may say so. */
  async #settle(name: UnitName): Promise<void> {
    const { metadevices, engine, log } = this.parts
    const device = metadevices.deviceOf(name)
    if (metadevices.isOpen(name) || this.readOnly) return
    try {
      if (device !== undefined) await engine.flush(device)
    } catch (e) {
      log.warn({ mirror: name }, `not flushed, stays marked: ${(e as Error).message}`)
      return
    }
    const cleared = await this.#marks.clear(name)
    if (!cleared.ok) log.warn({ mirror: name }, `stays marked: ${errorText(cleared.error)}`)
  }

  /** Awaited: two at once would write one temporary file, and a command that has ended has left its md.cf. */
  #writeMdCf(log: Logger): Promise<void> {
    return writeAtomically(join(this.parts.where.etc, 'md.cf'), mdCf(this.#tree)).catch((e: unknown) =>
      log.warn(e, 'md.cf not written'),
    )
  }
}
