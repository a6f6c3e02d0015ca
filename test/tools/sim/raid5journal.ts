/** The journal of a simulated RAID5 device: numbers of groups, what of them is stable, and what a replay carries out. */
import type { JournalPart } from './ledger.js'

interface Known {
  readonly sequence: number
  placed: boolean
  /** Columns with data in place that no sync has reached yet. */
  readonly unstable: Set<number>
}

export class SimJournal {
  /** Cells of the ring, the same on every column. */
  readonly #ring: number
  #groups: Known[] = []
  #next = 1
  /** Of the last group that is committed. */
  durableTail = 1

  constructor(ring: number) {
    this.#ring = ring
  }

  get last(): number {
    return this.#next - 1
  }

  /** Cell of the prewrite area; the first one has the header. */
  cellOf(sequence: number): number {
    return 1 + ((sequence - 1) % this.#ring)
  }

  /** One cell is always left for a group that says what may be forgotten. */
  get hasRoom(): boolean {
    return this.#next - this.durableTail < this.#ring - 1
  }

  begin(): number {
    this.#groups.push({ sequence: this.#next, placed: false, unstable: new Set() })
    return this.#next++
  }

  placed(sequence: number, columns: Iterable<number>): void {
    const group = this.#groups.find((g) => g.sequence === sequence)
    if (group === undefined) return
    group.placed = true
    for (const c of columns) group.unstable.add(c)
  }

  committed(tail: number): void {
    this.durableTail = Math.max(this.durableTail, tail)
  }

  /** A sync of the column begins: what it will have made stable. */
  syncing(column: number): () => void {
    const reached = this.#groups.filter((g) => g.placed)
    return () => {
      for (const g of reached) g.unstable.delete(column)
    }
  }

  unstable(writable: ReadonlySet<number>): readonly number[] {
    return [...new Set(this.#groups.flatMap((g) => [...g.unstable]))].filter((c) => writable.has(c))
  }

  /** The oldest group that may have to be carried out again. */
  tail(writable: ReadonlySet<number>): number {
    const stable = (g: Known): boolean => g.placed && ![...g.unstable].some((c) => writable.has(c))
    while (this.#groups[0] !== undefined && stable(this.#groups[0])) this.#groups.shift()
    return this.#groups[0]?.sequence ?? this.#next
  }
}

export interface Replay {
  /** In their order; parts of columns that can be read. */
  readonly groups: readonly (readonly JournalPart[])[]
  /** Groups that were certain and are not whole. */
  readonly damaged: number
}

/** @param found everything of the unit and epoch on the columns of `usable`. */
export const replayOf = (found: readonly JournalPart[], usable: ReadonlySet<number>): Replay => {
  const last = Math.max(0, ...found.map((p) => p.sequence))
  const tail = Math.max(0, ...found.map((p) => p.tail))
  const groups: (readonly JournalPart[])[] = []
  let damaged = 0
  for (let sequence = tail; sequence <= last; sequence++) {
    const parts = found.filter((p) => p.sequence === sequence)
    const mask = parts[0]?.mask ?? []
    const whole = parts.length > 0 && mask.every((c) => !usable.has(c) || parts.some((p) => p.column === c))
    if (!whole && sequence === last) break
    if (!whole) damaged++
    groups.push(parts)
  }
  return { groups, damaged }
}
