/**
 * Copies of a simulated mirror: whole sides, stale regions, single components. Each window is owned while it
 * is copied, so no write gets between its read and its write.
 */
import type { ResyncJob } from '../../../src/dataplane/types.js'
import type { NativeEvent } from '../../../src/plan/events.js'
import type { ComponentId, MirrorNode, MirrorSide, Plan } from '../../../src/plan/types.js'
import { type Blocks, blocks } from '../../../src/base/units.js'
import type { SimDisk } from './disks.js'
import { componentsOfSide, mirrorOf, placeOf } from './layout.js'
import type { Claim, Ranges } from './ranges.js'
import type { Schedule } from './schedule.js'

export interface CopyPort {
  readonly schedule: Schedule
  readonly ranges: Ranges
  readonly cellBlocks: number
  /** Dirty when the device came to be. */
  loaded(): ReadonlySet<number>
  copying(job: ResyncJob): void
  /** The plan has no such target: nobody may ask for that. */
  refused(job: ResyncJob): void
  plan(): Plan
  cells(): number
  stale(slot: number): Set<number> | undefined
  disk(component: ComponentId): SimDisk
  bestSource(cell: number): SimDisk | undefined
  read(cell: number, not: SimDisk): number | undefined
  sync(component: ComponentId): boolean
  failed(component: ComponentId, op: 'write' | 'flush'): void
  event(e: NativeEvent): void
  /** Nothing runs any more. */
  ended(): void
}

type Job = ResyncJob & { readonly cells: readonly number[]; at: number; cancelled: boolean }
type Failure = { readonly component: ComponentId | null } | null

const EIO = 5
const WINDOW_CELLS = 6
/** Of a window's end. */
const CHECKPOINT_PERCENT = 15

export class SimCopy {
  readonly #device: number
  readonly #port: CopyPort
  #job: Job | null = null

  constructor(device: number, port: CopyPort) {
    this.#device = device
    this.#port = port
  }

  get running(): boolean {
    return this.#job !== null
  }
  get #mirror(): MirrorNode {
    return mirrorOf(this.#port.plan())
  }

  start(job: ResyncJob): void {
    const side = this.#mirror.sides.find((s) => s.slot === job.target)
    if (this.#job !== null || side?.writable !== true || !this.#canCopy(job, side)) return this.refuse(job)
    this.#port.copying(job)
    this.#job = { ...job, cells: this.#jobCells(job, side), at: 0, cancelled: false }
    this.#nextWindow(this.#job, side)
  }

  #canCopy(job: ResyncJob, side: MirrorSide): boolean {
    if (job.kind === 'optimized') return side.stale
    if (job.kind === 'full') return true
    return componentsOfSide(this.#port.plan(), side).some((n) => n.writable && n.component === job.component)
  }

  refuse(job: ResyncJob): void {
    this.#port.refused(job)
    this.#ended(job, 'failed', 0, null)
  }

  cancel(): void {
    if (this.#job !== null) this.#job.cancelled = true
  }

  #jobCells(job: ResyncJob, side: MirrorSide): number[] {
    const { regionBlocks } = this.#mirror
    const all = Array.from({ length: this.#port.cells() }, (_, i) => i)
    const { cellBlocks } = this.#port
    const region = (cell: number): number => Math.floor((cell * cellBlocks) / Math.max(regionBlocks, 1))
    // Below `from` only what a crash may have interrupted.
    const wanted = (c: number): boolean =>
      c * cellBlocks >= job.from || (regionBlocks > 0 && this.#port.loaded().has(region(c)))
    switch (job.kind) {
      case 'full':
        return all.filter(wanted)
      case 'optimized':
        return all.filter((c) => this.#port.stale(job.target)?.has(region(c)) === true)
      case 'component':
        return all.filter(
          (c) => wanted(c) && placeOf(this.#port.plan(), side, c, cellBlocks).node.component === job.component,
        )
    }
  }

  /** Neighbours at `at` that are copied under one claim. */
  #windowAt(job: Job): readonly number[] {
    const [first, ...rest] = job.cells.slice(job.at, job.at + WINDOW_CELLS)
    if (first === undefined) return []
    const run = rest.findIndex((cell, i) => cell !== first + i + 1)
    return [first, ...(run < 0 ? rest : rest.slice(0, run))]
  }

  #nextWindow(job: Job, side: MirrorSide): void {
    const cells = this.#windowAt(job)
    const [first] = cells
    if (job.cancelled) return this.#finish(job, 'cancelled', null)
    if (first === undefined) return this.#finishCopied(job, side)
    const claim: Claim = {
      first,
      count: cells.length,
      start: () =>
        this.#port.schedule.later(() => {
          let failed: Failure = null
          for (const cell of cells) {
            failed ??= this.#copy(cell, side)
            if (failed !== null) break
            this.#copied(job, cell)
            job.at++
          }
          this.#port.ranges.release(claim)
          if (failed !== null) return this.#finish(job, 'failed', failed.component)
          this.#checkpoint(job, side)
          this.#port.schedule.later(() => this.#nextWindow(job, side))
        }),
    }
    this.#port.ranges.claim(claim)
  }

  /** Now and then; what is told is on the target's stable storage. */
  #checkpoint(job: Job, side: MirrorSide): void {
    const next = job.cells[job.at]
    if (job.checkpointMillis === 0 || next === undefined || !this.#port.schedule.dice.chance(CHECKPOINT_PERCENT)) return
    const stable = componentsOfSide(this.#port.plan(), side).every((n) => !n.writable || this.#port.sync(n.component))
    const done = blocks(next * this.#port.cellBlocks)
    if (stable && done >= job.from)
      this.#port.event({ kind: 'resyncCheckpoint', device: this.#device, job: job.job, done })
  }

  /** @returns what went wrong; null when nothing did. */
  #copy(cell: number, side: MirrorSide): Failure {
    const target = placeOf(this.#port.plan(), side, cell, this.#port.cellBlocks)
    if (!target.node.writable) return null
    const own = this.#port.disk(target.node.component)
    // The best source is the target: nobody knows better.
    if (this.#port.bestSource(cell) === own) return null
    const value = this.#port.read(cell, own)
    if (value === undefined) return { component: null }
    if (own.write(target.cell, value, this.#port.schedule.dice)) return null
    this.#port.failed(target.node.component, 'write')
    return { component: target.node.component }
  }

  /** Under the claim: a region of the stale ones is whole when its last cell is copied. */
  #copied(job: Job, cell: number): void {
    if (job.kind !== 'optimized') return
    const region = (c: number): number => Math.floor((c * this.#port.cellBlocks) / this.#mirror.regionBlocks)
    const next = job.cells[job.at + 1]
    if (next === undefined || region(next) !== region(cell)) this.#port.stale(job.target)?.delete(region(cell))
  }

  #finishCopied(job: Job, side: MirrorSide): void {
    this.#port.schedule.later(() => {
      for (const node of componentsOfSide(this.#port.plan(), side)) {
        if (!node.writable || this.#port.sync(node.component)) continue
        this.#port.failed(node.component, 'flush')
        return this.#finish(job, 'failed', node.component)
      }
      this.#finish(job, job.cancelled ? 'cancelled' : 'done', null)
    })
  }

  #finish(job: Job, outcome: 'done' | 'cancelled' | 'failed', component: ComponentId | null): void {
    this.#job = null
    const next = job.cells[job.at]
    const done: Blocks = next === undefined ? this.#mirror.blocks : blocks(next * this.#port.cellBlocks)
    this.#ended(job, outcome, done, component)
    this.#port.ended()
  }

  #ended(job: ResyncJob, outcome: 'done' | 'cancelled' | 'failed', done: number, component: ComponentId | null): void {
    this.#port.event({
      kind: 'resyncEnded',
      device: this.#device,
      job: job.job,
      outcome,
      errno: outcome === 'failed' ? EIO : 0,
      done: blocks(done),
      component,
      mismatches: 0,
    })
  }
}
