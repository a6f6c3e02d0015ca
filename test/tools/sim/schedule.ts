/**
 * Simulated time: a pool of things that will happen, of which a seeded dice picks the next. Nothing
 * runs by itself, so that a seed replays a run exactly and every order is possible.
 */
export class Dice {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** 0 to n - 1 (mulberry32). */
  below(n: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let x = this.#state
    x = Math.imul(x ^ (x >>> 15), x | 1)
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61)
    return ((x ^ (x >>> 14)) >>> 0) % n
  }

  /** True in `percent` of 100 throws. */
  chance(percent: number): boolean {
    return this.below(100) < percent
  }

  pick<T>(from: readonly T[]): T {
    const found = from[this.below(from.length)]
    if (found === undefined) throw new Error('pick from nothing')
    return found
  }
}

export class Schedule {
  readonly dice: Dice
  #pool: (() => void)[] = []
  /** How many things have happened. */
  events = 0

  constructor(seed: number) {
    this.dice = new Dice(seed)
  }

  get waiting(): number {
    return this.#pool.length
  }

  later(what: () => void): void {
    this.#pool.push(what)
  }

  /** One of what waits happens; false when nothing waits. */
  step(): boolean {
    if (this.#pool.length === 0) return false
    const at = this.dice.below(this.#pool.length)
    const what = this.#pool[at]
    const last = this.#pool.pop()
    if (at < this.#pool.length && last !== undefined) this.#pool[at] = last
    this.events++
    what?.()
    return true
  }

  /** The process is killed: what was going to happen in it will not. */
  clear(): void {
    this.#pool = []
  }
}

/** Everything that promises can do without an event of their own has been done. */
export const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
