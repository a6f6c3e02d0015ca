/** The dirty region log of a simulated mirror: what may be written now, what has to be recorded first. */
type Ticket = { readonly number: number; readonly kind: 'dirty' | 'idle'; readonly regions: readonly number[] }

export interface RegionEvents {
  dirty(ticket: number, regions: readonly number[]): void
  idle(ticket: number, regions: readonly number[]): void
}

interface Waiter {
  readonly regions: readonly number[]
  readonly go: (ok: boolean) => void
}

export class SimRegions {
  /** Recorded as dirty. */
  readonly dirty: Set<number>
  readonly #events: RegionEvents
  readonly #outstanding = new Map<number, number>()
  readonly #touched = new Set<number>()
  #candidates = new Set<number>()
  #waiters: Waiter[] = []
  #ticket: Ticket | null = null
  #next = 1

  constructor(dirty: Iterable<number>, events: RegionEvents) {
    this.dirty = new Set(dirty)
    this.#events = events
  }

  /** Calls `go` now or when the regions are recorded; leave() follows every go(true). */
  enter(regions: readonly number[], go: (ok: boolean) => void): void {
    if (this.#free(regions)) {
      this.#count(regions, 1)
      go(true)
      return
    }
    this.#waiters.push({ regions, go })
    this.#ask()
  }

  leave(regions: readonly number[]): void {
    this.#count(regions, -1)
  }

  /** Those waiting are told false; used when a plan changes hands. */
  takeWaiting(): void {
    for (const w of this.#waiters.splice(0)) w.go(false)
  }

  get ticketOut(): boolean {
    return this.#ticket !== null
  }

  /** Regions are `factor` times as large from now on; nobody waits and no ticket is out. */
  fold(factor: number): void {
    const old = [...this.dirty]
    this.dirty.clear()
    for (const r of old) this.dirty.add(Math.floor(r / factor))
    this.#candidates.clear()
    this.#outstanding.clear()
    this.#touched.clear()
  }

  /** First visit makes candidates, the second names those that stayed idle: the caller flushes, then calls clean(). */
  sweep(): readonly number[] {
    const idle = [...this.#candidates].filter((r) => this.#isIdle(r))
    this.#candidates = new Set([...this.dirty].filter((r) => (this.#outstanding.get(r) ?? 0) === 0))
    this.#touched.clear()
    return this.#ticket === null ? idle : []
  }

  clean(regions: readonly number[]): void {
    const idle = regions.filter((r) => this.#isIdle(r))
    if (this.#ticket !== null || idle.length === 0) return
    this.#ticket = { number: this.#next++, kind: 'idle', regions: idle }
    this.#events.idle(this.#ticket.number, idle)
  }

  marked(number: number, ok: boolean): void {
    const ticket = this.#ticket
    if (ticket === null || ticket.number !== number) return
    this.#ticket = null
    if (ticket.kind === 'idle') {
      if (ok) for (const r of ticket.regions) this.dirty.delete(r)
    } else if (ok) {
      for (const r of ticket.regions) this.dirty.add(r)
    } else {
      const lost = this.#waiters.filter((w) => w.regions.some((r) => ticket.regions.includes(r)))
      this.#waiters = this.#waiters.filter((w) => !lost.includes(w))
      for (const w of lost) w.go(false)
    }
    const ready = this.#waiters.filter((w) => this.#free(w.regions))
    this.#waiters = this.#waiters.filter((w) => !ready.includes(w))
    for (const w of ready) {
      this.#count(w.regions, 1)
      w.go(true)
    }
    this.#ask()
  }

  #isIdle(r: number): boolean {
    return this.dirty.has(r) && (this.#outstanding.get(r) ?? 0) === 0 && !this.#touched.has(r)
  }

  #free(regions: readonly number[]): boolean {
    const clearing = this.#ticket?.kind === 'idle' ? this.#ticket.regions : []
    return regions.every((r) => this.dirty.has(r) && !clearing.includes(r))
  }

  #count(regions: readonly number[], by: number): void {
    for (const r of regions) {
      this.#outstanding.set(r, (this.#outstanding.get(r) ?? 0) + by)
      this.#touched.add(r)
    }
  }

  #ask(): void {
    if (this.#ticket !== null) return
    const wanted = new Set(this.#waiters.flatMap((w) => w.regions).filter((r) => !this.dirty.has(r)))
    if (wanted.size === 0) return
    this.#ticket = { number: this.#next++, kind: 'dirty', regions: [...wanted] }
    this.#events.dirty(this.#ticket.number, this.#ticket.regions)
  }
}
