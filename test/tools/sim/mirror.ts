/**
 * A simulated mirror: what native/md does, at the grain of cells, with every order left to chance.
 *
 * Invariants, as in the contract of docs/native-boundary.md: a write is on no side before its regions
 * are recorded; a write that failed on a component which is not Last Erred is answered only after
 * settle(); cells are read only where the plan and the stale regions allow it.
 */
import type { ResyncJob, VerifyJob } from '../../../src/dataplane/types.js'
import type { NativeEvent } from '../../../src/plan/events.js'
import type { ComponentId, ComponentNode, MirrorNode, MirrorSide, Plan } from '../../../src/plan/types.js'
import { blocks } from '../../../src/base/units.js'
import { type CopyPort, SimCopy } from './copy.js'
import type { Answer, Op, SimDevice } from './device.js'
import type { SimDisk } from './disks.js'
import { componentsOfSide, mirrorOf, type Place, placeOf } from './layout.js'
import { Ranges } from './ranges.js'
import { SimRegions } from './regions.js'
import type { Schedule } from './schedule.js'
import { type ReadPort, SimReads } from './reads.js'
import { SimVerify, type VerifyPort } from './verify.js'
import { SimWrites, type WritePort } from './writes.js'

interface Ordered {
  readonly op: Op
  readonly order: number
}

export interface MirrorHost {
  readonly schedule: Schedule
  readonly cellBlocks: number
  disk(component: ComponentId): SimDisk
  /** A write is about to reach the sides: its regions are dirty on stable storage, or a promise is broken. */
  writing(device: number, regions: readonly number[], regionBlocks: number): void
  /** A copy begins. */
  copying(job: ResyncJob, loaded: ReadonlySet<number>): void
  refused(job: ResyncJob): void
  event(e: NativeEvent): void
}

type ErrorEvent = Extract<NativeEvent, { readonly kind: 'componentError' }>
export type Failed = Pick<ErrorEvent, 'component' | 'op' | 'masked'> & { readonly repairFailed?: boolean }

export class SimMirror implements SimDevice {
  readonly device: number
  plan: Plan
  readonly regions: SimRegions
  readonly #host: MirrorHost
  readonly #ranges = new Ranges()
  readonly #stale = new Map<number, Set<number>>()
  #loaded: ReadonlySet<number>
  readonly #syncFailed = new Set<ComponentId>()
  /** Failed, and kept until a verdict. */
  #parked: Ordered[] = []
  /** Came while the gate was closed, or was sent back before anything of it was done. */
  #gated: Ordered[] = []
  #hold: number | null = null
  #holds = 0
  #orders = 0
  #busy = 0
  #handingBack = false
  /** A write failed half way and was answered: nothing is cleaned any more. */
  #unequal = false
  readonly #reads: SimReads
  readonly #writes: SimWrites
  readonly #copy: SimCopy
  readonly #verify: SimVerify
  #install: { readonly plan: Plan; readonly done: () => void } | null = null
  #removed: (() => void) | null = null

  constructor(device: number, plan: Plan, dirty: ReadonlySet<number>, host: MirrorHost) {
    this.device = device
    this.plan = plan
    this.#host = host
    this.#loaded = new Set(dirty)
    this.regions = new SimRegions(dirty, {
      dirty: (ticket, regions) =>
        host.event({ kind: 'regionsDirty', device, ticket, regionBlocks: this.mirror.regionBlocks, regions }),
      idle: (ticket, regions) =>
        host.event({ kind: 'regionsIdle', device, ticket, regionBlocks: this.mirror.regionBlocks, regions }),
    })
    this.#reads = new SimReads(this.#readPort())
    this.#writes = new SimWrites(this.#writePort())
    this.#copy = new SimCopy(device, this.#port())
    this.#verify = new SimVerify(device, this.#verifyPort())
    this.#mount(plan)
  }

  get mirror(): MirrorNode {
    return mirrorOf(this.plan)
  }
  get cells(): number {
    return Math.floor(this.mirror.blocks / this.#host.cellBlocks)
  }
  get idle(): boolean {
    return this.#busy === 0 && this.#hold === null && this.#parked.length === 0 && this.#gated.length === 0
  }
  /** Sides may differ where a write failed, until the next start makes them equal. */
  get unequal(): boolean {
    return this.#unequal
  }
  get resyncing(): boolean {
    return this.#copy.running || this.#verify.running
  }

  // ---- plans

  install(plan: Plan): Promise<void> {
    return new Promise((done) => {
      this.cancel()
      this.#install = { plan, done }
      this.#settleDown()
    })
  }

  #place(side: MirrorSide, cell: number): Place {
    return placeOf(this.plan, side, cell, this.#host.cellBlocks)
  }
  #region(cell: number): number {
    return Math.floor((cell * this.#host.cellBlocks) / this.mirror.regionBlocks)
  }

  /** Larger regions are dirty or stale as soon as a part of them is. */
  #fold(factor: number): void {
    this.regions.fold(factor)
    for (const stale of this.#stale.values()) {
      const old = [...stale]
      stale.clear()
      for (const r of old) stale.add(Math.floor(r / factor))
    }
    this.#loaded = new Set([...this.#loaded].map((r) => Math.floor(r / factor)))
  }

  #mount(plan: Plan): void {
    const before = this.mirror.regionBlocks
    this.plan = plan
    const after = this.mirror.regionBlocks
    if (before > 0 && after > before) this.#fold(after / before)
    // The log ended with the second side, and begins anew with the next one.
    if (this.mirror.regionBlocks === 0) this.regions.dirty.clear()
    for (const side of this.mirror.sides) {
      if (!side.stale) this.#stale.delete(side.slot)
      else if (!this.#stale.has(side.slot)) this.#stale.set(side.slot, new Set(this.regions.dirty))
    }
  }

  /** Resolves when what was in flight is answered; the rest never will be. */
  remove(): Promise<void> {
    return new Promise((done) => {
      this.cancel()
      this.#removed = done
      this.#settleDown()
    })
  }

  get #closed(): boolean {
    return this.#hold !== null || this.#parked.length > 0 || this.#install !== null || this.#removed !== null
  }

  #handBack(): void {
    this.#handingBack = true
    this.regions.takeWaiting()
    this.#handingBack = false
  }

  #finishRemoval(removed: () => void): void {
    this.#handBack()
    for (const { op } of [...this.#parked.splice(0), ...this.#gated.splice(0)]) op.done({ ok: false, gone: true })
    removed()
  }

  /** Whatever waited for nothing to be in flight. */
  #settleDown(): void {
    if (this.#busy > 0 || this.#handingBack) return
    if (this.#removed !== null) return this.#finishRemoval(this.#removed)
    if (this.#parked.length > 0 && this.#hold === null) {
      this.#hold = ++this.#holds
      // What waits is sent back, and with nothing else to wait for the next plan comes.
      const { generation } = this.plan
      this.regions.takeWaiting()
      this.#host.event({ kind: 'held', device: this.device, generation, hold: this.#hold })
    }
    if (this.#install === null || this.resyncing) return
    const { plan, done } = this.#install
    this.#handBack()
    // Tickets are numbered by the old regions.
    if (mirrorOf(plan).regionBlocks !== this.mirror.regionBlocks && this.regions.ticketOut) return
    this.#install = null
    this.#mount(plan)
    done()
    this.#open()
  }

  #open(): void {
    this.#gated.sort((a, b) => a.order - b.order)
    while (!this.#closed) {
      const next = this.#gated.shift()
      if (next === undefined) return
      this.#start(next.op, next.order)
    }
  }

  settle(hold: number, verdict: 'resume' | 'fail'): void {
    if (hold !== this.#hold) return
    this.#hold = null
    const parked = this.#parked.splice(0)
    if (verdict === 'resume') this.#gated.push(...parked)
    else {
      this.#unequal = true
      for (const p of parked) p.op.done({ ok: false })
    }
    this.#open()
    this.#settleDown()
  }

  marked(ticket: number, ok: boolean): void {
    this.regions.marked(ticket, ok)
    this.#settleDown()
  }

  // ---- requests

  submit(op: Op): void {
    const order = this.#orders++
    if (this.#closed) this.#gated.push({ op, order })
    else this.#start(op, order)
  }

  #start(op: Op, order: number): void {
    switch (op.kind) {
      case 'read':
        return this.#reads.read(op, order)
      case 'write':
        return this.#writes.write(op, order)
      case 'flush':
        return this.#flush(op, order)
    }
  }

  #end(op: Op, answer: Answer): void {
    this.#busy--
    op.done(answer)
    this.#settleDown()
  }

  #park(op: Op, order: number): void {
    this.#parked.push({ op, order })
    this.#busy--
    this.#settleDown()
  }

  #sendBack(op: Op, order: number): void {
    this.#gated.push({ op, order })
    this.#busy--
    this.#settleDown()
  }

  /** Errors of one request: it is kept when a component that could still be given up is among them. */
  #judge(op: Op, order: number, failed: readonly ComponentNode[], what: 'write' | 'flush', lost: boolean): void {
    const kept = failed.some((n) => n.lastErred === 0)
    for (const n of new Set(failed))
      this.#error({ component: n.component, op: what, masked: kept && n.lastErred === 0 })
    const bad = failed.length > 0 || lost
    if (!kept && bad && what === 'write') this.#unequal = true
    if (kept) this.#park(op, order)
    else this.#end(op, bad ? { ok: false } : { ok: true, values: [] })
  }

  #error(e: Failed): void {
    this.#host.event({
      kind: 'componentError',
      device: this.device,
      generation: this.plan.generation,
      block: blocks(0),
      errno: this.#host.disk(e.component).errno,
      repairFailed: false,
      ...e,
    })
  }

  #flush(op: Op, order: number): void {
    this.#busy++
    const nodes = new Map<ComponentId, ComponentNode>()
    for (const side of this.mirror.sides)
      if (side.writable) for (const n of componentsOfSide(this.plan, side)) if (n.writable) nodes.set(n.component, n)
    const failed: ComponentNode[] = []
    let left = nodes.size
    if (left === 0) return this.#end(op, { ok: false })
    for (const node of nodes.values())
      this.#host.schedule.later(() => {
        if (!this.#sync(node.component)) failed.push(node)
        if (--left === 0) this.#judge(op, order, failed, 'flush', false)
      })
  }

  /** Of a disk that could not be synced nothing is believed any more, but that it hangs may pass. */
  #sync(component: ComponentId): boolean {
    const disk = this.#host.disk(component)
    const good = !this.#syncFailed.has(component) && disk.sync()
    if (!good && !disk.hangs) this.#syncFailed.add(component)
    return good
  }

  isStaleAt(side: MirrorSide, cell: number): boolean {
    const { regionBlocks } = this.mirror
    return side.stale && regionBlocks > 0 && this.#stale.get(side.slot)?.has(this.#region(cell)) === true
  }

  #writePort(): WritePort {
    return {
      schedule: this.#host.schedule,
      ranges: this.#ranges,
      regions: this.regions,
      cellBlocks: this.#host.cellBlocks,
      plan: () => this.plan,
      isClosed: () => this.#closed,
      isParking: () => this.#parked.length > 0,
      disk: (component) => this.#host.disk(component),
      writing: (regions) => this.#host.writing(this.device, regions, this.mirror.regionBlocks),
      begin: () => this.#busy++,
      end: (op, answer) => this.#end(op, answer),
      sendBack: (op, order) => this.#sendBack(op, order),
      judge: (op, order, failed, lost) => this.#judge(op, order, failed, 'write', lost),
    }
  }

  #readPort(): ReadPort {
    return {
      schedule: this.#host.schedule,
      ranges: this.#ranges,
      cellBlocks: this.#host.cellBlocks,
      plan: () => this.plan,
      isStaleAt: (side, cell) => this.isStaleAt(side, cell),
      disk: (component) => this.#host.disk(component),
      sync: (component) => this.#sync(component),
      error: (e) => this.#error(e),
      repaired: (component, cell) =>
        this.#host.event({
          kind: 'componentRepaired',
          device: this.device,
          generation: this.plan.generation,
          component,
          block: blocks(cell * this.#host.cellBlocks),
          blocks: blocks(this.#host.cellBlocks),
        }),
      begin: () => this.#busy++,
      end: (op, answer) => this.#end(op, answer),
      park: (op, order) => this.#park(op, order),
    }
  }

  // ---- cleaning

  /** One visit of the cleaner. Nothing is cleaned while a side is not fully in step. */
  sweep(): void {
    const inStep = this.mirror.sides.every(
      (s) => s.readable && !s.stale && componentsOfSide(this.plan, s).every((n) => n.readable),
    )
    if (!inStep || this.#unequal || this.#closed || this.mirror.regionBlocks === 0) return
    const idle = this.regions.sweep()
    if (idle.length === 0) return
    const { generation } = this.plan
    const all = new Set(this.mirror.sides.flatMap((s) => componentsOfSide(this.plan, s).map((n) => n.component)))
    this.#host.schedule.later(() => {
      if (this.plan.generation !== generation || this.#closed || this.#unequal) return
      const good = [...all].every((component) => {
        const synced = this.#sync(component)
        if (!synced) this.#error({ component, op: 'flush', masked: true })
        return synced
      })
      if (good) this.regions.clean(idle)
    })
  }

  // ---- resync

  resync(job: ResyncJob): void {
    if (this.#install !== null || this.resyncing) this.#copy.refuse(job)
    else this.#copy.start(job)
  }

  verify(job: VerifyJob): void {
    if (this.#install !== null || this.resyncing) this.#verify.refuse(job)
    else this.#verify.start(job)
  }

  cancel(): void {
    this.#copy.cancel()
    this.#verify.cancel()
  }

  #verifyPort(): VerifyPort {
    return {
      schedule: this.#host.schedule,
      ranges: this.#ranges,
      cellBlocks: this.#host.cellBlocks,
      cells: () => this.cells,
      readable: (cell) =>
        this.mirror.sides.flatMap((side) => {
          const { node, cell: at } = this.#place(side, cell)
          if (!side.readable || !node.readable || this.isStaleAt(side, cell)) return []
          return [{ node, disk: this.#host.disk(node.component), cell: at }]
        }),
      sync: (component) => this.#sync(component),
      failed: (component, op) => this.#error({ component, op, masked: true }),
      event: (e) => this.#host.event(e),
      ended: () => this.#settleDown(),
    }
  }

  /** What a copy needs of its mirror. */
  #port(): CopyPort {
    return {
      schedule: this.#host.schedule,
      ranges: this.#ranges,
      cellBlocks: this.#host.cellBlocks,
      loaded: () => this.#loaded,
      copying: (job) => this.#host.copying(job, this.#loaded),
      refused: (job) => this.#host.refused(job),
      plan: () => this.plan,
      cells: () => this.cells,
      stale: (slot) => this.#stale.get(slot),
      disk: (component) => this.#host.disk(component),
      bestSource: (cell) => this.#reads.sources(cell, new Set()).at(0)?.disk,
      read: (cell, not) => this.#reads.readCell(cell, new Set([not])),
      sync: (component) => this.#sync(component),
      failed: (component, op) => this.#error({ component, op, masked: true }),
      event: (e) => this.#host.event(e),
      ended: () => this.#settleDown(),
    }
  }
}
