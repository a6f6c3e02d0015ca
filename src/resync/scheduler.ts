/**
 * Runs background work, copies and comparisons: one at a time per metadevice, metadevices side by side, and at
 * start mirrors by pass number, each pass after the one before it (commands.md 3.10). It decides when one runs;
 * what a metadevice wants and what an end means is the host's business, durable before the next one starts.
 *
 * A copy here is whatever its unit's record asks for: a mirror's resync, a RAID5 column's resync or zeroing. One
 * that is wanted goes before a comparison, and interrupts one that runs. A plan swap interrupts
 * either; it goes on afterwards if it is still wanted.
 */
import type { Blocks } from '../base/units.js'
import { blocks } from '../base/units.js'
import type { ResyncTarget } from '../meta/mirrorstate.js'
import type { Raid5Target } from '../meta/raid5jobs.js'
import type { UnitName } from '../meta/types.js'
import type { NativeEvent } from '../plan/events.js'

/** What a copy writes. */
export type Target = ResyncTarget | Raid5Target

export interface Job<T extends Target = Target> {
  readonly target: T
  /** Everything below is copied already. */
  readonly from: Blocks
  /** Another one when the target stopped wanting its copy in between, or is other storage. */
  readonly identity: string
}

/** `stopped`: metad ends; the copy goes on at the next start. */
export type Ending = 'done' | 'cancelled' | 'failed' | 'stopped'

export type Work<T extends Target = Target> =
  { readonly kind: 'copy'; readonly job: Job<T> } | { readonly kind: 'verify'; readonly repair: boolean }

export interface ResyncHost<T extends Target = Target> {
  /** The next copy that `unit` wants and may have, none of those `tried`; records what has to be recorded before. */
  next(unit: UnitName, tried: readonly T[]): Promise<Job<T> | undefined>
  /** Records the end; done: the target may be read from now on. */
  ended(unit: UnitName, job: Job<T>, end: End, ending: Ending): Promise<void>
  /** Everything below `done` is on the target's stable storage. */
  checkpoint(unit: UnitName, job: Job<T>, done: Blocks): void
  /** Starts the engine; its events carry `number`. @returns false when `unit` is served no longer */
  start(unit: UnitName, work: Work<T>, number: number, from: Blocks): boolean
  cancel(unit: UnitName): void
  /** A defect ended what `unit` was at. */
  broke(unit: UnitName, e: unknown): void
  /** Nothing of `unit` runs or is about to. */
  rested(unit: UnitName): void
}

export interface Progress {
  readonly kind: Target['kind'] | 'verify'
  readonly done: number
  readonly total: number
}

export interface Mismatch {
  readonly block: number
  readonly blocks: number
}
export interface Verified {
  /** `cancelled`: by metasync -c, or because metad ends. `failed`: not every block could be compared. */
  readonly ending: 'done' | 'cancelled' | 'failed'
  readonly errno: number
  readonly mismatchBlocks: number
  /** At most 1000. */
  readonly ranges: readonly Mismatch[]
}

const MAX_RANGES = 1000
const ENXIO = 6
const kindOf = (work: Work): Progress['kind'] => (work.kind === 'verify' ? 'verify' : work.job.target.kind)

/** How the engine says it ended. */
export type End = Pick<
  Extract<NativeEvent, { kind: 'resyncEnded' }>,
  'outcome' | 'errno' | 'done' | 'component' | 'mismatches'
>

interface Running {
  readonly number: number
  readonly unit: UnitName
  readonly work: Work
  readonly entry: Entry
  end(e: End): void
  readonly over: Promise<End>
}

interface Verification {
  readonly repair: boolean
  from: Blocks
  mismatchBlocks: number
  readonly ranges: Mismatch[]
  settle(v: Verified): void
}

/** One metadevice at work. */
interface Entry {
  running: Running | undefined
  finished: Promise<void>
  /** Something may have changed since next() was asked. */
  again: boolean
  /** metasync -c. */
  cancelled: boolean
  /** Some copy is wanted; also true between two of them and while a plan is swapped. */
  copying: boolean
  /** Of what runs, or ran last. */
  progress: Progress | undefined
}

type ResyncEvent = Extract<
  NativeEvent,
  { kind: 'resyncProgress' | 'resyncCheckpoint' | 'resyncEnded' | 'verifyMismatch' }
>

export class ResyncScheduler {
  readonly #host: ResyncHost
  readonly #running = new Map<number, Running>()
  readonly #units = new Map<UnitName, Entry>()
  readonly #verifications = new Map<UnitName, Verification>()
  /** Settles when a plan swap is over. */
  readonly #swaps = new Map<UnitName, Promise<void>>()
  /** How far the copy came that a swap interrupted. */
  readonly #interrupted = new Map<UnitName, { readonly identity: string; readonly done: Blocks }>()
  /** How far cancelled copies came, for those who ask. */
  readonly #cancelled = new Map<UnitName, Progress>()
  #nextNumber = 1
  #stopping = false

  constructor(host: ResyncHost) {
    this.#host = host
  }

  /** A metadevice at work looks again, also at what failed before. Resolves when it has nothing left to do. */
  kick(unit: UnitName): Promise<void> {
    const at = this.#units.get(unit)
    if (at !== undefined) {
      at.again = true
      if (at.running?.work.kind === 'verify') this.#host.cancel(unit)
      return at.finished
    }
    const entry: Entry = {
      running: undefined,
      finished: Promise.resolve(),
      again: false,
      cancelled: false,
      copying: false,
      progress: undefined,
    }
    this.#units.set(unit, entry)
    const run = this.#run(unit, entry).catch((e: unknown) => this.#host.broke(unit, e))
    entry.finished = run.finally(() => {
      this.#units.delete(unit)
      this.#interrupted.delete(unit)
      if (entry.cancelled || !entry.again)
        this.#settle(unit, entry.cancelled || this.#stopping ? 'cancelled' : 'failed', 0)
      // Wanted again after it was cancelled.
      if (entry.again && !this.#stopping) void this.kick(unit)
      else this.#host.rested(unit)
    })
    return entry.finished
  }

  /** Pass by pass; pass 0 is left alone. */
  async kickAll(mirrors: readonly { readonly name: UnitName; readonly pass: number }[]): Promise<void> {
    for (let pass = 1; pass <= 9 && !this.#stopping; pass++)
      await Promise.all(mirrors.filter((m) => m.pass === pass).map((m) => this.kick(m.name)))
  }

  /** Compares the sides, or data and parity. Waits for copies; null when the metadevice is being compared already. */
  verify(unit: UnitName, repair: boolean): Promise<Verified> | null {
    if (this.#verifications.has(unit)) return null
    const verified = new Promise<Verified>((settle) =>
      this.#verifications.set(unit, { repair, from: blocks(0), mismatchBlocks: 0, ranges: [], settle }),
    )
    void this.kick(unit)
    return verified
  }

  /** Copies are made; a comparison is none. */
  isRunning(unit: UnitName): boolean {
    return this.#units.get(unit)?.copying ?? false
  }

  /** Of what runs, or of the copy that was cancelled last. */
  progress(unit: UnitName): Progress | undefined {
    return this.#units.get(unit)?.progress ?? this.#cancelled.get(unit)
  }

  /** Ends what runs, a comparison for good. @returns false when nothing runs */
  async cancel(unit: UnitName): Promise<boolean> {
    const at = this.#units.get(unit)
    if (at === undefined) return false
    at.cancelled = true
    at.again = false
    if (at.running !== undefined) this.#host.cancel(unit)
    await at.finished
    return true
  }

  /** Runs `swap` while nothing of `unit` runs in the engine, which cannot swap a plan under it. */
  async paused<T>(unit: UnitName, swap: () => Promise<T>): Promise<T> {
    while (this.#swaps.has(unit)) await this.#swaps.get(unit)
    let over: () => void = () => undefined
    this.#swaps.set(unit, new Promise((resolve) => (over = resolve)))
    try {
      const running = this.#units.get(unit)?.running
      if (running !== undefined) {
        this.#host.cancel(unit)
        await running.over
      }
      return await swap()
    } finally {
      this.#swaps.delete(unit)
      over()
    }
  }

  event(e: ResyncEvent): void {
    const running = this.#running.get(e.job)
    if (running === undefined) return
    const verification = this.#verifications.get(running.unit)
    switch (e.kind) {
      case 'resyncProgress':
        running.entry.progress = { kind: kindOf(running.work), done: e.done, total: e.total }
        return
      case 'resyncCheckpoint':
        if (running.work.kind === 'copy') this.#host.checkpoint(running.unit, running.work.job, e.done)
        return
      case 'verifyMismatch':
        if (verification !== undefined && verification.ranges.length < MAX_RANGES)
          verification.ranges.push({ block: e.block, blocks: e.blocks })
        return
      case 'resyncEnded':
        this.#running.delete(e.job)
        running.end(e)
    }
  }

  /** Everything ends, and goes on at the next start. */
  async stop(): Promise<void> {
    this.#stopping = true
    for (const [unit, at] of this.#units) if (at.running !== undefined) this.#host.cancel(unit)
    await Promise.allSettled([...this.#units.values()].map((m) => m.finished))
    for (const unit of [...this.#verifications.keys()]) this.#settle(unit, 'cancelled', 0)
  }

  async #run(unit: UnitName, entry: Entry): Promise<void> {
    let tried: Target[] = []
    while (!this.#stopping && !entry.cancelled) {
      if (entry.again) tried = []
      entry.again = false
      const job = await this.#host.next(unit, tried)
      // Whoever swaps the plan may have taken away what was found.
      const swap = this.#swaps.get(unit)
      if (swap !== undefined) {
        await swap
        continue
      }
      entry.copying = job !== undefined
      if (this.#stopping || entry.cancelled) return
      if (entry.again) continue
      const verification = this.#verifications.get(unit)
      if (job !== undefined) await this.#copy(unit, entry, job, tried)
      else if (verification !== undefined) await this.#compare(unit, entry, verification)
      else return
    }
  }

  async #copy(unit: UnitName, entry: Entry, job: Job, tried: Target[]): Promise<void> {
    const before = this.#interrupted.get(unit)
    this.#interrupted.delete(unit)
    const goesOn = before?.identity === job.identity && before.done > job.from
    const end = await this.#execute(unit, entry, { kind: 'copy', job }, goesOn ? before.done : job.from)
    if (end === null) return
    const { outcome, done } = end
    if (outcome === 'cancelled' && !entry.cancelled && !this.#stopping) {
      this.#interrupted.set(unit, { identity: job.identity, done })
      return
    }
    tried.push(job.target)
    if (outcome === 'cancelled' && entry.progress !== undefined) this.#cancelled.set(unit, entry.progress)
    await this.#host.ended(unit, job, end, outcome === 'cancelled' && this.#stopping ? 'stopped' : outcome)
  }

  async #compare(unit: UnitName, entry: Entry, v: Verification): Promise<void> {
    const end = await this.#execute(unit, entry, { kind: 'verify', repair: v.repair }, v.from)
    // Waiting for its components to return could take for ever, and somebody waits for the answer.
    if (end === null) return this.#settle(unit, 'failed', ENXIO)
    const { outcome, done, errno, mismatches } = end
    v.from = done
    v.mismatchBlocks += mismatches
    if (outcome !== 'cancelled') this.#settle(unit, outcome, errno)
  }

  #settle(unit: UnitName, ending: Verified['ending'], errno: number): void {
    const v = this.#verifications.get(unit)
    this.#verifications.delete(unit)
    v?.settle({ ending, errno, mismatchBlocks: v.mismatchBlocks, ranges: v.ranges })
  }

  /** @returns null when `unit` is served no longer */
  async #execute(unit: UnitName, entry: Entry, work: Work, from: Blocks): Promise<End | null> {
    let end: (e: End) => void = () => undefined
    const over = new Promise<End>((resolve) => (end = resolve))
    this.#cancelled.delete(unit)
    const running: Running = { number: this.#nextNumber++, unit, work, entry, end, over }
    this.#running.set(running.number, running)
    entry.running = running
    // The total is known at the first report; until then what an interrupted copy showed stays.
    const kind = kindOf(work)
    if (entry.progress?.kind !== kind || from === 0) entry.progress = { kind, done: from, total: 0 }
    try {
      return this.#host.start(unit, work, running.number, from) ? await over : null
    } finally {
      this.#running.delete(running.number)
      entry.running = undefined
    }
  }
}
