/**
 * What the scheduler needs of the daemon for mirrors: which copy comes next, how the engine begins it, and what
 * its end means. A side becomes readable only by the commit that says it is in step, which is made only after
 * the engine said that all of it is on stable storage.
 */
import { err, ok } from '../base/result.js'
import { type Blocks, blocks } from '../base/units.js'
import type { DataPlane } from '../dataplane/types.js'
import {
  advance,
  componentAt,
  type MirrorEvent,
  type ResyncTarget,
  stateOf,
  stateOutcome,
  targetIdentity,
} from '../meta/mirrorstate.js'
import { finishGrowth, then, type Outcome, unchanged } from '../meta/operations.js'
import { nextResync } from '../meta/resyncs.js'
import type { Place } from '../meta/sources.js'
import { stripeComponents } from '../meta/sources.js'
import { stripeOf } from '../meta/tree.js'
import type { MirrorUnit, Tree, UnitName } from '../meta/types.js'
import { errorText, type MetaResult, metaError } from '../msg/errors.js'
import type { NoticeText } from '../msg/notices.js'
import type { ComponentId } from '../plan/types.js'
import type { End, Ending, Job as AnyJob, ResyncHost, Work as AnyWork } from '../resync/scheduler.js'
import type { Components } from './components.js'
import type { Config } from './config.js'
import type { Logger, Notice } from './log.js'
import type { Metadevices } from './metadevices.js'
import type { Serving } from './serving.js'
import { shownJob } from './shownjob.js'
import type { State } from './state.js'

type Job = AnyJob<ResyncTarget>
type Work = AnyWork<ResyncTarget>

export interface ResyncParts {
  readonly config: Config
  readonly state: State
  readonly engine: DataPlane
  readonly metadevices: Metadevices
  readonly components: Components
  readonly serving: Serving
  readonly log: Logger
  readonly notice: Notice
  readonly readOnly: () => boolean
  /** Its copies have ended: hot spares may be wanted, md.cf may be another. */
  readonly rested: (name: UnitName) => void
}

/** md_max_xfer_bufsz. */
const MAX_BUFFER_BLOCKS = 2048

interface Noted {
  readonly outcome: Outcome
  readonly notices: readonly NoticeText[]
}

/** One event of a mirror's state machine; one that does not fit is reported as the defect it is. */
export const mirrorEvent = (tree: Tree, name: UnitName, e: MirrorEvent): MetaResult<Noted> => {
  const m = tree.get(name)
  if (m?.kind !== 'mirror') return err(metaError('unitNotSetUp', name))
  const next = advance(stateOf(m, tree), e, Date.now())
  if (!next.ok) {
    const { event, slot, component, state } = next.error
    return err(metaError('submirrorState', `${name}: ${event} of ${slot ?? '-'}.${component ?? '-'} in ${state}`))
  }
  return ok({ outcome: stateOutcome(tree, next.value.state), notices: next.value.notices })
}

export class ResyncHosting implements ResyncHost<ResyncTarget> {
  readonly #parts: ResyncParts
  /** What metasync asked for, until the next metasync. */
  readonly #bufferBlocks = new Map<UnitName, number>()

  constructor(parts: ResyncParts) {
    this.#parts = parts
  }

  /** @param blocks 0 or null: the setting; at most 2048 count. From the next copy on. */
  setBuffer(mirror: UnitName, blocks: number | null): void {
    if (blocks === null || blocks === 0) this.#bufferBlocks.delete(mirror)
    else this.#bufferBlocks.set(mirror, Math.min(blocks, MAX_BUFFER_BLOCKS))
  }

  /** Blocks copied at a time for `name`. */
  bufferOf(name: UnitName): number {
    return this.#bufferBlocks.get(name) ?? this.#parts.config.resyncBufferBlocks
  }

  next(name: UnitName, tried: readonly Job['target'][]): Promise<Job | undefined> {
    const { state, metadevices, readOnly } = this.#parts
    const wanted = (): Job | undefined => {
      const m = state.tree.get(name)
      if (m?.kind !== 'mirror' || readOnly() || metadevices.deviceOf(name) === undefined) return undefined
      const plan = nextResync(m, state.tree, tried)
      return plan === null ? undefined : { ...plan, identity: this.#identity(m, plan.target) }
    }
    return shownJob(name, wanted, this.#parts)
  }

  start(name: UnitName, work: Work, number: number, from: Blocks): boolean {
    const { config, engine, metadevices, log } = this.#parts
    const device = metadevices.deviceOf(name)
    if (device === undefined) return false
    const common = {
      job: number,
      from,
      bufferBlocks: this.bufferOf(name),
      bytesPerSecond: config.resyncBytesPerSecond,
    }
    if (work.kind === 'verify') {
      engine.verify(device, { ...common, repair: work.repair })
      return true
    }
    const { target } = work.job
    log.info({ mirror: name, target, from }, 'resync begins')
    engine.resync(device, {
      ...common,
      // The engine knows which regions are left.
      from: target.kind === 'optimized' ? blocks(0) : from,
      target: target.slot,
      kind: target.kind,
      component: target.kind === 'component' ? this.#numberOf(name, target) : null,
      checkpointMillis: config.resyncCheckpointSeconds * 1000,
    })
    return true
  }

  cancel(name: UnitName): void {
    const device = this.#parts.metadevices.deviceOf(name)
    if (device !== undefined) this.#parts.engine.cancelResync(device)
  }

  checkpoint(name: UnitName, job: Job, done: Blocks): void {
    const record = async (): Promise<void> => {
      // The source too: what it was written before the log began is on no record.
      if (await this.#flushed(name)) await this.#record(name, job, { event: 'checkpoint', target: job.target, done })
    }
    record().catch((e: unknown) => this.broke(name, e))
  }

  async ended(name: UnitName, job: Job, end: End, ending: Ending): Promise<void> {
    const { target } = job
    const { done } = end
    switch (ending) {
      case 'stopped':
        if (await this.#flushed(name)) await this.#record(name, job, { event: 'checkpoint', target, done })
        return
      case 'cancelled': {
        // What may not be on stable storage is copied again.
        const kept = (await this.#flushed(name)) ? done : job.from
        await this.#record(name, job, { event: 'resyncEnd', target, result: 'cancelled', done: kept, failed: null })
        return
      }
      case 'done':
      case 'failed': {
        // What the source was written before the log began is on no record: it must be stable there as well.
        const whole = ending === 'done' && (await this.#flushed(name))
        await this.#record(name, job, {
          event: 'resyncEnd',
          target,
          result: whole ? 'done' : 'failed',
          done,
          failed: end.component === null ? null : this.#placeOf(name, end.component),
        })
      }
    }
  }

  broke(name: UnitName, e: unknown): void {
    this.#parts.log.error({ mirror: name, err: e }, 'resync broke off')
  }

  rested(name: UnitName): void {
    this.#parts.rested(name)
  }

  /** Nothing is recorded for a target that is not the same any more. */
  async #record(name: UnitName, job: Job, e: MirrorEvent): Promise<void> {
    const { state, serving, notice, log } = this.#parts
    const recorded = await state.change<Noted>((tree) => {
      const m = tree.get(name)
      // Decided otherwise meanwhile (its component failed, its side went): that decision stands.
      if (m?.kind !== 'mirror' || this.#identity(m, job.target, tree) !== job.identity)
        return ok({ outcome: unchanged(tree), notices: [] })
      const next = mirrorEvent(tree, name, e)
      if (!next.ok || e.event === 'checkpoint') return next
      const { outcome, notices } = next.value
      return ok({ outcome: then(outcome, finishGrowth(outcome.tree, name)), notices })
    })
    if (!recorded.ok) {
      log.error({ mirror: name, target: job.target }, `resync: ${e.event} not recorded: ${errorText(recorded.error)}`)
      return
    }
    if (e.event === 'resyncEnd') log.info({ mirror: name, target: job.target, done: e.done }, `resync ${e.result}`)
    for (const n of recorded.value.value.notices) notice(n.level, n.text)
    if (e.event !== 'checkpoint') await serving.follow(recorded.value.before, recorded.value.after)
  }

  async #flushed(name: UnitName): Promise<boolean> {
    const device = this.#parts.metadevices.deviceOf(name)
    if (device === undefined) return false
    try {
      await this.#parts.engine.flush(device)
      return true
    } catch (e) {
      this.#parts.log.warn({ mirror: name }, `not flushed: ${(e as Error).message}`)
      return false
    }
  }

  /** The storage, and since when it wants its copy: what stopped wanting it missed writes. */
  #identity(m: MirrorUnit, target: Job['target'], tree: Tree = this.#parts.state.tree): string {
    const state = stateOf(m, tree)
    const order = target.kind === 'component' ? componentAt(state, target)?.erredOrder : ''
    const side = m.submirrors.find((s) => s.slot === target.slot)
    return `${targetIdentity(state, target) ?? ''} ${order ?? ''} ${side?.unit ?? ''} ${side?.state ?? ''}`
  }

  #numberOf(name: UnitName, target: Extract<Job['target'], { kind: 'component' }>): ComponentId | null {
    const { state, components } = this.#parts
    const m = state.tree.get(name)
    const c = m?.kind === 'mirror' ? componentAt(stateOf(m, state.tree), target) : undefined
    return c === undefined ? null : components.numberOf(c)
  }

  #placeOf(name: UnitName, id: ComponentId): Place | null {
    const { state, components } = this.#parts
    const m = state.tree.get(name)
    if (m?.kind !== 'mirror') return null
    for (const s of m.submirrors) {
      const stripe = stripeOf(state.tree, s.unit)
      const component = stripe === null ? -1 : stripeComponents(stripe).findIndex((c) => components.isOf(id, c))
      if (component >= 0) return { slot: s.slot, component }
    }
    return null
  }
}
