/**
 * Runs resyncs: one target at a time per mirror, mirrors side by side, and at start mirrors by pass
 * number, each pass after the one before it (commands.md 3.10). It decides when a copy runs; what a
 * finished copy means is the host's business, and is durable before the next one starts.
 */
import type { Blocks } from '../base/units.js'
import { blocks } from '../base/units.js'
import type { UnitName } from '../meta/types.js'
import type { NativeEvent } from '../plan/events.js'

export interface Target {
  /** Slot of the submirror that is written. */
  readonly slot: number
}

export type Outcome = 'done' | 'cancelled' | 'failed'

export interface ResyncHost {
  /** The next submirror of `mirror` that wants a copy and is allowed one; records that it runs. */
  next(mirror: UnitName): Promise<Target | undefined>
  /** Records the outcome and, when done, makes the side readable. Resolves when that is durable. */
  ended(mirror: UnitName, target: Target, outcome: Outcome): Promise<void>
  /** Starts the engine's copy; its events carry `job`. */
  start(mirror: UnitName, target: Target, job: number, from: Blocks): void
  cancel(mirror: UnitName): void
}

export interface Progress {
  readonly state: 'running' | 'cancelled'
  readonly done: number
  readonly total: number
}

interface Entry {
  running: Running | undefined
  finished: Promise<void>
  /** Settles when a plan swap that interrupted the copy is over. */
  pause: Promise<void> | undefined
}

interface Running {
  readonly job: number
  readonly target: Target
  readonly mirror: UnitName
  progress: Progress
  ended(outcome: Outcome): void
  readonly over: Promise<Outcome>
}

type ResyncEvent = Extract<NativeEvent, { kind: 'resyncProgress' | 'resyncEnded' }>

export class ResyncScheduler {
  readonly #host: ResyncHost
  readonly #jobs = new Map<number, Running>()
  readonly #mirrors = new Map<UnitName, Entry>()
  /** Where a cancelled copy stopped: every write since went to the target too, so it goes on from there. */
  readonly #cancelled = new Map<UnitName, { slot: number; progress: Progress }>()
  #nextJob = 1
  #stopping = false

  constructor(host: ResyncHost) {
    this.#host = host
  }

  /** Idempotent: a mirror already at it goes on. Resolves when it has nothing left to copy. */
  kick(mirror: UnitName): Promise<void> {
    const at = this.#mirrors.get(mirror)
    if (at !== undefined) return at.finished
    const entry: Entry = { running: undefined, finished: Promise.resolve(), pause: undefined }
    this.#mirrors.set(mirror, entry)
    entry.finished = this.#run(mirror, entry).finally(() => this.#mirrors.delete(mirror))
    return entry.finished
  }

  /** Pass by pass; pass 0 is left alone. */
  async kickAll(mirrors: readonly { readonly name: UnitName; readonly pass: number }[]): Promise<void> {
    for (let pass = 1; pass <= 9 && !this.#stopping; pass++)
      await Promise.all(mirrors.filter((m) => m.pass === pass).map((m) => this.kick(m.name)))
  }

  isRunning(mirror: UnitName): boolean {
    return this.#mirrors.has(mirror)
  }

  progress(mirror: UnitName): Progress | undefined {
    return this.#mirrors.get(mirror)?.running?.progress ?? this.#cancelled.get(mirror)?.progress
  }

  /** @returns false when nothing runs. */
  async cancel(mirror: UnitName): Promise<boolean> {
    const at = this.#mirrors.get(mirror)
    if (at?.running === undefined) return false
    this.#host.cancel(mirror)
    await at.finished
    return true
  }

  /**
   * Runs `swap` while no copy of `mirror` is under way: the engine cannot swap a plan under one. The
   * copy goes on from where it was if its target still wants it. Called by the one writer only.
   */
  async paused<T>(mirror: UnitName, swap: () => Promise<T>): Promise<T> {
    const at = this.#mirrors.get(mirror)
    if (at?.running === undefined) return swap()
    let resume: () => void = () => undefined
    at.pause = new Promise((resolve) => (resume = resolve))
    this.#host.cancel(mirror)
    await at.running.over
    try {
      return await swap()
    } finally {
      at.pause = undefined
      resume()
    }
  }

  /** The mirror or its submirrors changed shape: an old stopping point means nothing any more. */
  forget(mirror: UnitName): void {
    this.#cancelled.delete(mirror)
  }

  event(e: ResyncEvent): void {
    const running = this.#jobs.get(e.job)
    if (running === undefined) return
    if (e.kind === 'resyncProgress') {
      running.progress = { state: 'running', done: e.done, total: e.total }
      return
    }
    this.#jobs.delete(e.job)
    running.progress = { ...running.progress, done: e.done }
    running.ended(e.outcome)
  }

  /** Cancels every copy without recording it: after a restart it starts again. */
  async stop(): Promise<void> {
    this.#stopping = true
    for (const [mirror, at] of this.#mirrors) if (at.running !== undefined) this.#host.cancel(mirror)
    await Promise.allSettled([...this.#mirrors.values()].map((m) => m.finished))
  }

  async #run(mirror: UnitName, entry: Entry): Promise<void> {
    while (!this.#stopping) {
      const target = await this.#host.next(mirror)
      if (target === undefined) return
      const running = this.#begin(mirror, target)
      entry.running = running
      const outcome = await running.over
      entry.running = undefined
      if (this.#stopping) return
      if (outcome === 'cancelled')
        this.#cancelled.set(mirror, { slot: target.slot, progress: { ...running.progress, state: 'cancelled' } })
      if (outcome === 'cancelled' && entry.pause !== undefined) {
        await entry.pause
        continue
      }
      await this.#host.ended(mirror, target, outcome)
      if (outcome !== 'done') return
    }
  }

  #begin(mirror: UnitName, target: Target): Running {
    const before = this.#cancelled.get(mirror)
    const from = before?.slot === target.slot ? before.progress.done : 0
    this.#cancelled.delete(mirror)
    let ended: (outcome: Outcome) => void = () => undefined
    const over = new Promise<Outcome>((resolve) => (ended = resolve))
    const running: Running = {
      job: this.#nextJob++,
      target,
      mirror,
      progress: { state: 'running', done: from, total: before?.progress.total ?? 0 },
      ended,
      over,
    }
    this.#jobs.set(running.job, running)
    this.#host.start(mirror, target, running.job, blocks(from))
    return running
  }
}
