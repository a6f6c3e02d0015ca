/** Writes of a simulated mirror: regions on record, cells owned, then every side that is written, in any order. */
import type { ComponentId, ComponentNode, MirrorNode, Plan } from '../../../src/plan/types.js'
import type { SimDisk } from './disks.js'
import { mirrorOf, placeOf, regionsOf } from './layout.js'
import type { Answer, Op } from './device.js'
import type { Claim, Ranges } from './ranges.js'
import type { SimRegions } from './regions.js'
import type { Schedule } from './schedule.js'

/** What writes need of their mirror. */
export interface WritePort {
  readonly schedule: Schedule
  readonly ranges: Ranges
  readonly regions: SimRegions
  readonly cellBlocks: number
  plan(): Plan
  /** Nothing may begin. */
  isClosed(): boolean
  /** Failed requests wait for a verdict: what comes after them stays behind them. */
  isParking(): boolean
  disk(component: ComponentId): SimDisk
  writing(regions: readonly number[]): void
  begin(): void
  end(op: Op, answer: Answer): void
  sendBack(op: Op, order: number): void
  judge(op: Op, order: number, failed: readonly ComponentNode[], lost: boolean): void
}

export class SimWrites {
  readonly #port: WritePort

  constructor(port: WritePort) {
    this.#port = port
  }

  get #mirror(): MirrorNode {
    return mirrorOf(this.#port.plan())
  }

  #regions(op: Op): readonly number[] {
    const { regionBlocks } = this.#mirror
    return regionBlocks === 0 ? [] : regionsOf(op.first, op.count, this.#port.cellBlocks, regionBlocks)
  }

  write(op: Op, order: number): void {
    const port = this.#port
    if (port.plan().readOnly) return op.done({ ok: false })
    const regions = this.#regions(op)
    if (regions.length === 0) {
      port.begin()
      return this.#own(op, order, () => undefined)
    }
    port.regions.enter(regions, (ok) => {
      port.begin()
      // A hold or a new plan sends those that wait back; a mark that failed fails them.
      if (!ok) return port.isClosed() ? port.sendBack(op, order) : port.end(op, { ok: false })
      if (port.isClosed()) {
        port.regions.leave(regions)
        return port.sendBack(op, order)
      }
      this.#own(op, order, () => port.regions.leave(regions))
    })
  }

  #own(op: Op, order: number, left: () => void): void {
    const claim: Claim = {
      first: op.first,
      count: op.count,
      start: () => {
        const leave = (): void => {
          this.#port.ranges.release(claim)
          left()
        }
        // Behind one that is parked: its turn comes after it.
        if (this.#port.isParking()) {
          leave()
          return this.#port.sendBack(op, order)
        }
        this.#writeSides(op, order, leave)
      },
    }
    this.#port.ranges.claim(claim)
  }

  #writeSides(op: Op, order: number, leave: () => void): void {
    const port = this.#port
    const failed: ComponentNode[] = []
    const written = new Set<number>()
    const cells = Array.from({ length: op.count }, (_, i) => op.first + i)
    port.writing(this.#regions(op))
    const targets = cells.flatMap((cell) =>
      this.#mirror.sides.flatMap((side) => {
        const place = placeOf(port.plan(), side, cell, port.cellBlocks)
        return side.writable && place.node.writable ? [{ cell, place }] : []
      }),
    )
    let left = targets.length
    const end = (): void => {
      const lost = cells.some((cell) => !written.has(cell))
      // Parked before the claim goes, so that who waits for the cells comes after.
      const kept = failed.some((n) => n.lastErred === 0)
      if (kept) port.judge(op, order, failed, lost)
      leave()
      if (!kept) port.judge(op, order, failed, lost)
    }
    if (left === 0) return end()
    for (const { cell, place } of targets)
      port.schedule.later(() => {
        const { node } = place
        if (port.disk(node.component).write(place.cell, op.value, port.schedule.dice)) written.add(cell)
        else failed.push(node)
        if (--left === 0) end()
      })
  }
}
