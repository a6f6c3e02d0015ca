/** Reads of a simulated mirror: sources by the plan, write-after-read where sides may differ, repair of bad cells. */
import type { ComponentId, ComponentNode, MirrorNode, MirrorSide, Plan } from '../../../src/plan/types.js'
import type { SimDisk } from './disks.js'
import { mirrorOf, placeOf } from './layout.js'
import type { Answer, Op } from './device.js'
import type { Failed } from './mirror.js'
import type { Claim, Ranges } from './ranges.js'
import type { Schedule } from './schedule.js'
import { type Source, sourcesOf } from './sources.js'

/** What reads need of their mirror. */
export interface ReadPort {
  readonly schedule: Schedule
  readonly ranges: Ranges
  readonly cellBlocks: number
  plan(): Plan
  isStaleAt(side: MirrorSide, cell: number): boolean
  disk(component: ComponentId): SimDisk
  sync(component: ComponentId): boolean
  error(e: Failed): void
  repaired(component: ComponentId, cell: number): void
  begin(): void
  end(op: Op, answer: Answer): void
  park(op: Op, order: number): void
}

const cellsOf = (op: Op): readonly number[] => Array.from({ length: op.count }, (_, i) => op.first + i)

export class SimReads {
  readonly #port: ReadPort

  constructor(port: ReadPort) {
    this.#port = port
  }

  get #mirror(): MirrorNode {
    return mirrorOf(this.#port.plan())
  }

  sources(cell: number, not: ReadonlySet<SimDisk>): readonly Source[] {
    const { dice } = this.#port.schedule
    const stale = (side: MirrorSide): boolean => this.#port.isStaleAt(side, cell)
    return sourcesOf(
      this.#port.plan(),
      cell,
      this.#port.cellBlocks,
      stale,
      (component) => this.#port.disk(component),
      dice,
    ).filter((s) => !not.has(s.disk))
  }

  /** undefined: no source could be read; the last one that failed is reported with masked: false. */
  readCell(cell: number, not: ReadonlySet<SimDisk>, unread = new Set<SimDisk>()): number | undefined {
    const failed: Source[] = []
    for (const source of this.sources(cell, not)) {
      const value = source.disk.read(source.cell)
      if (value !== undefined) {
        for (const f of failed) {
          this.#port.error({ component: f.node.component, op: 'read', masked: true })
          this.#repair(cell, f)
        }
        return value
      }
      failed.push(source)
      unread.add(source.disk)
    }
    for (const f of failed) this.#port.error({ component: f.node.component, op: 'read', masked: false })
    return undefined
  }

  read(op: Op, order: number): void {
    const after = cellsOf(op).some((cell) =>
      this.#mirror.sides.some((s) => s.readable && this.#port.isStaleAt(s, cell)),
    )
    if (after) return this.#readAndWrite(op, order)
    this.#port.begin()
    const values: number[] = []
    let bad = false
    let left = op.count
    for (const cell of cellsOf(op))
      this.#port.schedule.later(() => {
        const value = this.readCell(cell, new Set())
        if (value === undefined) bad = true
        else values[cell - op.first] = value
        if (--left === 0) this.#port.end(op, bad ? { ok: false } : { ok: true, values })
      })
  }

  /** Where sides may differ since a crash, what one read has answered every later one must (driver.md 2.9). */
  #readAndWrite(op: Op, order: number): void {
    this.#port.begin()
    const claim: Claim = {
      first: op.first,
      count: op.count,
      start: () =>
        this.#port.schedule.later(() => {
          const unread = new Set<SimDisk>()
          const values = cellsOf(op).map((cell) => this.readCell(cell, new Set(), unread))
          const failed: ComponentNode[] = []
          const known = values.filter((v) => v !== undefined)
          if (known.length === op.count)
            for (const [i, value] of known.entries()) failed.push(...this.#writeOthers(op.first + i, value, unread))
          const kept = failed.some((n) => n.lastErred === 0)
          const good = known.length === op.count && failed.length === 0
          for (const n of new Set(failed)) this.#port.error({ component: n.component, op: 'write', masked: kept })
          if (kept) this.#port.park(op, order)
          this.#port.ranges.release(claim)
          if (!kept) this.#port.end(op, good ? { ok: true, values: known } : { ok: false })
        }),
    }
    this.#port.ranges.claim(claim)
  }

  /** What may differ, and what could not be read: if it can be the next time, it would be asked first. */
  #writeOthers(cell: number, value: number, unread: ReadonlySet<SimDisk>): readonly ComponentNode[] {
    return this.#mirror.sides.flatMap((side) => {
      const { node, cell: at } = placeOf(this.#port.plan(), side, cell, this.#port.cellBlocks)
      if (!side.writable || !node.writable) return []
      if (!this.#port.isStaleAt(side, cell) && !unread.has(this.#port.disk(node.component))) return []
      return this.#port.disk(node.component).write(at, value, this.#port.schedule.dice) ? [] : [node]
    })
  }

  #repair(cell: number, bad: Source): void {
    const { generation } = this.#port.plan()
    const claim: Claim = {
      first: cell,
      count: 1,
      start: () =>
        this.#port.schedule.later(() => {
          if (this.#port.plan().generation === generation) this.#rewrite(cell, bad)
          this.#port.ranges.release(claim)
        }),
    }
    this.#port.ranges.claim(claim)
  }

  #rewrite(cell: number, bad: Source): void {
    const good = this.sources(cell, new Set([bad.disk]))[0]
    const value = good?.disk.read(good.cell)
    const { component } = bad.node
    // Nothing is rewritten on what hangs: it would come late.
    if (value === undefined || bad.disk.hangs) return
    const { dice } = this.#port.schedule
    if (bad.disk.write(bad.cell, value, dice) && this.#port.sync(component) && bad.disk.read(bad.cell) === value) {
      this.#port.repaired(component, bad.cell)
    } else this.#port.error({ component, op: 'read', masked: true, repairFailed: true })
  }
}
