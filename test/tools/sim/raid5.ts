/**
 * A simulated RAID5 device: what native/md/raid5* does, at the grain of cells, with every order left to chance.
 *
 * Invariants, as in docs/raid5.md: a change is answered from memory, a flush when its groups are in the journal and
 * synced; nothing is in place before its group is; a column that fails is told of, and nothing more is written before
 * a plan or a retry follows.
 */
import type { Raid5Job } from '../../../src/dataplane/types.js'
import { blocks } from '../../../src/base/units.js'
import type { Plan } from '../../../src/plan/types.js'
import type { Answer, Op, SimDevice } from './device.js'
import { type ColumnOp, Raid5Core, type Raid5Host } from './raid5core.js'
import { SimGroups } from './raid5groups.js'
import { SimJournal } from './raid5journal.js'
import { lineOf, raid5Of, xor } from './raid5layout.js'
import { SimReplay } from './raid5replay.js'
import { SimRaid5Work } from './raid5work.js'

interface Ordered {
  readonly op: Op
  readonly order: number
}

interface Flush extends Ordered {
  /** Changes up to this one. */
  readonly stamp: number
}

/** A column that is Last Erred is tried so often again by itself. */
const RETRIES = 3

export class SimRaid5 implements SimDevice {
  readonly core: Raid5Core
  readonly groups: SimGroups
  readonly work: SimRaid5Work
  readonly #host: Raid5Host
  /** Unit and epoch of the journal; null: no plan has served yet. */
  #journal: string | null = null
  #replay: SimReplay | null = null
  #flushes: Flush[] = []
  #parked: Ordered[] = []
  #gated: Ordered[] = []
  /** A column failed: a decision is waited for, whoever waits with it. */
  #gate = false
  #hold: number | null = null
  #holds = 0
  #stopped = false
  /** Asked for and not begun; true: cancelled. */
  readonly #jobs = new Map<Raid5Job, boolean>()
  #retries = RETRIES
  #orders = 1
  #busy = 0
  #install: { readonly plan: Plan; readonly done: () => void; readonly refused: (e: Error) => void } | null = null
  #removed: (() => void) | null = null

  constructor(device: number, plan: Plan, host: Raid5Host) {
    this.#host = host
    this.core = new Raid5Core(device, plan, host)
    this.core.wantRepair = (line, column) => this.#wantRepair(line, column)
    this.groups = new SimGroups({
      core: this.core,
      halted: () => this.#halted,
      columnFailed: (column, op, cell) => this.#columnFailed(column, op, cell),
      moved: () => this.#moved(),
    })
    this.work = new SimRaid5Work(this.core, this.groups, () => this.#settleDown())
    this.#mount(plan)
  }

  get device(): number {
    return this.core.device
  }
  get plan(): Plan {
    return this.core.plan
  }
  get cells(): number {
    return this.core.cells
  }
  get serves(): boolean {
    return !this.core.node.replay && this.#journal !== null
  }
  /** No change is in memory or on its way, and nobody waits for a decision. */
  get atRest(): boolean {
    return this.groups.atRest && this.#busy === 0 && !this.#closed && !this.work.running
  }
  get #closed(): boolean {
    return this.#gate || this.core.node.replay || this.#install !== null || this.#removed !== null
  }
  get #halted(): boolean {
    const leaving = this.#install !== null || this.#removed !== null
    return this.#stopped || this.core.broken || this.core.node.replay || (leaving && this.#busy === 0)
  }

  // ---- plans

  install(plan: Plan): Promise<void> {
    return new Promise((done, refused) => {
      this.cancel()
      this.#install = { plan, done, refused }
      this.#settleDown()
    })
  }

  #mount(plan: Plan): string | null {
    const node = raid5Of(plan)
    const journal = `${node.unit} ${node.epoch}`
    const anew = !node.replay && this.#journal !== journal
    if (anew && !this.groups.atRest) return 'something is not in place, and the epoch is another one'
    this.core.plan = plan
    this.#stopped = false
    this.#retries = RETRIES
    this.groups.lost.clear()
    if (node.replay) {
      if (this.#journal !== null) return 'a replay of a device that serves'
      this.#replay = new SimReplay(this.core, () => this.#settleDown())
      return null
    }
    if (anew) {
      this.#journal = journal
      this.groups.journal = new SimJournal(this.core.prewrite - 1)
    }
    this.#host.mounted(this.device, plan, anew)
    return null
  }

  /** What is in memory goes with it. */
  remove(): Promise<void> {
    return new Promise((done) => {
      this.cancel()
      this.#removed = done
      this.#settleDown()
    })
  }

  #finishRemoval(removed: () => void): void {
    for (const { op } of [...this.#parked.splice(0), ...this.#gated.splice(0)]) op.done({ ok: false, gone: true })
    removed()
  }

  #settleDown(): void {
    if (this.#gate && this.#hold === null && this.#busy === 0) {
      this.#hold = ++this.#holds
      const { device, plan } = this
      this.#host.event({ kind: 'held', device, generation: plan.generation, hold: this.#hold })
    }
    if (
      this.#busy > 0 ||
      this.groups.flying > 0 ||
      this.work.running ||
      this.#jobs.size > 0 ||
      this.#replay?.running === true
    )
      return
    if (this.#removed !== null) return this.#finishRemoval(this.#removed)
    if (this.#install === null) return
    const { plan, done, refused } = this.#install
    this.#install = null
    const why = this.#mount(plan)
    if (why === null) done()
    else refused(new Error(why))
    this.#open()
    this.groups.pump(true)
  }

  #open(): void {
    this.#gated.sort((a, b) => a.order - b.order)
    while (!this.#closed) {
      const next = this.#gated.shift()
      if (next === undefined) return
      this.#start(next)
    }
  }

  settle(hold: number, verdict: 'resume' | 'fail'): void {
    if (hold !== this.#hold) return
    this.#hold = null
    this.#gate = false
    const parked = this.#parked.splice(0)
    if (verdict === 'resume') this.#gated.push(...parked)
    else for (const p of parked) p.op.done({ ok: false })
    this.#retryLater()
    this.#open()
    this.#settleDown()
    this.groups.pump()
  }

  marked(): void {
    throw new Error('a RAID5 device has no regions')
  }
  cancel(): void {
    this.work.cancel()
    for (const job of this.#jobs.keys()) this.#jobs.set(job, true)
  }
  /** It begins soon; who cancels it before that ends it. */
  job(job: Raid5Job): void {
    const ready = this.#install === null && this.#removed === null && this.serves
    this.#jobs.set(job, false)
    this.#host.schedule.later(() => {
      const cancelled = this.#jobs.get(job) === true
      this.#jobs.delete(job)
      this.work.start(job, ready, cancelled)
    })
  }

  // ---- requests

  submit(op: Op): void {
    const ordered = { op, order: this.#orders++ }
    if (this.#closed) this.#gated.push(ordered)
    else this.#start(ordered)
  }

  #start(o: Ordered): void {
    this.#busy++
    switch (o.op.kind) {
      case 'read':
        return this.#host.schedule.later(() => this.#read(o.op))
      case 'write':
        return this.#host.schedule.later(() => this.#write(o.op))
      case 'flush':
        return this.#flush(o)
    }
  }

  #end(op: Op, answer: Answer): void {
    this.#busy--
    op.done(answer)
    this.#settleDown()
  }

  #read(op: Op): void {
    const values = Array.from({ length: op.count }, (_, i) => this.#value(op.first + i))
    const known = values.filter((v) => v !== undefined)
    this.#end(op, known.length === op.count ? { ok: true, values: known } : { ok: false })
  }

  #value(cell: number): number | undefined {
    const { line, column } = lineOf(this.core.node, cell)
    return this.core.dirty.get(cell)?.value ?? this.core.content(line, column)
  }

  #write(op: Op): void {
    if (this.core.broken || this.plan.readOnly) return this.#end(op, { ok: false })
    const order = this.#orders++
    for (let cell = op.first; cell < op.first + op.count; cell++) {
      this.core.dirty.set(cell, { value: op.value, order: this.core.dirty.get(cell)?.order ?? order })
      this.groups.lost.delete(lineOf(this.core.node, cell).line)
    }
    this.#end(op, { ok: true, values: [] })
    this.#host.schedule.later(() => {
      this.groups.due = true
      this.groups.pump()
    })
  }

  #flush(o: Ordered): void {
    const stamp = this.#orders++
    if (this.groups.oldest(true) > stamp) return this.#end(o.op, { ok: true, values: [] })
    if (this.core.broken) return this.#end(o.op, { ok: false })
    this.#stopped = false
    this.groups.lost.clear()
    this.groups.due = true
    this.#flushes.push({ ...o, stamp })
    this.groups.pump()
  }

  /** Flushes that are answered now; a line that cannot be staged fails those that wait for it. */
  #moved(): void {
    for (const f of [...this.#flushes]) {
      const certain = this.groups.oldest(true) > f.stamp
      if (!certain && this.groups.oldest(false) <= f.stamp) continue
      this.#flushes = this.#flushes.filter((other) => other !== f)
      this.#end(f.op, certain ? { ok: true, values: [] } : { ok: false })
    }
    this.work.moved()
    this.#settleDown()
  }

  // ---- failures

  #columnFailed(column: number, op: ColumnOp, cell: number): void {
    const parks = this.core.column(column).lastErred === 0
    this.core.report(column, op, cell, parks)
    this.#stopped = true
    const flushes = this.#flushes.splice(0)
    if (parks) {
      this.#gate = true
      this.#busy -= flushes.length
      this.#parked.push(...flushes)
    } else {
      for (const f of flushes) this.#end(f.op, { ok: false })
      this.#retryLater()
    }
    this.#settleDown()
  }

  #retryLater(): void {
    if (!this.#stopped || this.#retries === 0) return
    this.#retries--
    this.#host.schedule.later(() => {
      if (!this.#gate) this.#stopped = false
      this.groups.pump()
    })
  }

  // ---- bad cells

  #wantRepair(line: number, column: number): void {
    const { generation } = this.plan
    this.#host.schedule.later(() => {
      if (this.plan.generation !== generation || this.#closed || this.core.missing > 0) return
      if (!this.groups.isFree(line) || this.core.claimed.has(line)) return
      this.#repair(line, column)
      this.groups.pump()
    })
  }

  #repair(line: number, column: number): void {
    const { core } = this
    const cell = core.place(column, line)
    const disk = core.disk(column)
    if (disk.read(cell) !== undefined || disk.hangs) return
    const others = core.columns.flatMap((_, i) => (i === column ? [] : [core.disk(i).read(core.place(i, line))]))
    const known = others.filter((v) => v !== undefined)
    if (known.length < others.length || core.columns.some((_, i) => i !== column && !core.sync(i))) return
    const value = xor(known)
    if (disk.write(cell, value, this.#host.schedule.dice) && core.sync(column) && disk.read(cell) === value) {
      const { cellBlocks } = this.#host
      const { component } = core.column(column)
      const { generation } = this.plan
      const place = { component, block: blocks(cell * cellBlocks), blocks: blocks(cellBlocks) }
      this.#host.event({ kind: 'componentRepaired', device: this.device, generation, ...place })
    } else core.report(column, 'read', cell, true, true)
  }
}
