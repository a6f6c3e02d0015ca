/**
 * The clock of a simulated host. Timers of metad fire when they are due, and what is next is due at once when nothing
 * else can happen; so a seed replays exactly, and nobody waits in real time.
 *
 * While it runs the process has no other: global setTimeout, Date.now and the timers of node:timers/promises are its.
 */
import { syncBuiltinESMExports } from 'node:module'
import timers from 'node:timers/promises'

interface Timer {
  readonly at: number
  readonly fire: () => void
}

/** Of the first moment, ms since the epoch. */
const BEGINNING = 1_700_000_000_000

export class Clock {
  /** ms of everything that has happened. */
  readonly #passed: () => number
  #skipped = 0
  #timers: Timer[] = []

  constructor(passed: () => number) {
    this.#passed = passed
  }

  get #now(): number {
    return this.#passed() + this.#skipped
  }

  /** Nothing else of the process may wait for the time meanwhile. */
  async during<T>(work: () => Promise<T>): Promise<T> {
    const real = { sleep: timers.setTimeout, set: globalThis.setTimeout, now: Date.now }
    const after = (millis: number, fire: () => void): void => {
      this.#timers.push({ at: this.#now + millis, fire })
    }
    timers.setTimeout = (<T>(millis: number, value: T) =>
      new Promise<T>((resolve) => {
        after(millis, () => {
          resolve(value)
        })
      })) as typeof timers.setTimeout
    globalThis.setTimeout = ((fire: () => void, millis: number) => {
      after(millis, fire)
      return { unref: () => undefined, ref: () => undefined }
    }) as unknown as typeof globalThis.setTimeout
    Date.now = () => BEGINNING + this.#now
    syncBuiltinESMExports()
    try {
      return await work()
    } finally {
      timers.setTimeout = real.sleep
      globalThis.setTimeout = real.set
      Date.now = real.now
      syncBuiltinESMExports()
    }
  }

  /** @param anyway time passes until the next timer is due. @returns false when none was. */
  fire(anyway = false): boolean {
    const at = Math.min(...this.#timers.map((t) => t.at))
    if (at === Infinity || (at > this.#now && !anyway)) return false
    this.#skipped += Math.max(0, at - this.#now)
    const next = this.#timers.findIndex((t) => t.at === at)
    for (const { fire } of this.#timers.splice(next, 1)) fire()
    return true
  }

  /** The process that waits is gone. */
  clear(): void {
    this.#timers = []
  }
}
