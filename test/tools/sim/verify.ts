/**
 * Comparisons of a simulated mirror's sides, window by window; each window is owned meanwhile. With repair the first
 * side in slot order is right.
 */
import { type Blocks, blocks } from '../../../src/base/units.js'
import type { VerifyJob } from '../../../src/dataplane/types.js'
import type { NativeEvent } from '../../../src/plan/events.js'
import type { ComponentId, ComponentNode } from '../../../src/plan/types.js'
import type { SimDisk } from './disks.js'
import type { Claim, Ranges } from './ranges.js'
import type { Schedule } from './schedule.js'

export interface SideCell {
  readonly node: ComponentNode
  readonly disk: SimDisk
  readonly cell: number
}

export interface VerifyPort {
  readonly schedule: Schedule
  readonly ranges: Ranges
  readonly cellBlocks: number
  cells(): number
  /** Of the sides that may be read there, in slot order. */
  readable(cell: number): readonly SideCell[]
  sync(component: ComponentId): boolean
  failed(component: ComponentId, op: 'read' | 'write' | 'flush'): void
  event(e: NativeEvent): void
  /** Nothing runs any more. */
  ended(): void
}

interface Running {
  readonly job: VerifyJob
  at: number
  mismatches: number
  readonly written: Set<ComponentId>
  cancelled: boolean
}

const EIO = 5
const WINDOW_CELLS = 8

export class SimVerify {
  readonly #device: number
  readonly #port: VerifyPort
  #running: Running | null = null

  constructor(device: number, port: VerifyPort) {
    this.#device = device
    this.#port = port
  }

  get running(): boolean {
    return this.#running !== null
  }

  start(job: VerifyJob): void {
    const at = Math.ceil(job.from / this.#port.cellBlocks)
    this.#running = { job, at, mismatches: 0, written: new Set(), cancelled: false }
    this.#nextWindow(this.#running)
  }

  refuse(job: VerifyJob): void {
    this.#ended({ job, at: 0, mismatches: 0, written: new Set(), cancelled: false }, 'failed', null)
  }

  cancel(): void {
    if (this.#running !== null) this.#running.cancelled = true
  }

  #nextWindow(run: Running): void {
    if (run.cancelled) return this.#finish(run, 'cancelled', null)
    const count = Math.min(WINDOW_CELLS, this.#port.cells() - run.at)
    if (count <= 0) return this.#finishCompared(run)
    const claim: Claim = {
      first: run.at,
      count,
      start: () =>
        this.#port.schedule.later(() => {
          const lost = this.#window(run, count)
          this.#port.ranges.release(claim)
          if (lost !== null) return this.#finish(run, 'failed', lost)
          this.#port.schedule.later(() => this.#nextWindow(run))
        }),
    }
    this.#port.ranges.claim(claim)
  }

  /** @returns the component that could not be rewritten */
  #window(run: Running, count: number): ComponentId | null {
    for (let i = 0; i < count; i++, run.at++) {
      const [right, ...others] = this.#read(run.at)
      const differing = others.filter((o) => o.value !== right?.value)
      if (right === undefined || differing.length === 0) continue
      const { cellBlocks } = this.#port
      run.mismatches += cellBlocks
      this.#port.event({
        kind: 'verifyMismatch',
        device: this.#device,
        job: run.job.job,
        block: blocks(run.at * cellBlocks),
        blocks: blocks(cellBlocks),
      })
      if (!run.job.repair) continue
      for (const { at } of differing) {
        const { component } = at.node
        run.written.add(component)
        if (at.disk.write(at.cell, right.value, this.#port.schedule.dice)) continue
        this.#port.failed(component, 'write')
        return component
      }
    }
    return null
  }

  /** What could be read; no other side is asked for one that could not. */
  #read(cell: number): readonly { readonly at: SideCell; readonly value: number }[] {
    return this.#port.readable(cell).flatMap((at) => {
      const value = at.disk.read(at.cell)
      if (value !== undefined) return [{ at, value }]
      this.#port.failed(at.node.component, 'read')
      return []
    })
  }

  #finishCompared(run: Running): void {
    this.#port.schedule.later(() => {
      for (const component of run.written) {
        if (this.#port.sync(component)) continue
        this.#port.failed(component, 'flush')
        return this.#finish(run, 'failed', component)
      }
      this.#finish(run, run.cancelled ? 'cancelled' : 'done', null)
    })
  }

  #finish(run: Running, outcome: 'done' | 'cancelled' | 'failed', component: ComponentId | null): void {
    this.#running = null
    this.#ended(run, outcome, component)
    this.#port.ended()
  }

  #ended(run: Running, outcome: 'done' | 'cancelled' | 'failed', component: ComponentId | null): void {
    const done: Blocks = blocks(run.at * this.#port.cellBlocks)
    this.#port.event({
      kind: 'resyncEnded',
      device: this.#device,
      job: run.job.job,
      outcome,
      errno: outcome === 'failed' ? EIO : 0,
      done,
      component,
      mismatches: run.mismatches,
    })
  }
}
