/**
 * What a simulated RAID5 device has on its columns and in memory, at the grain of cells; parity is the sum (XOR) of
 * the numbers in a line's cells. Everything is judged by the plan of the moment.
 */
import { blocks } from '../../../src/base/units.js'
import type { NativeEvent } from '../../../src/plan/events.js'
import type { ComponentId, ComponentNode, Plan, Raid5Node } from '../../../src/plan/types.js'
import type { Raid5Job } from '../../../src/dataplane/types.js'
import type { SimDisk } from './disks.js'
import type { Ledger } from './ledger.js'
import { cellsIn, columnsOf, parityOf, raid5Of, xor } from './raid5layout.js'
import type { Schedule } from './schedule.js'

export interface Raid5Host {
  readonly schedule: Schedule
  readonly cellBlocks: number
  readonly ledger: Ledger
  disk(component: ComponentId): SimDisk
  /** A plan that serves was put in place; `anew`: the first one of its epoch. */
  mounted(device: number, plan: Plan, anew: boolean): void
  refused(job: Raid5Job): void
  event(e: NativeEvent): void
}

export interface Dirty {
  readonly value: number
  /** Of the first write since it was clean. */
  readonly order: number
}

export type ColumnOp = 'read' | 'write' | 'flush'

export class Raid5Core {
  readonly device: number
  readonly host: Raid5Host
  plan: Plan
  /** Changes that are in memory alone, by cell of the device. */
  readonly dirty = new Map<number, Dirty>()
  /** By line and column: what a group is bringing there. */
  readonly pins = new Map<number, Map<number, number>>()
  /** Lines that a job or a repair has to itself. */
  readonly claimed = new Set<number>()
  readonly #syncFailed = new Set<ComponentId>()
  wantRepair: (line: number, column: number) => void = () => undefined

  constructor(device: number, plan: Plan, host: Raid5Host) {
    this.device = device
    this.plan = plan
    this.host = host
  }

  get node(): Raid5Node {
    return raid5Of(this.plan)
  }
  get cells(): number {
    return Math.min(cellsIn(this.node), Math.floor(this.node.blocks / this.host.cellBlocks))
  }
  /** Cells of a column before its data. */
  get prewrite(): number {
    return this.node.prewrite / this.host.cellBlocks
  }
  /** Also those that only wait to join. */
  get all(): readonly ComponentNode[] {
    return columnsOf(this.plan)
  }
  get columns(): readonly ComponentNode[] {
    return this.all.slice(0, this.node.serving)
  }
  get writable(): ReadonlySet<number> {
    return new Set(this.columns.flatMap((c, i) => (c.writable ? [i] : [])))
  }
  get readable(): ReadonlySet<number> {
    return new Set(this.columns.flatMap((c, i) => (c.readable ? [i] : [])))
  }
  /** What gets all that this column gets. */
  copyOf(index: number): number | null {
    const { copied, serving } = this.node
    return copied === index && this.all[serving]?.writable === true ? serving : null
  }
  get missing(): number {
    return this.columns.filter((c) => !c.readable).length
  }
  /** More is missing than parity makes up for, or could be soon: nothing is written. */
  get broken(): boolean {
    return this.missing > 1 || (this.missing === 1 && this.columns.some((c) => c.lastErred > 0))
  }

  parity(line: number): number {
    return parityOf(this.node, line)
  }
  column(index: number): ComponentNode {
    const node = this.all[index]
    if (node === undefined) throw new Error(`no column ${index}`)
    return node
  }
  disk(index: number): SimDisk {
    return this.host.disk(this.column(index).component)
  }
  /** Cell of the disk; counted from the beginning of the prewrite area. */
  at(index: number, cell: number): number {
    return this.column(index).start / this.host.cellBlocks + cell
  }
  place(index: number, line: number): number {
    return this.at(index, this.prewrite + line)
  }

  report(index: number, op: ColumnOp, cell: number, masked: boolean, repairFailed = false): void {
    const { component } = this.column(index)
    const { errno } = this.host.disk(component)
    this.host.event({
      kind: 'componentError',
      device: this.device,
      generation: this.plan.generation,
      component,
      op,
      block: blocks(op === 'flush' ? 0 : cell * this.host.cellBlocks),
      errno,
      masked,
      repairFailed,
    })
  }

  /** No sync of it has failed. */
  isTrusted(index: number): boolean {
    return !this.#syncFailed.has(this.column(index).component)
  }

  /** Of a disk that could not be synced nothing is believed any more, but that it hangs may pass. */
  sync(index: number): boolean {
    const { component } = this.column(index)
    const disk = this.host.disk(component)
    const good = !this.#syncFailed.has(component) && disk.sync()
    if (!good && !disk.hangs) this.#syncFailed.add(component)
    return good
  }

  /** What the column has there, or is about to get; undefined: it cannot be read, which is told of. */
  seen(line: number, index: number): number | undefined {
    const pinned = this.pins.get(line)?.get(index)
    if (pinned !== undefined) return pinned
    if (!this.column(index).readable) return undefined
    const cell = this.place(index, line)
    const value = this.disk(index).read(cell)
    if (value !== undefined) return value
    const others = this.columns.every((c, i) => i === index || c.readable)
    this.report(index, 'read', cell, others)
    this.wantRepair(line, index)
    return undefined
  }

  /** What belongs there, changes in memory apart; from the others when need be. */
  content(line: number, index: number): number | undefined {
    const own = this.seen(line, index)
    if (own !== undefined) return own
    const others = this.columns.flatMap((_, i) => (i === index ? [] : [this.seen(line, i)]))
    const known = others.filter((v) => v !== undefined)
    return known.length === others.length ? xor(known) : undefined
  }
}
