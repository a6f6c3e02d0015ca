/**
 * The parts of metad that live on the tree of metadevices, and what flows between them:
 * commands, faults and ends of resyncs change the State; Serving makes the engine follow; the engine's events
 * go to Faults, the ResyncScheduler and Dirt. Who waits for whom is in docs/commit-order.md.
 */
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { err, ok } from '../base/result.js'
import type { DataPlane, NbdTerms } from '../dataplane/types.js'
import type { DatabaseHealth, StateDatabase } from '../db/types.js'
import { mdCf } from '../meta/mdcf.js'
import { forgetSpares } from '../meta/hotspare.js'
import type { Warning } from '../meta/kind.js'
import type { Outcome } from '../meta/operations.js'
import { topLevel } from '../meta/tree.js'
import type { Openable } from '../meta/sources.js'
import type { Metadevice, Tree, Unit, UnitName } from '../meta/types.js'
import { errorText, type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import type { NativeEvent } from '../plan/events.js'
import { ResyncScheduler } from '../resync/scheduler.js'
import type { HostFiles } from '../sys/hostfiles.js'
import type { Components } from './components.js'
import type { Config } from './config.js'
import type { Places } from './daemon.js'
import { Dirt } from './dirt.js'
import { Faults } from './faults.js'
import { JobHosts } from './jobs.js'
import type { Logger, Notice } from './log.js'
import type { Metadevices } from './metadevices.js'
import { type HeaderOptions, inStep, writeHeaders } from './raid5headers.js'
import { Raid5Hosting } from './raid5jobs.js'
import { toBeDrained } from './raid5start.js'
import { openMarks, recovered, syncedForBoot, withoutMarks } from './recovery.js'
import { ResyncHosting } from './resyncs.js'
import { Serving } from './serving.js'
import { SpareSearch, unreadableSpares } from './spares.js'
import { State } from './state.js'
import { Writer } from './writer.js'

export interface SystemParts {
  readonly config: Config
  readonly where: Places
  readonly db: StateDatabase
  readonly engine: DataPlane
  readonly metadevices: Metadevices
  readonly components: Components
  readonly files: HostFiles
  readonly log: Logger
  readonly notice: Notice
}

export interface Exported {
  readonly unit: Metadevice
  readonly device: number
  /** Why no client may use it now. */
  readonly refusal?: MetaError
}

/** A client that was let in and is not yet in the engine. */
export interface Admission {
  /** Gives its socket to the engine. */
  enter(fd: number, terms: NbdTerms, residual: Uint8Array): void
  /** Always called in the end. */
  over(): void
}

/** How long a stop waits for regions to be clean and for what is being decided. */
const PATIENCE_MS = 5000
/** How long for what RAID5 devices have in memory; a column that hangs is given up in between. */
const DRAIN_PATIENCE_MS = 60_000

export class System {
  readonly parts: SystemParts
  /** Commands, one after another. */
  readonly writer = new Writer()
  readonly state: State
  readonly serving: Serving
  readonly hosting: ResyncHosting
  readonly resyncs: ResyncScheduler
  readonly #faults: Faults
  readonly #dirt: Dirt
  readonly #spares: SpareSearch
  #mdCf = Promise.resolve()

  constructor(parts: SystemParts) {
    this.parts = parts
    const { db, engine, metadevices, log } = parts
    const state = new State(db)
    const readOnly = (): boolean => this.readOnly
    // The scheduler hosts nothing before the first kick, and serving pauses nothing before the first show.
    const serving = new Serving({
      ...parts,
      state,
      readOnly,
      resyncs: { paused: (name, swap) => this.resyncs.paused(name, swap) },
      giveUp: (device) => this.#faults.giveUp(device),
      recorded: (name) => {
        // Mirrors begin theirs pass by pass.
        if (state.tree.get(name)?.kind === 'raid5') void this.resyncs.kick(name)
        void this.#changed()
      },
    })
    this.state = state
    this.serving = serving
    const rested = (): void => void this.#changed()
    const mirrors = new ResyncHosting({ ...parts, state, serving, readOnly, rested })
    const bufferBlocks = (name: UnitName): number => mirrors.bufferOf(name)
    const raid5 = new Raid5Hosting({ ...parts, state, serving, readOnly, bufferBlocks, rested })
    this.hosting = mirrors
    this.resyncs = new ResyncScheduler(new JobHosts(mirrors, raid5, (name) => state.tree.get(name)?.kind))
    const decided = (name: UnitName): void => {
      // A copy that this component made fail is possible without it.
      void this.resyncs.kick(name)
      void this.#changed()
    }
    this.#faults = new Faults({ ...parts, state, serving, decided })
    this.#dirt = new Dirt({ logs: state.logs, engine, metadevices, log })
    this.#spares = new SpareSearch({
      ...parts,
      opener: parts.components,
      limitSeconds: parts.config.componentTimeoutSeconds,
      readOnly,
      tree: () => state.tree,
      live: () => ({ isResyncing: (name) => this.resyncs.isRunning(name) }),
      change: async (decide) => {
        const tentative = decide(state.tree)
        if (tentative.ok) await this.#drain(toBeDrained(state.tree, tentative.value.outcome.tree))
        return state.change(decide)
      },
      taken: async (name) => {
        await serving.show(name)
        void this.resyncs.kick(name)
      },
    })
  }

  get tree(): Tree {
    return this.state.tree
  }
  /** Without a healthy state database nothing may change (commands.md 5.4). */
  get readOnly(): boolean {
    return this.parts.db.health !== 'good'
  }

  /** Everything remembered, back in the engine. */
  async load(): Promise<void> {
    const { db, log, notice } = this.parts
    if (db.health === 'stale') notice('warning', 'md: state database is stale')
    const errors = this.state.load()
    for (const e of errors) log.error({ object: e.object }, errorText(e))
    await this.#probe()
    // It lags behind when metad ended right after a commit. What names more than was understood is left alone.
    if (!this.readOnly && errors.length === 0) await this.#writeMdCf()
  }

  /** Opens what can be opened; mirrors that were not served until now are recovered before they are. */
  async #probe(): Promise<void> {
    const { db, log, metadevices } = this.parts
    const top = topLevel(this.tree)
    await this.serving.probing(top, async () => {
      const fresh = new Set(top.map((u) => u.name).filter((name) => metadevices.deviceOf(name) === undefined))
      if (!this.readOnly && fresh.size > 0) {
        const marks = openMarks(db.records)
        const suspect = new Set(marks.values())
        const isDirty = (name: UnitName): boolean => suspect.has(name) || this.state.logs.dirty(name) > 0
        const openable: Openable = (c) => !this.serving.isMissing(c)
        const done = await this.state.change((tree) => recovered(tree, fresh, isDirty, openable, Date.now()), {
          records: withoutMarks(marks),
          suspect,
        })
        if (!done.ok) throw new Error(errorText(done.error))
        for (const { name, kind } of done.value.value.outcome.put)
          if (kind === 'mirror' && this.state.logs.dirty(name) > 0)
            log.warn({ mirror: name, regions: this.state.logs.dirty(name) }, 'mirror was in use when metad ended')
      }
      await this.serving.showAll()
    })
    // A start that an error ended goes on with what was decided about it.
    await this.#faults.idle()
  }

  /** Mirrors that want a copy get it, pass by pass, then RAID5 devices (commands.md 3.10), in the background. */
  async startResyncs(): Promise<void> {
    if (this.readOnly) return
    const mirrors = topLevel(this.tree).filter((u) => u.kind === 'mirror')
    // One by one: a side of one mirror that cannot be opened keeps no other mirror from its copies.
    for (const { name } of mirrors) {
      const done = await this.apply((tree) => ok(syncedForBoot(tree, name, Date.now())))
      if (!done.ok) this.parts.log.warn({ mirror: name }, `resync not started: ${errorText(done.error)}`)
    }
    const passes = this.resyncs.kickAll(mirrors)
    // RAID5 devices come after the mirrors (commands.md 3.10).
    void passes.then(() => this.kickResyncs(topLevel(this.tree).filter((u) => u.kind === 'raid5')))
    this.#spares.wanted()
  }

  /**
   * Carries an operation out: on a picture first, so that what it needs can be opened, then on the tree of the
   * moment. An error leaves everything as it was.
   */
  async apply(operation: (tree: Tree) => MetaResult<Outcome>): Promise<MetaResult<Outcome>> {
    const { serving, state } = this
    const seen = state.tree
    const tentative = operation(seen)
    if (!tentative.ok || tentative.value.tree === seen) return tentative
    const drained = await this.#drain(toBeDrained(seen, tentative.value.tree))
    const acquired = await serving.acquireNew(seen, tentative.value.tree)
    if (!acquired.ok) return acquired
    try {
      const done = await state.perform(operation)
      if (!done.ok) return done
      const { before, after } = done.value
      await serving.follow(before, after)
      // The engine has let go of it: everything is in its place.
      const cleared = drained.filter((name) => !after.has(name))
      await Promise.all(cleared.map((name) => this.#putHeaders(before.get(name), { inService: false, inPlace: true })))
      await this.#changed()
      return ok(done.value.value)
    } finally {
      serving.release(acquired.value)
    }
  }

  /** Mirrors and RAID5 devices among `units` look for copies they want. */
  kickResyncs(units: readonly Unit[]): void {
    for (const u of units) if (u.kind === 'mirror' || u.kind === 'raid5') void this.resyncs.kick(u.name)
  }

  /**
   * What RAID5 devices have in memory is on their columns afterwards. An error is decided like any other, so the
   * operation that follows meets the states that it led to. @returns those that were flushed
   */
  async #drain(names: readonly UnitName[]): Promise<readonly UnitName[]> {
    const { engine, metadevices, log } = this.parts
    const one = async (name: UnitName): Promise<readonly UnitName[]> => {
      const device = metadevices.deviceOf(name)
      if (device === undefined || !this.serving.isStarted(name)) return []
      const flushed = await engine.flush(device).then(
        () => [name],
        (e: unknown) => {
          log.warn({ metadevice: name }, `not flushed: ${String(e)}`)
          return []
        },
      )
      await this.#putHeaders(this.tree.get(name), { inService: true })
      return flushed
    }
    return (await Promise.all(names.map(one))).flat()
  }

  /** Should the device be assembled again, a column that failed is known by what its header has not got. */
  async #putHeaders(u: Unit | undefined, how: Pick<HeaderOptions, 'inService' | 'inPlace'>): Promise<void> {
    const { components, config, files, log } = this.parts
    if (u?.kind !== 'raid5' || this.readOnly) return
    // What failed and is needed all the same may not have everything: the journal is to be replayed.
    if (how.inPlace === true && u.columns.some((c) => c.state === 'lastErred')) return
    const options = { ...how, limitSeconds: config.componentTimeoutSeconds, files }
    const written = await writeHeaders(u, inStep(u), components, options)
    if (!written.ok) log.warn({ metadevice: u.name }, `header not written: ${errorText(written.error)}`)
  }

  exported(): readonly Exported[] {
    return topLevel(this.tree).flatMap((unit) => {
      const device = this.parts.metadevices.exportOf(unit.name)
      if (device === undefined) return []
      const refusal = this.serving.refusal(unit.name)
      return [refusal === undefined ? { unit, device } : { unit, device, refusal }]
    })
  }

  /** From the first step on its metadevice counts as open; before the last one it may be written to. */
  async admit(device: number, readOnly: boolean): Promise<MetaResult<Admission>> {
    const { metadevices } = this.parts
    const name = metadevices.nameOf(device)
    const first = name !== undefined && !metadevices.isOpen(name)
    const arrived = await this.state.still(() => metadevices.arrive(device))
    if (arrived === undefined || name === undefined) return err(metaError('unitNotSetUp'))
    const opened = await this.#opened(name, readOnly, first)
    if (!opened.ok) {
      arrived()
      return opened
    }
    return ok({
      enter: (fd, terms, residual) =>
        metadevices.adopt(name, fd, { ...terms, readOnly: terms.readOnly || this.readOnly }, residual),
      over: arrived,
    })
  }

  async #opened(name: UnitName, readOnly: boolean, first: boolean): Promise<MetaResult<void>> {
    const refusal = this.serving.refusal(name)
    if (refusal !== undefined) return err(refusal)
    // Its start writes, whoever comes.
    if (this.tree.get(name)?.kind === 'raid5') return this.serving.open(name, first)
    return readOnly || this.readOnly ? ok(undefined) : this.serving.open(name)
  }

  event(e: NativeEvent): void {
    switch (e.kind) {
      case 'componentError':
      case 'componentRepaired':
      case 'held':
        return this.#faults.event(e)
      case 'resyncProgress':
      case 'resyncCheckpoint':
      case 'verifyMismatch':
      case 'resyncEnded':
        return this.resyncs.event(e)
      case 'replayed':
        return this.serving.event(e)
      case 'regionsDirty':
      case 'regionsIdle':
        return this.#dirt.event(e)
      case 'connectionClosed':
        this.parts.metadevices.closed(e.device, e.connection)
        this.parts.log.debug({ device: e.device, connection: e.connection }, `client gone: ${e.reason}`)
    }
  }

  async healthChanged(health: DatabaseHealth): Promise<void> {
    if (health === 'stale') this.parts.notice('warning', 'md: state database is stale')
    // Plans carry the rule that a stale set is read-only, so they are all swapped.
    await this.serving.showAll()
  }

  /** Tries again what could not be opened, and looks at spares (metastat -i). @returns what it took out of pools */
  async probe(): Promise<readonly Warning[]> {
    await this.#probe()
    if (this.readOnly) return []
    // A column that failed last of all may be well again.
    for (const u of topLevel(this.tree))
      if (u.kind === 'raid5' && u.columns.some((c) => c.state === 'lastErred') && this.serving.isStarted(u.name))
        await this.serving.open(u.name, true)
    this.kickResyncs(topLevel(this.tree))
    const { components, config, files } = this.parts
    const failed = await unreadableSpares(this.tree, components, config.componentTimeoutSeconds, files)
    const done = await this.apply((tree) => ok(forgetSpares(tree, failed)))
    this.#spares.wanted()
    return done.ok ? done.value.warnings : []
  }

  /** Copies remember where they are, clients are drained, regions get clean, what is being decided is decided. */
  async stop(): Promise<void> {
    const patience = (): Promise<'late'> => setTimeout(PATIENCE_MS, 'late' as const, { ref: false })
    // A copy from or to a disk that hangs ends with its time limit.
    if ((await Promise.race([this.resyncs.stop(), patience()])) === 'late')
      this.parts.log.warn('a resync did not stop; it goes on from its last checkpoint')
    await this.parts.metadevices.disconnectAll()
    const drained = this.#drain(topLevel(this.tree).map((u) => u.name)).then(() => 'drained' as const)
    const limit = setTimeout(DRAIN_PATIENCE_MS, 'late' as const, { ref: false })
    if ((await Promise.race([drained, limit])) === 'late')
      this.parts.log.warn('RAID5: not everything is on the columns; what was flushed is in the journal')
    const late = patience()
    const quiet = (async (): Promise<void> => {
      await this.#faults.idle()
      await this.writer.idle()
      await this.#spares.idle()
      await this.serving.idle()
      while (this.#cleaning()) await setTimeout(10)
      await this.#dirt.idle()
      await this.state.idle()
      await this.#mdCf
    })()
    if ((await Promise.race([quiet, late])) === 'late') this.parts.log.warn('stopping with work undone')
    this.#faults.giveUpAll()
  }

  /** A hot spare that was passed over may be it. */
  storageFreed(): void {
    this.#spares.wanted()
  }

  unserved(name: UnitName): MetaError | undefined {
    return this.serving.unserved(name)
  }

  /** Some mirror that is in step still has regions to clean. */
  #cleaning(): boolean {
    return topLevel(this.tree).some(
      (u) =>
        u.kind === 'mirror' &&
        !this.readOnly &&
        u.submirrors.every((s) => s.state === 'okay') &&
        this.parts.metadevices.deviceOf(u.name) !== undefined &&
        this.state.logs.dirty(u.name) > 0,
    )
  }

  /** After every change: a component may have lost its spare, or a spare have come free; md.cf follows, one at a time. */
  #changed(): Promise<void> {
    this.#spares.wanted()
    return this.#writeMdCf()
  }

  #writeMdCf(): Promise<void> {
    const write = (): Promise<void> => this.parts.files.replace(join(this.parts.where.etc, 'md.cf'), mdCf(this.tree))
    this.#mdCf = this.#mdCf.then(write).catch((e: unknown) => this.parts.log.warn(e, 'md.cf not written'))
    return this.#mdCf
  }
}
