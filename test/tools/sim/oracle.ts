/**
 * What a client may see of a metadevice: promises P1 to P4 of the design at the grain of cells.
 *
 * Permitted for a cell, at any time: the value answered last or, while writes of it are unanswered or
 * were answered with an error, any of those. After a power loss: the last flushed value, or one written
 * later. Once read after a crash, a value stays until somebody writes.
 */
interface Cell {
  /** Values that a read may return. */
  possible: Set<number>
  /** Values that may survive a power loss, with the order of their writes: the last stable one and everything since. */
  survivors: Map<number, number>
  /** Writes that are not answered. */
  inFlight: Set<number>
  /** Two sides may hold different possible values for good: a write of it failed. */
  torn: boolean
}

/** By cell: the order of the write that was the last one when the flush was sent. */
export type FlushMark = ReadonlyMap<number, number>

export class Oracle {
  readonly #cells: Cell[]
  #order = 1

  constructor(cells: number) {
    this.#cells = Array.from({ length: cells }, () => ({
      possible: new Set([0]),
      survivors: new Map([[0, 0]]),
      inFlight: new Set<number>(),
      torn: false,
    }))
  }

  #cell(i: number): Cell {
    const cell = this.#cells[i]
    if (cell === undefined) throw new Error(`no cell ${i}`)
    return cell
  }

  writing(i: number, value: number): void {
    const c = this.#cell(i)
    c.inFlight.add(value)
    c.possible.add(value)
    c.survivors.set(value, this.#order++)
  }

  written(i: number, value: number, ok: boolean): void {
    const c = this.#cell(i)
    c.inFlight.delete(value)
    if (!ok) c.torn = true
    else if (c.inFlight.size === 0) {
      c.possible = new Set([value])
      c.torn = false
    }
  }

  /** Taken when a flush is sent; only a flush that succeeds uses it. */
  flushing(): FlushMark {
    const mark = new Map<number, number>()
    for (const [i, c] of this.#cells.entries()) {
      const [only] = c.possible
      const order = only === undefined ? undefined : c.survivors.get(only)
      if (c.inFlight.size === 0 && c.possible.size === 1 && order !== undefined) mark.set(i, order)
    }
    return mark
  }

  flushed(mark: FlushMark): void {
    for (const [i, order] of mark) {
      const c = this.#cell(i)
      for (const [value, at] of c.survivors) if (at < order) c.survivors.delete(value)
    }
  }

  /** What a read sent now may return, whatever is written while it runs. */
  possible(i: number): ReadonlySet<number> {
    return this.#cell(i).possible
  }

  /** Unanswered writes of a cell. */
  inFlight(i: number): number {
    return this.#cell(i).inFlight.size
  }

  /** Quiet and certain: every side that may be read holds this. */
  certain(i: number): number | undefined {
    const c = this.#cell(i)
    const [only] = c.possible
    return c.inFlight.size === 0 && c.possible.size === 1 && !c.torn ? only : undefined
  }

  /** A value was read while nothing was in flight: from now on it is the value. */
  pinned(i: number, value: number): void {
    const c = this.#cell(i)
    if (c.inFlight.size > 0 || c.torn) return
    c.possible = new Set([value])
  }

  killed(): void {
    for (const c of this.#cells) {
      c.inFlight.clear()
      c.torn = false
    }
  }

  powerLost(): void {
    for (const c of this.#cells) {
      c.inFlight.clear()
      c.torn = false
      c.possible = new Set(c.survivors.keys())
    }
  }
}
