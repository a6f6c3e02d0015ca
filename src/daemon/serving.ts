/**
 * Keeps the engine in step with the tree. show(NAME) makes the engine have what the tree says of NAME at that
 * moment, so it may be called too often and never with something old; per metadevice one runs at a time.
 * Different metadevices never wait for each other.
 *
 * A component that cannot be opened is served as if it were in Maintenance, without being recorded: it misses
 * nothing until somebody writes, and before that it is recorded (open()). It is tried again only when asked
 * to (probe), because trying may take as long as the time limit. A RAID5 device without a column that is to be
 * there is not served before that is recorded, because its start writes (raid5start.ts).
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { err, ok } from '../base/result.js'
import type { DataPlane } from '../dataplane/types.js'
import { decideOpen } from '../meta/decide.js'
import { raid5Event } from '../meta/raid5state.js'
import { isRaw } from '../meta/raid5tables.js'
import { metadeviceOf, topLevel } from '../meta/tree.js'
import type { Member, Metadevice, Raid5Unit, Tree, UnitName } from '../meta/types.js'
import { errorText, type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import { strerror } from '../msg/strerror.js'
import type { ResyncScheduler } from '../resync/scheduler.js'
import type { HostFiles } from '../sys/hostfiles.js'
import type { Components } from './components.js'
import type { Config } from './config.js'
import type { NativeEvent } from '../plan/events.js'
import type { Logger, Notice } from './log.js'
import type { Metadevices } from './metadevices.js'
import { asServed, inService, isEssential, isRenewed, keyOf, servedBy } from './inservice.js'
import { inStep, writeHeaders } from './raid5headers.js'
import { Raid5Starts } from './raid5start.js'
import type { State } from './state.js'

export interface ServingParts {
  readonly config: Pick<Config, 'componentTimeoutSeconds'>
  readonly state: State
  readonly engine: DataPlane
  readonly metadevices: Metadevices
  readonly components: Components
  readonly files: HostFiles
  readonly resyncs: Pick<ResyncScheduler, 'paused'>
  readonly log: Pick<Logger, 'info' | 'warn'>
  readonly notice: Notice
  /** Without a healthy state database nothing is written. */
  readonly readOnly: () => boolean
  /** Requests that wait for a decision are answered before their metadevice goes. */
  readonly giveUp: (device: number) => void
  /** An open found components missing, or back: hot spares may be wanted, and jobs be possible. */
  readonly recorded: (name: UnitName) => void
}

/** Of a RAID5 device that the engine is to forget. */
const LAST_FLUSH_MS = 2000
/** After which storage that was busy is looked at again. */
const BUSY_AGAIN_MS = 1000

const isBusy = (e: MetaError): boolean => e.code === 'sys' && e.args?.[0] === strerror('EBUSY')

interface Lane {
  /** Not begun: whoever asks now is served by it too. */
  next: Promise<boolean> | undefined
  tail: Promise<unknown>
}

export class Serving {
  readonly #parts: ServingParts
  readonly #lanes = new Map<UnitName, Lane>()
  /** Why a metadevice is not served. */
  readonly #unserved = new Map<UnitName, MetaError>()
  /** By metadevice: the tree of the plan that the engine has. */
  readonly #shown = new Map<UnitName, Tree>()
  /** Components in service that cannot be opened. */
  readonly #missing = new Map<string, MetaError>()
  readonly #starts: Raid5Starts

  constructor(parts: ServingParts) {
    this.#parts = parts
    this.#starts = new Raid5Starts(parts)
  }

  event(e: Extract<NativeEvent, { kind: 'replayed' }>): void {
    this.#starts.event(e)
  }

  unserved(name: UnitName): MetaError | undefined {
    return this.#unserved.get(name)
  }
  isMissing(c: Member): boolean {
    return this.#missing.has(keyOf(c))
  }

  /**
   * Whether the engine has the tree of this moment. A copy that began under an older plan could miss what clients
   * write before its target is written by all.
   */
  isShown(name: UnitName): boolean {
    const shown = this.#shown.get(name)
    return shown !== undefined && !this.#differs(name, shown, this.#parts.state.tree)
  }

  /** @returns whether the engine has another plan now. */
  show(name: UnitName): Promise<boolean> {
    const lane = this.#lanes.get(name) ?? { next: undefined, tail: Promise.resolve() }
    this.#lanes.set(name, lane)
    if (lane.next !== undefined) return lane.next
    const mine: Promise<boolean> = lane.tail.then(() => {
      lane.next = undefined
      return this.#show(name)
    })
    lane.next = mine
    lane.tail = mine.catch(() => undefined)
    return mine
  }

  /**
   * After a commit: what was there is changed or goes before anything new appears, so that a submirror that
   * became free has no writer of its own while its mirror still uses it.
   */
  async follow(before: Tree, after: Tree): Promise<void> {
    const { metadevices, components } = this.#parts
    const known = servedBy(before)
    for (const [key, c] of servedBy(after)) {
      const have = known.get(key)
      if (have !== undefined && isRenewed(have, c)) components.renew(c)
    }
    const top = topLevel(after).map((u) => u.name)
    const changed = top.filter((name) => this.#differs(name, before, after))
    const going = metadevices.names().filter((name) => !top.includes(name))
    const old = changed.filter((name) => metadevices.deviceOf(name) !== undefined)
    await Promise.all([...going, ...old].map((name) => this.show(name)))
    await Promise.all(changed.filter((name) => !old.includes(name)).map((name) => this.show(name)))
    for (const name of this.#unserved.keys()) if (!after.has(name)) this.#unserved.delete(name)
  }

  /** Everything, e.g. when the health of the state database changed. */
  async showAll(): Promise<void> {
    await Promise.all(topLevel(this.#parts.state.tree).map((u) => this.show(u.name)))
  }

  /** Opens what `after` has in service and `before` had not; the references are the caller's. All or nothing. */
  async acquireNew(before: Tree, after: Tree): Promise<MetaResult<readonly Member[]>> {
    const { components } = this.#parts
    const known = servedBy(before)
    const servers = new Map(topLevel(before).flatMap((u) => inService(u, before).map((c) => [keyOf(c), u.name])))
    const got: Member[] = []
    for (const unit of topLevel(after)) {
      for (const c of inService(unit, after)) {
        const have = known.get(keyOf(c))
        const kept = have !== undefined && !isRenewed(have, c)
        if (kept && servers.get(keyOf(c)) === unit.name) continue
        // A submirror that joins or leaves its mirror stays open, and becomes something else all the same.
        const free = await components.isFree(c)
        if (kept && free) continue
        const opened = free ? await components.acquire(c) : err(metaError('sys', c.name, strerror('EBUSY')))
        if (!opened.ok) {
          this.release(got)
          return err({ ...opened.error, object: `${unit.name}: ${c.name}` })
        }
        this.#missing.delete(keyOf(c))
        got.push(c)
      }
    }
    return ok(got)
  }

  release(components: readonly Member[]): void {
    this.#parts.metadevices.release(components)
  }

  /**
   * Opens everything that `units` have in service, and runs `use` while it is open: what cannot be opened is
   * missing from then on, what can be is not.
   */
  async probing(units: readonly Metadevice[], use: () => Promise<void>): Promise<void> {
    const { state, components } = this.#parts
    const wanted = new Map(units.flatMap((u) => inService(u, state.tree)).map((c) => [keyOf(c), c]))
    for (const u of units) this.#starts.retry(u.name)
    const got: Member[] = []
    await Promise.all(
      [...wanted].map(async ([key, c]) => {
        const opened = await components.acquire(c)
        if (opened.ok) got.push(c)
        this.#found(key, c, opened.ok ? null : opened.error)
      }),
    )
    try {
      await use()
    } finally {
      this.release(got)
    }
  }

  /** Why no client is let in to a metadevice that is there. */
  refusal(name: UnitName): MetaError | undefined {
    const unit = this.#parts.state.tree.get(name)
    return unit?.kind === 'raid5' && isRaw(unit) ? metaError('notInitialised', name) : this.#unserved.get(name)
  }

  /** A replay that failed is made again. */
  async retry(name: UnitName): Promise<void> {
    this.#starts.retry(name)
    if (this.#parts.state.tree.get(name)?.kind === 'raid5' && !this.#starts.isStarted(name)) await this.show(name)
  }

  /** The engine has it and takes its requests: they can be flushed. */
  isStarted(name: UnitName): boolean {
    return this.#starts.isStarted(name)
  }

  /**
   * Before the first write, by a client or a copy: what is missing is recorded as failed when the rest has all
   * the data, and the metadevice stays closed when it has not (driver.md 2.7, 4.8).
   * @param first a client comes and there is no other: a RAID5 column that is Last Erred is tried again
   */
  async open(name: UnitName, first = false): Promise<MetaResult<void>> {
    const { state } = this.#parts
    const unit = state.tree.get(name)
    if (unit?.kind === 'raid5') return this.#openRaid5(name, first)
    if (unit?.kind === 'mirror' && inService(unit, state.tree).some((c) => this.isMissing(c))) {
      const recorded = await this.#recordAndShow(name)
      if (!recorded.ok) return recorded
    }
    const e = this.#unserved.get(name)
    return e === undefined ? ok(undefined) : err(e)
  }

  async #openRaid5(name: UnitName, first: boolean): Promise<MetaResult<void>> {
    const { state, readOnly } = this.#parts
    // It may be starting.
    await this.#lanes.get(name)?.tail
    const unit = state.tree.get(name)
    if (unit?.kind !== 'raid5') return err(metaError('unitNotSetUp', name))
    const again = first && unit.columns.some((c) => c.state === 'lastErred')
    if (!isRaw(unit) && !readOnly() && (again || this.#goneFrom(unit, state.tree) !== undefined)) {
      const recorded = await this.#recordAndShow(name)
      if (!recorded.ok) return recorded
    }
    const e = this.#unserved.get(name)
    if (e !== undefined) return err(e)
    const served = this.#starts.isStarted(name) || this.isPictured(name)
    return served ? ok(undefined) : err(metaError(readOnly() ? 'stale' : 'unavailable', name))
  }

  /** Its journal could not be replayed: it is read, and nothing of it is written. */
  isPictured(name: UnitName): boolean {
    const unit = this.#parts.state.tree.get(name)
    return unit?.kind === 'raid5' && this.#starts.isPictured(unit)
  }

  /**
   * A RAID5 device that misses a column nobody has recorded: it starts when that is back, or a client comes. What a job
   * would do can wait for either.
   */
  waits(name: UnitName): boolean {
    const { tree } = this.#parts.state
    const unit = tree.get(name)
    return unit?.kind === 'raid5' && !this.isStarted(name) && this.#goneFrom(unit, tree) !== undefined
  }

  async idle(): Promise<void> {
    await Promise.all([...this.#lanes.values()].map((l) => l.tail))
  }

  #differs(name: UnitName, before: Tree, after: Tree): boolean {
    const unit = after.get(name)
    if (unit === undefined || before.get(name) !== unit || this.#parts.metadevices.deviceOf(name) === undefined)
      return true
    return unit.kind === 'mirror' && unit.submirrors.some((s) => before.get(s.unit) !== after.get(s.unit))
  }

  #found(key: string, c: Member, e: MetaError | null): void {
    if (e === null) this.#missing.delete(key)
    else {
      if (!this.#missing.has(key)) this.#parts.notice('warning', `md: open error on ${c.name}: ${errorText(e)}`)
      this.#missing.set(key, e)
    }
  }

  async #show(name: UnitName): Promise<boolean> {
    const { state, metadevices, resyncs, components } = this.#parts
    const { tree } = state
    const unit = topLevel(tree).find((u) => u.name === name)
    if (unit === undefined) return this.#remove(name)
    const open: Member[] = []
    for (const c of inService(unit, tree)) {
      if (this.isMissing(c)) continue
      const opened = await components.acquire(c)
      if (opened.ok) open.push(c)
      else this.#found(keyOf(c), c, opened.error)
    }
    const gone = this.#goneFrom(unit, tree)
    if (gone !== undefined) {
      const recorded = await this.#serveWithout(unit, tree)
      if (recorded !== 'unrecorded') metadevices.release(open)
      if (recorded === 'recorded') return this.#show(name)
      if (recorded === 'waits') return this.#wait(name)
      if (recorded === 'impossible') {
        const cause = this.#causeOf(gone)
        if (isBusy(cause)) this.#later(name, gone)
        return this.#refuse(name, { ...cause, object: `${name}: ${gone.name}` })
      }
    }
    if (this.#misses(unit)) {
      metadevices.release(open)
      const recorded = await state.change((now) => raid5Event(now, name, { event: 'copyMissed' }, Date.now()))
      return recorded.ok ? this.#show(name) : this.#refuse(name, recorded.error)
    }
    const served = asServed(unit, tree, (c) => this.isMissing(c))
    if (unit.kind === 'raid5' && this.#starts.isNeeded(unit)) return this.#start(unit, served, open)
    const picture = unit.kind === 'raid5' && this.#starts.isPictured(unit)
    const shown = await resyncs.paused(name, () =>
      metadevices.install(metadeviceOf(served, name) ?? unit, served, open, {
        readOnly: picture || this.#parts.readOnly(),
        dirty: state.logs.bitmap(name),
      }),
    )
    if (!shown.ok) return this.#refuse(name, shown.error)
    this.#shown.set(name, tree)
    this.#unserved.delete(name)
    if (unit.kind === 'raid5' && !picture) this.#starts.serves(name)
    return shown.value
  }

  /** Replays, and then shows what the tree says by then; what `open` refers to becomes the engine's. */
  async #start(unit: Raid5Unit, served: Tree, open: readonly Member[]): Promise<boolean> {
    const { metadevices, resyncs, readOnly } = this.#parts
    const { name } = unit
    // Without a healthy state database nothing is written, and a start writes. It comes when the database is well.
    const picture = this.#starts.wantsPicture(unit)
    if (readOnly() || (this.#starts.hasFailed(unit) && !picture)) {
      metadevices.release(open)
      return readOnly() ? this.#refuse(name, metaError('stale', name)) : false
    }
    this.#shown.delete(name)
    if (!picture) await this.#putHeaders(unit)
    const install = (): Promise<MetaResult<boolean>> =>
      resyncs.paused(name, () =>
        metadevices.install(metadeviceOf(served, name) ?? unit, served, open, {
          readOnly: picture,
          dirty: null,
          replay: true,
        }),
      )
    const started = await this.#starts.start(unit, install, picture)
    if (started.ok || this.#starts.wantsPicture(unit)) return this.#show(name)
    // The engine keeps it: what failed is being decided, and the next show() replays without it.
    this.#unserved.set(name, started.error)
    this.#parts.notice('warning', `md: ${name}: open error: ${errorText(started.error)}`)
    return true
  }

  /** While nothing is written to the columns: a header may have failed, or be of before columns were attached. */
  async #putHeaders(unit: Raid5Unit): Promise<void> {
    const { components, config, files, notice } = this.#parts
    const options = { limitSeconds: config.componentTimeoutSeconds, inService: false, files }
    const written = await writeHeaders(unit, inStep(unit), components, options)
    // The replay will tell what is wrong with the column; without a header only -k cannot have it.
    if (!written.ok) notice('warning', `md: ${unit.name}: header not written: ${errorText(written.error)}`)
  }

  /** Clients may ask for it; what is missing is recorded when the first one comes. */
  async #wait(name: UnitName): Promise<boolean> {
    await this.#parts.metadevices.reserve(name)
    this.#unserved.delete(name)
    return false
  }

  /**
   * Nothing is recorded of what nobody writes to: a mirror is served without, a RAID5 device waits. What is in use
   * records it now, or is served no longer.
   */
  async #serveWithout(unit: Metadevice, tree: Tree): Promise<'recorded' | 'unrecorded' | 'waits' | 'impossible'> {
    const { state, metadevices, readOnly } = this.#parts
    if (unit.kind !== 'mirror' && unit.kind !== 'raid5') return 'impossible'
    const used = metadevices.isOpen(unit.name) || (unit.kind === 'raid5' && this.#starts.isStarted(unit.name))
    if (used && !readOnly()) {
      const recorded = await this.#recordMissing(unit.name)
      if (recorded.ok && recorded.value) this.#parts.recorded(unit.name)
      return recorded.ok && state.tree !== tree ? 'recorded' : 'impossible'
    }
    if (!decideOpen(tree, unit.name, (c) => !this.isMissing(c), 0).ok) return 'impossible'
    return unit.kind === 'mirror' ? 'unrecorded' : 'waits'
  }

  /** What a column is copied to is away: it misses what is written from now on, also below its checkpoint. */
  #misses(unit: Metadevice): boolean {
    return unit.kind === 'raid5' && unit.copy !== null && unit.copy.done > 0 && this.isMissing(unit.copy.to)
  }

  /** Something that must be open and is not. */
  #goneFrom(unit: Metadevice, tree: Tree): Member | undefined {
    return inService(unit, tree).find((c) => this.isMissing(c) && isEssential(unit, c))
  }

  /** @returns whether that changed anything; then `recorded` is to be told. */
  async #recordMissing(name: UnitName): Promise<MetaResult<boolean>> {
    const { state, notice } = this.#parts
    const done = await state.change((tree) => decideOpen(tree, name, (c) => !this.isMissing(c), Date.now()))
    if (!done.ok) return done
    for (const n of done.value.value.notices) notice(n.level, n.text)
    return ok(done.value.before !== done.value.after)
  }

  /** A job that is asked for before the device is served without what is missing would find that it cannot be. */
  async #recordAndShow(name: UnitName): Promise<MetaResult<void>> {
    const recorded = await this.#recordMissing(name)
    if (!recorded.ok) return recorded
    await this.show(name)
    if (recorded.value) this.#parts.recorded(name)
    return ok(undefined)
  }

  #causeOf(c: Member): MetaError {
    return this.#missing.get(keyOf(c)) ?? metaError('unavailable', c.name)
  }

  /** Its storage is free when the last client has taken, or given up, what it was lent. */
  #later(name: UnitName, c: Member): void {
    setTimeout(() => {
      if (!this.#unserved.has(name)) return
      this.#missing.delete(keyOf(c))
      void this.show(name)
    }, BUSY_AGAIN_MS).unref()
  }

  async #refuse(name: UnitName, e: MetaError): Promise<boolean> {
    if (!this.#unserved.has(name))
      this.#parts.notice('warning', `md: ${name}: open error: ${e.object ?? ''} ${errorText(e)}`)
    this.#unserved.set(name, e)
    return this.#remove(name)
  }

  async #remove(name: UnitName): Promise<boolean> {
    const { engine, metadevices, resyncs, giveUp, log } = this.#parts
    const device = metadevices.exportOf(name)
    this.#shown.delete(name)
    if (device === undefined) return false
    giveUp(device)
    const notFlushed = (e: unknown): void => log.warn({ metadevice: name }, `not flushed: ${String(e)}`)
    // Whoever meant it to go has flushed it; here nobody is left who could decide about an error.
    if (this.#starts.isStarted(name)) await Promise.race([engine.flush(device).catch(notFlushed), sleep(LAST_FLUSH_MS)])
    giveUp(device)
    await resyncs.paused(name, () => metadevices.remove(name))
    this.#starts.forget(name)
    return true
  }
}
