/**
 * What the scheduler needs of the daemon for RAID5: which job comes next, how the engine begins it, and what its
 * end means. A column becomes readable, or part of the device, only by the commit that says so, which is made
 * after the engine said that all of it is on stable storage, and after its header is.
 */
import { ok } from '../base/result.js'
import type { Blocks } from '../base/units.js'
import type { DataPlane } from '../dataplane/types.js'
import { unchanged } from '../meta/operations.js'
import { columnsOf, nextRaid5Job, type Raid5Target, raid5TargetIdentity } from '../meta/raid5jobs.js'
import { raid5Event, type Raid5Event, type Raid5Noted } from '../meta/raid5state.js'
import { membersOf } from '../meta/raid5tables.js'
import type { Raid5Unit, UnitName } from '../meta/types.js'
import { errorText } from '../msg/errors.js'
import type { ComponentId } from '../plan/types.js'
import type { End, Ending, Job as AnyJob, ResyncHost, Work as AnyWork } from '../resync/scheduler.js'
import type { HostFiles } from '../sys/hostfiles.js'
import type { Components } from './components.js'
import type { Config } from './config.js'
import type { Logger, Notice } from './log.js'
import type { Metadevices } from './metadevices.js'
import { inStep, writeHeaders } from './raid5headers.js'
import type { Serving } from './serving.js'
import { shownJob } from './shownjob.js'
import type { State } from './state.js'

type Job = AnyJob<Raid5Target>
type Work = AnyWork<Raid5Target>

export interface Raid5JobParts {
  readonly config: Config
  readonly state: State
  readonly engine: Pick<DataPlane, 'raid5Job' | 'cancelResync'>
  readonly metadevices: Pick<Metadevices, 'deviceOf'>
  readonly components: Components
  readonly files: HostFiles
  readonly serving: Pick<Serving, 'open' | 'waits' | 'isMissing' | 'isPictured' | 'isShown' | 'show' | 'follow'>
  readonly log: Logger
  readonly notice: Notice
  readonly readOnly: () => boolean
  /** What metasync asked for, or the setting. */
  readonly bufferBlocks: (name: UnitName) => number
  readonly rested: (name: UnitName) => void
}

/** How the record is told of an end; nothing above `synced` is claimed of a column that is not whole. */
const endOf = (
  t: Raid5Target,
  result: 'done' | 'failed' | 'cancelled',
  synced: Blocks,
  failed: number | null,
): Raid5Event => {
  switch (t.kind) {
    case 'initialise':
      return { event: 'initEnd', columns: t.columns, result, failed }
    case 'regenerate':
      return { event: 'resyncEnd', column: t.column, result, done: synced, failed }
    case 'copy':
      return { event: 'copyEnd', column: t.column, result, failed }
    case 'parity':
      return { event: 'regenEnd', result }
  }
}

export class Raid5Hosting implements ResyncHost<Raid5Target> {
  readonly #parts: Raid5JobParts
  /** How far the job that runs is on stable storage. */
  readonly #synced = new Map<UnitName, Blocks>()

  constructor(parts: Raid5JobParts) {
    this.#parts = parts
  }

  next(name: UnitName, tried: readonly Raid5Target[]): Promise<Job | undefined> {
    const { state, metadevices, serving, readOnly } = this.#parts
    const wanted = (): Job | undefined => {
      const u = state.tree.get(name)
      if (u?.kind !== 'raid5' || readOnly() || metadevices.deviceOf(name) === undefined) return undefined
      const plan = nextRaid5Job(u, tried, (c) => serving.isMissing(c))
      return plan === null ? undefined : { ...plan, identity: raid5TargetIdentity(u, plan.target) }
    }
    return shownJob(name, wanted, this.#parts)
  }

  start(name: UnitName, work: Work, number: number, from: Blocks): boolean {
    const { config, engine, metadevices, log, bufferBlocks } = this.#parts
    const device = metadevices.deviceOf(name)
    if (device === undefined) return false
    const target: Raid5Target = work.kind === 'verify' ? { kind: 'parity' } : work.job.target
    if (work.kind === 'copy') {
      this.#synced.set(name, work.job.from)
      log.info({ metadevice: name, target, from }, 'job begins')
    }
    engine.raid5Job(device, {
      job: number,
      kind: target.kind,
      columns: columnsOf(target),
      repair: target.kind === 'parity' && (work.kind === 'copy' || work.repair),
      from,
      bufferBlocks: bufferBlocks(name),
      bytesPerSecond: config.resyncBytesPerSecond,
      checkpointMillis: config.resyncCheckpointSeconds * 1000,
    })
    return true
  }

  cancel(name: UnitName): void {
    const device = this.#parts.metadevices.deviceOf(name)
    if (device !== undefined) this.#parts.engine.cancelResync(device)
  }

  /** Zeroes and parity begin anew after a restart, so where they were need not be known. */
  checkpoint(name: UnitName, job: Job, done: Blocks): void {
    this.#synced.set(name, done)
    const { target } = job
    if (target.kind !== 'regenerate' && target.kind !== 'copy') return
    this.#record(name, job, { event: 'checkpoint', column: target.column, done }).catch((e: unknown) =>
      this.broke(name, e),
    )
  }

  async ended(name: UnitName, job: Job, end: End, ending: Ending): Promise<void> {
    // It goes on from the last checkpoint.
    if (ending === 'stopped') return
    const { target } = job
    const synced = this.#synced.get(name) ?? job.from
    this.#synced.delete(name)
    const without = ending === 'done' ? await this.#headers(name, job) : null
    const failed = without ?? (end.component === null ? null : this.#columnOf(name, end.component))
    const result = without === null ? ending : 'failed'
    await this.#record(name, job, endOf(target, result, synced, failed))
    this.#parts.log.info({ metadevice: name, target, errno: end.errno }, `job ${result}`)
  }

  broke(name: UnitName, e: unknown): void {
    this.#parts.log.error({ metadevice: name, err: e }, 'job broke off')
  }

  rested(name: UnitName): void {
    this.#parts.rested(name)
  }

  /** Nothing is recorded for a target that is not the same any more. */
  async #record(name: UnitName, job: Job, e: Raid5Event): Promise<void> {
    const { state, serving, notice, log } = this.#parts
    const recorded = await state.change<Raid5Noted>((tree) => {
      const u = tree.get(name)
      // Decided otherwise meanwhile (it failed, it was replaced): that decision stands.
      if (u?.kind !== 'raid5' || raid5TargetIdentity(u, job.target) !== job.identity)
        return ok({ outcome: unchanged(tree), notices: [] })
      return raid5Event(tree, name, e, Date.now())
    })
    if (!recorded.ok) {
      log.error({ metadevice: name, target: job.target }, `${e.event} not recorded: ${errorText(recorded.error)}`)
      return
    }
    for (const n of recorded.value.value.notices) notice(n.level, n.text)
    if (e.event !== 'checkpoint') await serving.follow(recorded.value.before, recorded.value.after)
  }

  /**
   * What the columns are known by, should somebody assemble them again.
   * @returns a column that has none: it failed like one that cannot be written, and is never tried for ever.
   */
  async #headers(name: UnitName, job: Job): Promise<number | null> {
    const { target } = job
    if (target.kind === 'parity') return null
    const { state } = this.#parts
    // They say what the device will be: with columns that join all of them have another header.
    const next = raid5Event(state.tree, name, endOf(target, 'done', job.from, null), Date.now())
    const u = next.ok ? next.value.outcome.tree.get(name) : undefined
    // Decided otherwise meanwhile: #record says so.
    return u?.kind === 'raid5' ? this.#unwritten(u, target) : null
  }

  async #unwritten(u: Raid5Unit, target: Exclude<Raid5Target, { kind: 'parity' }>): Promise<number | null> {
    const { components, config, files, log } = this.#parts
    const limitSeconds = config.componentTimeoutSeconds
    const columns = columnsOf(target)
    const inService = target.kind !== 'initialise'
    for (const column of columns) {
      const done = await writeHeaders(u, [column], components, { limitSeconds, inService, files })
      if (done.ok) continue
      log.warn({ metadevice: u.name }, `header not written: ${errorText(done.error)}`)
      return column
    }
    // The others' are as new, else one of them looked as if it had fallen behind. The next start tries again.
    const others = inStep(u).filter((i) => !columns.includes(i))
    const rest = await writeHeaders(u, others, components, { limitSeconds, inService: true, files })
    if (!rest.ok) log.warn({ metadevice: u.name }, `header not written: ${errorText(rest.error)}`)
    return null
  }

  #columnOf(name: UnitName, id: ComponentId): number | null {
    const { state, components } = this.#parts
    const u = state.tree.get(name)
    const column = u?.kind === 'raid5' ? membersOf(u).findIndex((c) => components.isOf(id, c)) : -1
    return column < 0 ? null : column
  }
}
