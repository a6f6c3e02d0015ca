/**
 * A simulated mirror: what native/md does, at the grain of cells, with every order left to chance.
 *
 * Invariants, as in the contract of docs/native-boundary.md: a write is on no side before its regions
 * are recorded; a write that failed on a component which is not Last Erred is answered only after
 * settle(); cells are read only where the plan and the stale regions allow it.
 */
import type { ResyncJob } from '../../../src/dataplane/types.js'
import type { NativeEvent } from '../../../src/plan/events.js'
import type { ComponentId, ComponentNode, MirrorNode, MirrorSide, Plan } from '../../../src/plan/types.js'
import { blocks } from '../../../src/base/units.js'
import { type CopyPort, SimCopy } from './copy.js'
import { CELL_BLOCKS, type SimDisk } from './disks.js'
import { componentsOfSide, mirrorOf, placeOf } from './layout.js'
import { type Claim, Ranges } from './ranges.js'
import { SimRegions } from './regions.js'
import type { Schedule } from './schedule.js'
import { type Source, sourcesOf } from './sources.js'

export type Answer = { readonly ok: true; readonly values: readonly number[] } | { readonly ok: false }

export interface Op {
  readonly kind: 'read' | 'write' | 'flush'
  readonly first: number
  readonly count: number
  /** What is written. */
  readonly value: number
  readonly done: (answer: Answer) => void
}

interface Ordered {
  readonly op: Op
  readonly order: number
}

export interface MirrorHost {
  readonly schedule: Schedule
  disk(component: ComponentId): SimDisk
  event(e: NativeEvent): void
}

type ErrorEvent = Extract<NativeEvent, { readonly kind: 'componentError' }>

const EIO = 5

export class SimMirror {
  readonly device: number
  plan: Plan
  readonly regions: SimRegions
  readonly #host: MirrorHost
  readonly #ranges = new Ranges()
  readonly #stale = new Map<number, Set<number>>()
  readonly #loaded: ReadonlySet<number>
  readonly #syncFailed = new Set<ComponentId>()
  /** Failed, and kept until a verdict. */
  #parked: Ordered[] = []
  /** Came while the gate was closed, or was sent back before anything of it was done. */
  #gated: Ordered[] = []
  #hold: number | null = null
  #holds = 0
  #orders = 0
  #busy = 0
  readonly #copy: SimCopy
  #install: { readonly plan: Plan; readonly done: () => void } | null = null

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
    this.#copy = new SimCopy(device, this.#port())
    this.#mount(plan)
  }

  get mirror(): MirrorNode {
    return mirrorOf(this.plan)
  }
  get cells(): number {
    return Math.floor(this.mirror.blocks / CELL_BLOCKS)
  }
  get idle(): boolean {
    return this.#busy === 0 && this.#hold === null && this.#parked.length === 0 && this.#gated.length === 0
  }
  get resyncing(): boolean {
    return this.#copy.running
  }

  // ---- plans

  install(plan: Plan): Promise<void> {
    return new Promise((done) => {
      this.cancel()
      this.#install = { plan, done }
      this.#settleDown()
    })
  }

  #mount(plan: Plan): void {
    this.plan = plan
    // The log ended with the second side, and begins anew with the next one.
    if (this.mirror.regionBlocks === 0) this.regions.dirty.clear()
    for (const side of this.mirror.sides) {
      if (!side.stale) this.#stale.delete(side.slot)
      else if (!this.#stale.has(side.slot)) this.#stale.set(side.slot, new Set(this.regions.dirty))
    }
  }

  get #closed(): boolean {
    return this.#hold !== null || this.#parked.length > 0 || this.#install !== null
  }

  /** Whatever waited for nothing to be in flight. */
  #settleDown(): void {
    if (this.#busy > 0) return
    if (this.#parked.length > 0 && this.#hold === null) {
      this.#hold = ++this.#holds
      this.regions.takeWaiting()
      this.#host.event({ kind: 'held', device: this.device, generation: this.plan.generation, hold: this.#hold })
    }
    if (this.#install === null || this.#copy.running) return
    const { plan, done } = this.#install
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
    else for (const p of parked) p.op.done({ ok: false })
    this.#open()
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
        return this.#read(op, order)
      case 'write':
        return this.#write(op, order)
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
    if (kept) this.#park(op, order)
    else this.#end(op, failed.length > 0 || lost ? { ok: false } : { ok: true, values: [] })
  }

  #error(e: Pick<ErrorEvent, 'component' | 'op' | 'masked'> & { readonly repairFailed?: boolean }): void {
    this.#host.event({
      kind: 'componentError',
      device: this.device,
      generation: this.plan.generation,
      block: blocks(0),
      errno: EIO,
      repairFailed: false,
      ...e,
    })
  }

  #write(op: Op, order: number): void {
    if (this.plan.readOnly) return op.done({ ok: false })
    this.#busy++
    const { regionBlocks } = this.mirror
    if (regionBlocks === 0) return this.#writeOwned(op, order, () => undefined)
    const regions = SimRegions.of(op.first, op.count, regionBlocks)
    this.#busy--
    this.regions.enter(regions, (ok) => {
      this.#busy++
      // A hold or a new plan sends those that wait back; a mark that failed fails them.
      if (!ok) return this.#closed ? this.#sendBack(op, order) : this.#end(op, { ok: false })
      if (this.#closed) {
        this.regions.leave(regions)
        return this.#sendBack(op, order)
      }
      this.#writeOwned(op, order, () => this.regions.leave(regions))
    })
  }

  #writeOwned(op: Op, order: number, left: () => void): void {
    const claim: Claim = {
      first: op.first,
      count: op.count,
      start: () => {
        const leave = (): void => {
          this.#ranges.release(claim)
          left()
        }
        // Behind one that is parked: its turn comes after it.
        if (this.#parked.length > 0) {
          leave()
          return this.#sendBack(op, order)
        }
        this.#writeSides(op, order, leave)
      },
    }
    this.#ranges.claim(claim)
  }

  #writeSides(op: Op, order: number, leave: () => void): void {
    const failed: ComponentNode[] = []
    const written = new Set<number>()
    const targets = this.#cellsOf(op).flatMap((cell) =>
      this.mirror.sides.flatMap((side) => {
        const place = placeOf(this.plan, side, cell)
        return side.writable && place.node.writable ? [{ cell, place }] : []
      }),
    )
    let left = targets.length
    const end = (): void => {
      // Parked before the claim goes, so that who waits for the cells comes after.
      const lost = this.#cellsOf(op).some((cell) => !written.has(cell))
      const kept = failed.some((n) => n.lastErred === 0)
      if (kept) this.#judge(op, order, failed, 'write', lost)
      leave()
      if (!kept) this.#judge(op, order, failed, 'write', lost)
    }
    if (left === 0) return end()
    for (const { cell, place } of targets)
      this.#host.schedule.later(() => {
        const { node } = place
        if (this.#host.disk(node.component).write(place.cell, op.value, this.#host.schedule.dice)) written.add(cell)
        else failed.push(node)
        if (--left === 0) end()
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

  #sync(component: ComponentId): boolean {
    const good = !this.#syncFailed.has(component) && this.#host.disk(component).sync()
    if (!good) this.#syncFailed.add(component)
    return good
  }

  #cellsOf(op: { readonly first: number; readonly count: number }): readonly number[] {
    return Array.from({ length: op.count }, (_, i) => op.first + i)
  }

  // ---- reads

  isStaleAt(side: MirrorSide, cell: number): boolean {
    const { regionBlocks } = this.mirror
    if (!side.stale || regionBlocks === 0) return false
    return this.#stale.get(side.slot)?.has(Math.floor((cell * CELL_BLOCKS) / regionBlocks)) === true
  }

  #sources(cell: number, not: ReadonlySet<SimDisk>): readonly Source[] {
    const { dice } = this.#host.schedule
    const stale = (side: MirrorSide): boolean => this.isStaleAt(side, cell)
    return sourcesOf(this.plan, cell, stale, (component) => this.#host.disk(component), dice).filter(
      (s) => !not.has(s.disk),
    )
  }

  /** undefined: no source could be read; the last one that failed is reported with masked: false. */
  #readCell(cell: number, not: ReadonlySet<SimDisk>): number | undefined {
    const failed: Source[] = []
    for (const source of this.#sources(cell, not)) {
      const value = source.disk.read(source.cell)
      if (value !== undefined) {
        for (const f of failed) {
          this.#error({ component: f.node.component, op: 'read', masked: true })
          this.#repair(cell, f)
        }
        return value
      }
      failed.push(source)
    }
    for (const f of failed) this.#error({ component: f.node.component, op: 'read', masked: false })
    return undefined
  }

  #read(op: Op, order: number): void {
    const after = this.#cellsOf(op).some((cell) => this.mirror.sides.some((s) => s.readable && this.isStaleAt(s, cell)))
    if (after) return this.#readAndWrite(op, order)
    this.#busy++
    const values: number[] = []
    let bad = false
    let left = op.count
    for (const cell of this.#cellsOf(op))
      this.#host.schedule.later(() => {
        const value = this.#readCell(cell, new Set())
        if (value === undefined) bad = true
        else values[cell - op.first] = value
        if (--left === 0) this.#end(op, bad ? { ok: false } : { ok: true, values })
      })
  }

  /** Where sides may differ since a crash, what one read has answered every later one must (driver.md 2.9). */
  #readAndWrite(op: Op, order: number): void {
    this.#busy++
    const claim: Claim = {
      first: op.first,
      count: op.count,
      start: () =>
        this.#host.schedule.later(() => {
          const values = this.#cellsOf(op).map((cell) => this.#readCell(cell, new Set()))
          const failed: ComponentNode[] = []
          const known = values.filter((v) => v !== undefined)
          if (known.length === op.count)
            for (const [i, value] of known.entries()) failed.push(...this.#writeStale(op.first + i, value))
          const kept = failed.some((n) => n.lastErred === 0)
          for (const n of new Set(failed)) this.#error({ component: n.component, op: 'write', masked: kept })
          if (kept) this.#park(op, order)
          this.#ranges.release(claim)
          if (!kept) this.#end(op, known.length === op.count ? { ok: true, values: known } : { ok: false })
        }),
    }
    this.#ranges.claim(claim)
  }

  #writeStale(cell: number, value: number): readonly ComponentNode[] {
    return this.mirror.sides.flatMap((side) => {
      if (!side.writable || !this.isStaleAt(side, cell)) return []
      const { node, cell: at } = placeOf(this.plan, side, cell)
      if (!node.writable) return []
      return this.#host.disk(node.component).write(at, value, this.#host.schedule.dice) ? [] : [node]
    })
  }

  #repair(cell: number, bad: Source): void {
    const { generation } = this.plan
    const claim: Claim = {
      first: cell,
      count: 1,
      start: () =>
        this.#host.schedule.later(() => {
          if (this.plan.generation === generation) this.#rewrite(cell, bad)
          this.#ranges.release(claim)
        }),
    }
    this.#ranges.claim(claim)
  }

  #rewrite(cell: number, bad: Source): void {
    const good = this.#sources(cell, new Set([bad.disk]))[0]
    const value = good?.disk.read(good.cell)
    const { component } = bad.node
    if (value === undefined) return
    const { dice } = this.#host.schedule
    if (bad.disk.write(bad.cell, value, dice) && this.#sync(component) && bad.disk.read(bad.cell) === value) {
      this.#host.event({
        kind: 'componentRepaired',
        device: this.device,
        generation: this.plan.generation,
        component,
        block: blocks(bad.cell * CELL_BLOCKS),
        blocks: blocks(CELL_BLOCKS),
      })
    } else this.#error({ component, op: 'read', masked: true, repairFailed: true })
  }

  // ---- cleaning

  /** One visit of the cleaner. Nothing is cleaned while a side is not fully in step. */
  sweep(): void {
    const inStep = this.mirror.sides.every(
      (s) => s.readable && !s.stale && componentsOfSide(this.plan, s).every((n) => n.readable),
    )
    if (!inStep || this.#closed || this.mirror.regionBlocks === 0) return
    const idle = this.regions.sweep()
    if (idle.length === 0) return
    const { generation } = this.plan
    const all = new Set(this.mirror.sides.flatMap((s) => componentsOfSide(this.plan, s).map((n) => n.component)))
    this.#host.schedule.later(() => {
      if (this.plan.generation !== generation || this.#closed) return
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
    if (this.#install !== null) this.#copy.refuse(job)
    else this.#copy.start(job)
  }

  cancel(): void {
    this.#copy.cancel()
  }

  /** What a copy needs of its mirror. */
  #port(): CopyPort {
    return {
      schedule: this.#host.schedule,
      ranges: this.#ranges,
      loaded: this.#loaded,
      plan: () => this.plan,
      cells: () => this.cells,
      stale: (slot) => this.#stale.get(slot),
      disk: (component) => this.#host.disk(component),
      bestSource: (cell) => this.#sources(cell, new Set()).at(0)?.disk,
      read: (cell, not) => this.#readCell(cell, new Set([not])),
      sync: (component) => this.#sync(component),
      failed: (component, op) => this.#error({ component, op, masked: true }),
      event: (e) => this.#host.event(e),
      ended: () => this.#settleDown(),
    }
  }
}
