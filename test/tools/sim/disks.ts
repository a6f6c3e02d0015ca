/**
 * Simulated disks. A disk is a row of cells, each old or new as a whole; what was written but not
 * synced may be lost, cell by cell, when the power goes.
 *
 * Permitted faults: an operation answers an error (the write may have happened or not), a cell cannot
 * be read until it is written again, the disk cannot be opened, the power is lost. A disk never answers
 * other data than it holds and never loses what it said was synced.
 */
import type { Dice } from './schedule.js'

const EIO = 5
const ETIMEDOUT = 110

export class SimDisk {
  readonly name: string
  readonly cells: number
  #now: number[]
  #stable: number[]
  readonly #bad = new Set<number>()
  failing: { read: boolean; write: boolean; sync: boolean } = { read: false, write: false, sync: false }
  canOpen = true
  /** Nothing comes back in time; what was on its way may happen later. */
  hangs = false
  #late: (() => void)[] = []
  /** Grows when the disk is exchanged for an empty one: the identity of the storage. */
  generation = 0

  /** @param old what it holds to begin with */
  constructor(name: string, cells: number, old: (cell: number) => number = () => 0) {
    this.name = name
    this.cells = cells
    this.#now = Array.from({ length: cells }, (_, i) => old(i))
    this.#stable = [...this.#now]
  }

  get fails(): boolean {
    return this.failing.read || this.failing.write || this.failing.sync
  }

  get isSound(): boolean {
    return !this.fails && !this.hangs && this.canOpen && this.#bad.size === 0
  }

  /** @returns undefined for an error */
  read(cell: number): number | undefined {
    return this.failing.read || this.hangs || this.#bad.has(cell) ? undefined : this.peek(cell)
  }

  /** What it holds, errors or not. */
  peek(cell: number): number {
    const value = this.#now[cell]
    if (value === undefined) throw new Error(`${this.name}: no cell ${cell}`)
    return value
  }

  /** What it may hold after a power loss. */
  survivors(cell: number): readonly number[] {
    return [...new Set([this.peek(cell), this.#stable[cell] ?? 0])]
  }

  write(cell: number, value: number, dice: Dice): boolean {
    this.peek(cell)
    if (this.hangs) {
      this.#late.push(() => (this.#now[cell] = value))
      return false
    }
    // A failed write has happened or not: nobody knows.
    if (this.failing.write) {
      if (dice.chance(50)) this.#now[cell] = value
      return false
    }
    this.#now[cell] = value
    this.#bad.delete(cell)
    return true
  }

  sync(): boolean {
    if (this.failing.sync || this.hangs) return false
    this.#stable = [...this.#now]
    return true
  }

  spoil(cell: number): void {
    this.#bad.add(cell)
  }

  /** As errors of it are reported. */
  get errno(): number {
    return this.hangs ? ETIMEDOUT : EIO
  }
  /** The kernel still has something that was given up. */
  get busy(): boolean {
    return this.#late.length > 0
  }
  /** The process is gone, and what the kernel had of it. */
  forget(): void {
    this.#late = []
  }

  heal(): void {
    this.hangs = false
    for (const land of this.#late.splice(0)) land()
    this.failing = { read: false, write: false, sync: false }
    this.#bad.clear()
    this.canOpen = true
  }

  /** What no error tells of: other data, there for good. */
  corrupt(cell: number, value: number): void {
    this.peek(cell)
    this.#now[cell] = this.#stable[cell] = value
    this.#bad.delete(cell)
  }

  /** Another, empty disk in the same place. */
  exchange(): void {
    this.heal()
    this.generation++
    this.#now = new Array<number>(this.cells).fill(0)
    this.#stable = [...this.#now]
  }

  powerLoss(dice: Dice): void {
    for (let i = 0; i < this.cells; i++) if (dice.chance(50)) this.#now[i] = this.#stable[i] ?? 0
    this.#stable = [...this.#now]
  }
}
