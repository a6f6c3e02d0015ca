/**
 * Runs copies and comparisons: one at a time per mirror, mirrors side by side, and at start mirrors by pass
 * number, each pass after the one before it (commands.md 3.10). It decides when one runs; what a mirror wants
 * and what an end means is the host's business, durable before the next one starts.
 *
 * A copy that is wanted goes before a comparison, and interrupts one that runs. A plan swap interrupts
 * either; it goes on afterwards if it is still wanted.
 */
import type { Blocks } from '../base/units.js'
import { blocks } from '../base/units.js'
import type { ResyncTarget } from '../meta/mirrorstate.js'
import type { UnitName } from '../meta/types.js'
import type { NativeEvent } from '../plan/events.js'

export interface Job {
  readonly target: ResyncTarget
  /** Everything below is copied already. */
  readonly from: Blocks
  /** Another one when the target stopped wanting its copy in between, or is other storage. */
  readonly identity: string
}

/** `stopped`: metad ends; the copy goes on at the next start. */
export type Ending = 'done' | 'cancelled' | 'failed' | 'stopped'

export type Work = { readonly kind: 'copy'; readonly job: Job } | { readonly kind: 'verify'; readonly repair: boolean }

export interface ResyncHost {
  /** The next copy that `mirror` wants and may have, none of those `tried`; records what has to be recorded before. */
  next(mirror: UnitName, tried: readonly ResyncTarget[]): Promise<Job | undefined>
  /** Records the end; done: the target may be read from now on. */
  ended(mirror: UnitName, job: Job, end: End, ending: Ending): Promise<void>
  /** Everything below `done` is on the target's stable storage. */
  checkpoint(mirror: UnitName, job: Job, done: Blocks): void
  /** Starts the engine; its events carry `number`. @throws when the mirror is not served */
  start(mirror: UnitName, work: Work, number: number, from: Blocks): void
  cancel(mirror: UnitName): void
  /** A defect ended what `mirror` was at. */
  broke(mirror: UnitName, e: unknown): void
  /** Nothing of `mirror` runs or is about to. */
  rested(mirror: UnitName): void
}

export interface Progress {
  readonly kind: ResyncTarget['kind'] | 'verify'
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
const kindOf = (work: Work): Progress['kind'] => (work.kind === 'verify' ? 'verify' : work.job.target.kind)

/** How the engine says it ended. */
export type End = Pick<
  Extract<NativeEvent, { kind: 'resyncEnded' }>,
  'outcome' | 'errno' | 'done' | 'component' | 'mismatches'
>

interface Running {
  readonly number: number
  readonly mirror: UnitName
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

/** One mirror at work. */
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
  readonly #mirrors = new Map<UnitName, Entry>()
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

  /** A mirror at work looks again, also at what failed before. Resolves when it has nothing left to do. */
  kick(mirror: UnitName): Promise<void> {
    const at = this.#mirrors.get(mirror)
    if (at !== undefined) {
      at.again = true
      if (at.running?.work.kind === 'verify') this.#host.cancel(mirror)
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
    this.#mirrors.set(mirror, entry)
    const run = this.#run(mirror, entry).catch((e: unknown) => this.#host.broke(mirror, e))
    entry.finished = run.finally(() => {
      this.#mirrors.delete(mirror)
      this.#interrupted.delete(mirror)
      if (entry.cancelled || !entry.again)
        this.#settle(mirror, entry.cancelled || this.#stopping ? 'cancelled' : 'failed', 0)
      // Wanted again after it was cancelled.
      if (entry.again && !this.#stopping) void this.kick(mirror)
      else this.#host.rested(mirror)
    })
    return entry.finished
  }

  /** Pass by pass; pass 0 is left alone. */
  async kickAll(mirrors: readonly { readonly name: UnitName; readonly pass: number }[]): Promise<void> {
    for (let pass = 1; pass <= 9 && !this.#stopping; pass++)
      await Promise.all(mirrors.filter((m) => m.pass === pass).map((m) => this.kick(m.name)))
  }

  /** Compares the sides. Waits for copies; null when the mirror is being compared already. */
  verify(mirror: UnitName, repair: boolean): Promise<Verified> | null {
    if (this.#verifications.has(mirror)) return null
    const verified = new Promise<Verified>((settle) =>
      this.#verifications.set(mirror, { repair, from: blocks(0), mismatchBlocks: 0, ranges: [], settle }),
    )
    void this.kick(mirror)
    return verified
  }

  /** Copies are made; a comparison is none. */
  isRunning(mirror: UnitName): boolean {
    return this.#mirrors.get(mirror)?.copying ?? false
  }

  /** Of what runs, or of the copy that was cancelled last. */
  progress(mirror: UnitName): Progress | undefined {
    return this.#mirrors.get(mirror)?.progress ?? this.#cancelled.get(mirror)
  }

  /** Ends what runs, a comparison for good. @returns false when nothing runs */
  async cancel(mirror: UnitName): Promise<boolean> {
    const at = this.#mirrors.get(mirror)
    if (at === undefined) return false
    at.cancelled = true
    at.again = false
    if (at.running !== undefined) this.#host.cancel(mirror)
    await at.finished
    return true
  }

  /** Runs `swap` while nothing of `mirror` runs in the engine, which cannot swap a plan under it. */
  async paused<T>(mirror: UnitName, swap: () => Promise<T>): Promise<T> {
    while (this.#swaps.has(mirror)) await this.#swaps.get(mirror)
    let over: () => void = () => undefined
    this.#swaps.set(mirror, new Promise((resolve) => (over = resolve)))
    try {
      const running = this.#mirrors.get(mirror)?.running
      if (running !== undefined) {
        this.#host.cancel(mirror)
        await running.over
      }
      return await swap()
    } finally {
      this.#swaps.delete(mirror)
      over()
    }
  }

  event(e: ResyncEvent): void {
    const running = this.#running.get(e.job)
    if (running === undefined) return
    const verification = this.#verifications.get(running.mirror)
    switch (e.kind) {
      case 'resyncProgress':
        running.entry.progress = { kind: kindOf(running.work), done: e.done, total: e.total }
        return
      case 'resyncCheckpoint':
        if (running.work.kind === 'copy') this.#host.checkpoint(running.mirror, running.work.job, e.done)
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
    for (const [mirror, at] of this.#mirrors) if (at.running !== undefined) this.#host.cancel(mirror)
    await Promise.allSettled([...this.#mirrors.values()].map((m) => m.finished))
    for (const mirror of [...this.#verifications.keys()]) this.#settle(mirror, 'cancelled', 0)
  }

  async #run(mirror: UnitName, entry: Entry): Promise<void> {
    let tried: ResyncTarget[] = []
    while (!this.#stopping && !entry.cancelled) {
      if (entry.again) tried = []
      entry.again = false
      const job = await this.#host.next(mirror, tried)
      // Whoever swaps the plan may have taken away what was found.
      const swap = this.#swaps.get(mirror)
      if (swap !== undefined) {
        await swap
        continue
      }
      entry.copying = job !== undefined
      if (this.#stopping || entry.cancelled) return
      if (entry.again) continue
      const verification = this.#verifications.get(mirror)
      if (job !== undefined) await this.#copy(mirror, entry, job, tried)
      else if (verification !== undefined) await this.#compare(mirror, entry, verification)
      else return
    }
  }

  async #copy(mirror: UnitName, entry: Entry, job: Job, tried: ResyncTarget[]): Promise<void> {
    const before = this.#interrupted.get(mirror)
    this.#interrupted.delete(mirror)
    const goesOn = before?.identity === job.identity && before.done > job.from
    const end = await this.#execute(mirror, entry, { kind: 'copy', job }, goesOn ? before.done : job.from)
    const { outcome, done } = end
    if (outcome === 'cancelled' && !entry.cancelled && !this.#stopping) {
      this.#interrupted.set(mirror, { identity: job.identity, done })
      return
    }
    tried.push(job.target)
    if (outcome === 'cancelled' && entry.progress !== undefined) this.#cancelled.set(mirror, entry.progress)
    await this.#host.ended(mirror, job, end, outcome === 'cancelled' && this.#stopping ? 'stopped' : outcome)
  }

  async #compare(mirror: UnitName, entry: Entry, v: Verification): Promise<void> {
    const { outcome, done, errno, mismatches } = await this.#execute(
      mirror,
      entry,
      { kind: 'verify', repair: v.repair },
      v.from,
    )
    v.from = done
    v.mismatchBlocks += mismatches
    if (outcome !== 'cancelled') this.#settle(mirror, outcome, errno)
  }

  #settle(mirror: UnitName, ending: Verified['ending'], errno: number): void {
    const v = this.#verifications.get(mirror)
    this.#verifications.delete(mirror)
    v?.settle({ ending, errno, mismatchBlocks: v.mismatchBlocks, ranges: v.ranges })
  }

  async #execute(mirror: UnitName, entry: Entry, work: Work, from: Blocks): Promise<End> {
    let end: (e: End) => void = () => undefined
    const over = new Promise<End>((resolve) => (end = resolve))
    this.#cancelled.delete(mirror)
    const running: Running = { number: this.#nextNumber++, mirror, work, entry, end, over }
    this.#running.set(running.number, running)
    entry.running = running
    // The total is known at the first report; until then what an interrupted copy showed stays.
    const kind = kindOf(work)
    if (entry.progress?.kind !== kind || from === 0) entry.progress = { kind, done: from, total: 0 }
    try {
      this.#host.start(mirror, work, running.number, from)
      return await over
    } finally {
      this.#running.delete(running.number)
      entry.running = undefined
    }
  }
}
