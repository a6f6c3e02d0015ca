/**
 * Jobs of a simulated RAID5 device: columns are zeroed, one is computed from the others, parity is compared. A window
 * has its lines to itself: no change of them is on its way, and none is staged.
 */
import { blocks } from '../../../src/base/units.js'
import type { Raid5Job } from '../../../src/dataplane/types.js'
import type { ComponentId } from '../../../src/plan/types.js'
import type { Raid5Core } from './raid5core.js'
import type { SimGroups } from './raid5groups.js'
import { xor } from './raid5layout.js'

interface Run {
  readonly job: Raid5Job
  /** Next line; of an initialisation next cell of the columns. */
  at: number
  cancelled: boolean
  /** Groups that must be forgotten before the first window. */
  readonly tail: number
  mismatches: number
  /** Goes on with this when something has moved. */
  waits: (() => void) | null
  claimed: readonly number[]
}

interface Fault {
  readonly column: number
}

const EIO = 5
const EINVAL = 22
const EROFS = 30
const WINDOW = 3
const ZERO_WINDOW = 8
const CHECKPOINT_PERCENT = 20

export class SimRaid5Work {
  readonly #core: Raid5Core
  readonly #groups: SimGroups
  readonly #ended: () => void
  #run: Run | null = null

  constructor(core: Raid5Core, groups: SimGroups, ended: () => void) {
    this.#core = core
    this.#groups = groups
    this.#ended = ended
  }

  get running(): boolean {
    return this.#run !== null
  }

  start(job: Raid5Job, ready: boolean, cancelled: boolean): void {
    const from = Math.ceil(job.from / this.#core.host.cellBlocks)
    const refused = this.#run !== null || !ready || !this.#canRun(job)
    const makes = job.kind === 'regenerate' || job.kind === 'copy'
    const starved = makes && this.#core.broken && !this.#isForgotten(this.#groups.journal.last)
    if (refused && !cancelled) this.#core.host.refused(job)
    const run: Run = {
      job,
      at: job.kind === 'initialise' && from > 0 ? this.#core.prewrite + from : from,
      cancelled: false,
      tail: makes ? this.#groups.journal.last : 0,
      mismatches: 0,
      waits: null,
      claimed: [],
    }
    if (cancelled) return this.#finish(run, 'cancelled', null)
    if (refused || starved) return this.#tell(run, 'failed', refused ? EINVAL : EIO, null)
    // The state database became stale when this was on its way.
    const writes = job.kind !== 'parity' || job.repair
    if (this.#core.plan.readOnly && writes) return this.#tell(run, 'failed', EROFS, null)
    this.#run = run
    this.#next(run)
  }

  #canRun(job: Raid5Job): boolean {
    const { all, columns } = this.#core
    const targets = this.#targets(job).map((i) => all[i])
    if (targets.some((c) => c === undefined || !c.writable || c.readable)) return false
    switch (job.kind) {
      case 'initialise':
        if (this.#core.node.copied !== null) return false
        return (
          targets.length > 0 && (job.columns.every((i) => i >= columns.length) || columns.every((c) => !c.readable))
        )
      case 'regenerate':
        return targets.length === 1 && columns.every((c, i) => c.readable || job.columns.includes(i))
      case 'copy':
        return job.columns[0] === this.#core.node.copied && job.columns.every((i) => columns[i]?.readable)
      case 'parity':
        if (job.repair && this.#core.node.copied !== null) return false
        return targets.length === 0 && columns.every((c) => c.readable)
    }
  }

  /** What it writes, parity apart. */
  targets(job: Raid5Job): readonly ComponentId[] {
    return this.#targets(job).flatMap((i) => this.#core.all[i]?.component ?? [])
  }
  #targets(job: Raid5Job): readonly number[] {
    return job.kind === 'copy' ? [this.#core.node.serving] : job.columns
  }

  #isForgotten(group: number): boolean {
    return this.#groups.journal.durableTail > group
  }

  cancel(): void {
    const run = this.#run
    if (run === null || run.cancelled) return
    run.cancelled = true
    this.#poke(run)
  }

  /** Lines are free, or the journal is shorter. */
  moved(): void {
    if (this.#run !== null) this.#poke(this.#run)
  }

  #poke(run: Run): void {
    const { waits } = run
    if (waits === null) return
    run.waits = null
    this.#core.host.schedule.later(() => {
      if (this.#run === run) waits()
    })
  }

  #later(run: Run, what: () => Fault | null): void {
    this.#core.host.schedule.later(() => {
      const fault = what()
      for (const line of run.claimed) this.#core.claimed.delete(line)
      run.claimed = []
      this.#groups.pump()
      if (fault === null) return this.#next(run)
      this.#finish(run, 'failed', fault.column)
    })
  }

  #next(run: Run): void {
    if (run.cancelled) return this.#finish(run, 'cancelled', null)
    switch (run.job.kind) {
      case 'initialise':
        return this.#zero(run)
      case 'regenerate':
      case 'copy':
      case 'parity':
        return this.#lines(run)
    }
  }

  #zero(run: Run): void {
    const { node, prewrite } = this.#core
    const end = prewrite + node.lines
    if (run.at >= end) return this.#sync(run)
    const count = Math.min(ZERO_WINDOW, end - run.at)
    this.#later(run, () => {
      for (const column of run.job.columns)
        for (let i = 0; i < count; i++)
          if (!this.#write(column, this.#core.at(column, run.at + i), 0)) return { column }
      run.at += count
      return null
    })
  }

  #write(column: number, cell: number, value: number): boolean {
    const good = this.#core.disk(column).write(cell, value, this.#core.host.schedule.dice)
    if (!good) this.#core.report(column, 'write', cell, true)
    return good
  }

  #waitFor(run: Run, group: number, then: () => void): boolean {
    if (this.#isForgotten(group)) return false
    run.waits = then
    this.#groups.wantedTail = Math.max(this.#groups.wantedTail, group)
    this.#groups.pump()
    return true
  }

  #lines(run: Run): void {
    if (this.#waitFor(run, run.tail, () => this.#next(run))) return
    const { lines } = this.#core.node
    if (run.at >= lines) return this.#sync(run)
    const count = Math.min(1 + this.#core.host.schedule.dice.below(WINDOW), lines - run.at)
    const window = Array.from({ length: count }, (_, i) => run.at + i)
    if (window.some((l) => !this.#groups.isFree(l) || this.#core.claimed.has(l))) {
      run.waits = () => this.#next(run)
      return
    }
    for (const line of window) this.#core.claimed.add(line)
    run.claimed = window
    if (run.job.kind === 'parity') return this.#compare(run, window)
    this.#later(run, () => {
      for (const line of window) {
        const fault = run.job.kind === 'copy' ? this.#copy(run, line) : this.#regenerate(run, line)
        if (fault !== null) return fault
        run.at++
      }
      const told = run.job.checkpointMillis > 0 && this.#core.host.schedule.dice.chance(CHECKPOINT_PERCENT)
      return told ? this.#checkpoint(run) : null
    })
  }

  /** What cannot be read comes from the others. */
  #copy(run: Run, line: number): Fault | null {
    const core = this.#core
    const [of = -1] = run.job.columns
    const target = core.node.serving
    const cell = core.place(of, line)
    const value = core.disk(of).read(cell)
    if (value !== undefined) return this.#write(target, core.place(target, line), value) ? null : { column: target }
    core.report(of, 'read', cell, true)
    if (core.disk(of).hangs || core.missing > 0) return { column: of }
    return this.#make(of, target, line)
  }

  #regenerate(run: Run, line: number): Fault | null {
    const [target = -1] = run.job.columns
    return this.#make(target, target, line)
  }

  #make(missing: number, target: number, line: number): Fault | null {
    const core = this.#core
    const values: number[] = []
    for (let column = 0; column < core.node.serving; column++) {
      if (column === missing) continue
      const cell = core.place(column, line)
      const value = core.disk(column).read(cell)
      if (value === undefined) {
        core.report(column, 'read', cell, true)
        return { column }
      }
      values.push(value)
    }
    return this.#write(target, core.place(target, line), xor(values)) ? null : { column: target }
  }

  #checkpoint(run: Run): Fault | null {
    const fault = this.#synced(this.#targets(run.job))
    if (fault !== null) return fault
    const { device, host } = this.#core
    const done = blocks(run.at * host.cellBlocks)
    host.event({ kind: 'resyncCheckpoint', device, job: run.job.job, done })
    return null
  }

  #synced(columns: readonly number[]): Fault | null {
    for (const column of columns) {
      if (this.#core.sync(column)) continue
      this.#core.report(column, 'flush', 0, true)
      return { column }
    }
    return null
  }

  // ---- parity

  #compare(run: Run, window: readonly number[]): void {
    const core = this.#core
    core.host.schedule.later(() => {
      const wrong = window.filter((line) => this.#isWrong(line))
      for (const line of wrong) {
        const { cellBlocks } = core.host
        run.mismatches += cellBlocks
        const block = blocks(line * cellBlocks)
        const place = { device: core.device, job: run.job.job, block, blocks: blocks(cellBlocks) }
        core.host.event({ kind: 'verifyMismatch', ...place })
      }
      if (wrong.length === 0 || !run.job.repair) return this.#later(run, () => this.#passed(run, window))
      const fault = this.#synced([...core.writable])
      if (fault !== null) return this.#later(run, () => fault)
      this.#repair(run, window, wrong, this.#groups.journal.last)
    })
  }

  #passed(run: Run, window: readonly number[]): null {
    run.at += window.length
    return null
  }

  /** A group that would be carried out again brings the old parity back. */
  #repair(run: Run, window: readonly number[], wrong: readonly number[], group: number): void {
    if (run.cancelled) return this.#later(run, () => null)
    if (this.#waitFor(run, group, () => this.#repair(run, window, wrong, group))) return
    const core = this.#core
    this.#later(run, () => {
      for (const line of wrong) {
        const column = core.parity(line)
        const data = core.columns.flatMap((_, i) => (i === column ? [] : [core.disk(i).peek(core.place(i, line))]))
        if (!this.#write(column, core.place(column, line), xor(data))) return { column }
      }
      return this.#passed(run, window)
    })
  }

  /** What cannot be read is told of and not compared. */
  #isWrong(line: number): boolean {
    const core = this.#core
    const values = core.columns.map((_, i) => {
      const cell = core.place(i, line)
      const value = core.disk(i).read(cell)
      if (value === undefined) core.report(i, 'read', cell, true)
      return value
    })
    const known = values.filter((v) => v !== undefined)
    return known.length === values.length && xor(known) !== 0
  }

  // ---- the end

  #sync(run: Run): void {
    const { job } = run
    const columns = job.kind === 'parity' ? (job.repair ? [...this.#core.writable] : []) : this.#targets(job)
    this.#core.host.schedule.later(() => {
      const fault = this.#synced(columns)
      if (fault !== null) return this.#finish(run, 'failed', fault.column)
      this.#finish(run, run.cancelled ? 'cancelled' : 'done', null)
    })
  }

  #finish(run: Run, outcome: 'done' | 'cancelled' | 'failed', column: number | null): void {
    this.#run = null
    this.#groups.wantedTail = 0
    this.#tell(run, outcome, outcome === 'failed' ? EIO : 0, column)
    this.#ended()
  }

  #tell(run: Run, outcome: 'done' | 'cancelled' | 'failed', errno: number, column: number | null): void {
    const { device, host, prewrite } = this.#core
    const { job, mismatches } = run
    const at = job.kind === 'initialise' ? Math.max(0, run.at - prewrite) : run.at
    const component = column === null ? null : this.#core.column(column).component
    const done = blocks(at * host.cellBlocks)
    host.event({ kind: 'resyncEnded', device, job: job.job, outcome, errno, done, component, mismatches })
  }
}
