/**
 * What a client may see of a metadevice: promises P1 to P4 of the design at the grain of cells.
 *
 * Permitted for a cell, at any time: the value answered last or, while writes of it are unanswered or
 * were answered with an error, any of those. After a power loss: the last flushed value, or one written
 * later. Once read after a crash, a value stays until somebody writes. Where nothing was ever written
 * (a mirror that grew) sides may hold anything, each its own.
 */

/** Anything may be read. */
const ANYTHING = -1

interface Cell {
  /** Values that a read may return. */
  possible: Set<number>
  /** Values that may survive a power loss, with the order of their writes: the last stable one and everything since. */
  survivors: Map<number, number>
  /** Writes that are not answered. */
  inFlight: Set<number>
  /** A write of it failed: sides may hold different values until the next start makes them equal. */
  torn: boolean
  /** Sides may differ, and nobody knows: it was never written, or a disk lies. */
  unlike: boolean
  /** Counts beginnings and ends of writes. */
  changes: number
}

/** By cell: the order of the write that was the last one when the flush was sent. */
export type FlushMark = ReadonlyMap<number, number>

export class Oracle {
  readonly #cells: Cell[] = []
  #order = 1

  constructor(cells: number) {
    this.grow(cells, 0)
  }

  get size(): number {
    return this.#cells.length
  }

  grow(cells: number, value = ANYTHING): void {
    while (this.#cells.length < cells)
      this.#cells.push({
        possible: new Set([value]),
        survivors: new Map([[value, 0]]),
        inFlight: new Set<number>(),
        torn: false,
        unlike: value === ANYTHING,
        changes: 0,
      })
  }

  permits(permitted: ReadonlySet<number>, value: number): boolean {
    return permitted.has(value) || permitted.has(ANYTHING)
  }

  /** Some disk holds `value` now, and no error told of it. */
  corrupted(i: number, value: number): void {
    const c = this.#cell(i)
    c.possible.add(value)
    c.survivors.set(value, this.#order++)
    c.unlike = true
  }

  #cell(i: number): Cell {
    const cell = this.#cells[i]
    if (cell === undefined) throw new Error(`no cell ${i}`)
    return cell
  }

  writing(i: number, value: number): void {
    const c = this.#cell(i)
    c.inFlight.add(value)
    c.changes++
    c.possible.add(value)
    c.survivors.set(value, this.#order++)
  }

  written(i: number, value: number, ok: boolean): void {
    const c = this.#cell(i)
    c.inFlight.delete(value)
    c.changes++
    if (!ok) c.torn = true
    else if (c.inFlight.size === 0) {
      c.possible = new Set([value])
      c.torn = c.unlike = false
    }
  }

  /** Differs when somebody wrote the cell, or began to, in between. */
  changes(i: number): number {
    return this.#cell(i).changes
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

  /** Sides may differ there for good, and nobody knows. */
  isUnlike(i: number): boolean {
    return this.#cell(i).unlike
  }

  /** Quiet and certain: every side that may be read holds this. */
  certain(i: number): number | undefined {
    const c = this.#cell(i)
    const [only] = c.possible
    return c.inFlight.size === 0 && c.possible.size === 1 && !c.torn && !c.unlike ? only : undefined
  }

  /** A value was read while nothing was in flight: from now on it is the value. */
  pinned(i: number, value: number): void {
    const c = this.#cell(i)
    if (c.inFlight.size > 0 || c.torn || c.unlike) return
    c.possible = new Set([value])
  }

  /** It is the value, and on stable storage: a start has brought everything into place. */
  settled(i: number, value: number): void {
    const c = this.#cell(i)
    if (c.unlike) return
    c.possible = new Set([value])
    c.survivors = new Map([[value, 0]])
  }

  killed(): void {
    for (const c of this.#cells) {
      c.inFlight.clear()
      c.torn = false
    }
  }

  powerLost(): void {
    this.killed()
    for (const c of this.#cells) {
      c.possible = new Set(c.survivors.keys())
    }
  }
}
