/**
 * What does not fit into the number of a cell: blocks that metad writes itself, and parts of journals. The cell has
 * a number of the ledger, which outlives processes as the disks do.
 */

/** Clients' values are smaller. */
const BASE = 2 ** 29

/** One column's part of a group, as it lies in the ring. */
export interface JournalPart {
  readonly unit: number
  readonly epoch: number
  readonly sequence: number
  readonly tail: number
  readonly column: number
  /** Columns that take part. */
  readonly mask: readonly number[]
  readonly entries: readonly { readonly line: number; readonly value: number }[]
}

export class Ledger {
  readonly #parts = new Map<number, JournalPart>()
  readonly #blocks = new Map<number, Buffer>()
  #next = BASE

  part(p: JournalPart): number {
    this.#parts.set(this.#next, p)
    return this.#next++
  }
  block(b: Buffer): number {
    this.#blocks.set(this.#next, Buffer.from(b))
    return this.#next++
  }
  /** undefined: no part of a journal. */
  partAt(value: number): JournalPart | undefined {
    return this.#parts.get(value)
  }
  blockAt(value: number): Buffer | undefined {
    return this.#blocks.get(value)
  }
}
