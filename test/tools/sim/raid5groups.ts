/**
 * Groups of a simulated RAID5 device: dirty cells become parts in the ring of every column that takes part, are synced
 * and only then written in place. The order of all else is left to chance.
 */
import { SimJournal } from './raid5journal.js'
import { cellAt, lineOf, xor } from './raid5layout.js'
import type { ColumnOp, Raid5Core } from './raid5core.js'

interface Entry {
  readonly line: number
  readonly value: number
}

interface Group {
  readonly sequence: number
  readonly tail: number
  readonly mask: readonly number[]
  readonly parts: ReadonlyMap<number, { readonly id: number; readonly entries: readonly Entry[] }>
  readonly lines: readonly number[]
  /** Order of the oldest change in it. */
  readonly stamp: number
  phase: 'writing' | 'syncing' | 'placing'
  todo: Set<number>
  readonly failed: Set<number>
  flying: number
}

export interface GroupPort {
  readonly core: Raid5Core
  /** Nothing new is begun. */
  halted(): boolean
  columnFailed(column: number, op: ColumnOp, cell: number): void
  /** A group is committed, a line free, the journal shorter, or nothing in flight. */
  moved(): void
}

const MAX_LINES = 4

export class SimGroups {
  readonly #port: GroupPort
  journal = new SimJournal(1)
  #committing: Group | null = null
  #placing: Group[] = []
  #staging: readonly number[] = []
  /** Too much of it cannot be read: tried again when somebody asks. */
  readonly lost = new Set<number>()
  #flying = 0
  #syncs = 0
  #pumping = false
  /** Somebody wants what is dirty on the columns. */
  due = false
  /** Groups up to here are to be forgotten. */
  wantedTail = 0

  constructor(port: GroupPort) {
    this.#port = port
  }

  get flying(): number {
    return this.#flying
  }
  /** A line of which no change is on its way into place. */
  isFree(line: number): boolean {
    return !this.#port.core.pins.has(line) && !this.#staging.includes(line)
  }
  get isIdle(): boolean {
    return this.#committing === null && this.#placing.length === 0 && this.#staging.length === 0
  }
  get atRest(): boolean {
    return this.isIdle && this.#port.core.dirty.size === 0
  }

  #lineOf(cell: number): number {
    return lineOf(this.#port.core.node, cell).line
  }

  /** Order of the oldest change that is not on stable storage; Infinity: none. */
  oldest(lostToo: boolean): number {
    const orders = [...this.#port.core.dirty].flatMap(([cell, d]) =>
      lostToo || !this.lost.has(this.#lineOf(cell)) ? [d.order] : [],
    )
    return Math.min(this.#committing?.stamp ?? Infinity, ...orders)
  }

  /** Goes on with everything that can; `ended`: something just came to its end. */
  pump(ended = false): void {
    if (this.#pumping) return
    this.#pumping = true
    let steps = 0
    while (this.#step()) if (++steps > 10_000) throw new Error('groups go round in circles')
    this.#pumping = false
    if (ended || steps > 0) this.#port.moved()
  }

  #step(): boolean {
    if (this.#port.halted()) return false
    const group = this.#committing
    if (group?.flying === 0) return this.#advance(group)
    for (const placing of this.#placing) if (placing.flying === 0) return this.#advance(placing)
    if (this.#staging.length > 0) return false
    if (group === null && this.due && this.journal.hasRoom && this.#pick()) return true
    if (group !== null || this.#syncs > 0) return false
    const full = this.due && !this.journal.hasRoom
    if (!full && this.journal.durableTail > this.wantedTail) return false
    const { writable } = this.#port.core
    if (this.journal.tail(writable) > this.journal.durableTail) {
      this.#begin(new Map(), [], Infinity, [...writable])
      return true
    }
    const unstable = this.journal.unstable(writable)
    for (const c of unstable) {
      this.#syncs++
      this.#sync(c, () => this.#syncs--)
    }
    return unstable.length > 0
  }

  // ---- staging

  #pick(): boolean {
    const { core } = this.#port
    const lines = new Set([...core.dirty.keys()].map((cell) => this.#lineOf(cell)))
    const ready = [...lines].filter((l) => !core.pins.has(l) && !core.claimed.has(l) && !this.lost.has(l))
    this.#staging = ready.slice(0, 1 + core.host.schedule.dice.below(MAX_LINES))
    if (this.#staging.length === 0) {
      if (lines.size === 0) this.due = false
      return false
    }
    this.#later(() => {
      const lines = this.#staging
      this.#staging = []
      this.#stage(lines)
    })
    return true
  }

  /** In flight until it is done. */
  #later(what: () => void): void {
    this.#flying++
    this.#port.core.host.schedule.later(() => {
      this.#flying--
      what()
      this.pump(true)
    })
  }

  #stage(lines: readonly number[]): void {
    const { core } = this.#port
    const parts = new Map<number, Entry[]>()
    const staged: number[] = []
    let stamp = Infinity
    for (const line of lines) {
      const changed = this.#changedIn(line)
      const parity = this.#parityWith(line, changed)
      if (parity === undefined) {
        this.lost.add(line)
        continue
      }
      staged.push(line)
      const pin = new Map([...changed].map(([column, d]) => [column, d.value]))
      pin.set(core.parity(line), parity)
      core.pins.set(line, pin)
      for (const [column, value] of pin)
        if (core.writable.has(column)) parts.set(column, [...(parts.get(column) ?? []), { line, value }])
      for (const [column, d] of changed) {
        stamp = Math.min(stamp, d.order)
        const cell = cellAt(core.node, line, column)
        if (cell !== null) core.dirty.delete(cell)
      }
    }
    if (staged.length > 0) this.#begin(parts, staged, stamp, [...parts.keys()])
  }

  #changedIn(line: number): ReadonlyMap<number, { readonly value: number; readonly order: number }> {
    const { core } = this.#port
    const found = new Map<number, { readonly value: number; readonly order: number }>()
    for (let column = 0; column < core.node.serving; column++) {
      const cell = cellAt(core.node, line, column)
      const d = cell === null ? undefined : core.dirty.get(cell)
      if (d !== undefined) found.set(column, d)
    }
    return found
  }

  /** Of all data, or of what it was and what changed. */
  #parityWith(line: number, changed: ReadonlyMap<number, { readonly value: number }>): number | undefined {
    const { core } = this.#port
    const parity = core.parity(line)
    const data = core.columns.flatMap((_, i) => (i === parity ? [] : [i]))
    const byChange = core.host.schedule.dice.chance(50)
    if (byChange && core.missing === 0) {
      const old = [core.seen(line, parity), ...[...changed.keys()].map((c) => core.seen(line, c))]
      const known = old.filter((v) => v !== undefined)
      if (known.length === old.length) return xor([...known, ...[...changed.values()].map((d) => d.value)])
    }
    const values = data.map((c) => changed.get(c)?.value ?? core.content(line, c))
    const known = values.filter((v) => v !== undefined)
    return known.length === values.length ? xor(known) : undefined
  }

  // ---- phases

  #begin(
    entries: ReadonlyMap<number, readonly Entry[]>,
    lines: readonly number[],
    stamp: number,
    mask: readonly number[],
  ): void {
    const { core } = this.#port
    const tail = this.journal.tail(core.writable)
    const sequence = this.journal.begin()
    const { unit, epoch } = core.node
    const parts = new Map(
      mask.map((column) => {
        const own = entries.get(column) ?? []
        const id = core.host.ledger.part({ unit, epoch, sequence, tail, column, mask, entries: own })
        return [column, { id, entries: own }]
      }),
    )
    this.#committing = {
      sequence,
      tail,
      mask,
      parts,
      lines,
      stamp,
      phase: 'writing',
      todo: new Set(mask),
      failed: new Set(),
      flying: 0,
    }
  }

  #advance(group: Group): boolean {
    const { writable } = this.#port.core
    for (const c of group.todo) if (!writable.has(c)) group.todo.delete(c)
    if (group.todo.size > 0) {
      this.#issue(group)
      return true
    }
    switch (group.phase) {
      case 'writing':
        group.phase = 'syncing'
        group.todo = new Set(group.mask)
        break
      case 'syncing':
        this.journal.committed(group.tail)
        group.phase = 'placing'
        group.todo = new Set(group.mask)
        this.#committing = null
        this.#placing.push(group)
        this.#port.moved()
        break
      case 'placing':
        this.#placing = this.#placing.filter((g) => g !== group)
        this.journal.placed(group.sequence, group.lines.length === 0 ? [] : group.mask)
        for (const line of group.lines) this.#port.core.pins.delete(line)
    }
    return true
  }

  #issue(group: Group): void {
    const { core } = this.#port
    const { dice } = core.host.schedule
    group.failed.clear()
    for (const c of group.todo) {
      const part = group.parts.get(c)
      if (group.phase === 'syncing') {
        group.flying++
        this.#sync(c, (good) => this.#ended(group, c, good))
        continue
      }
      const cells =
        group.phase === 'writing'
          ? [{ cell: this.journal.cellOf(group.sequence), value: part?.id ?? 0 }]
          : (part?.entries ?? []).map((e) => ({ cell: core.prewrite + e.line, value: e.value }))
      for (const { cell, value } of cells) {
        group.flying++
        const write = (index: number, then: () => void): void => {
          this.#later(() => {
            const at = core.at(index, cell)
            if (core.disk(index).write(at, value, dice)) return then()
            this.#port.columnFailed(index, 'write', at)
            this.#ended(group, c, false)
          })
        }
        const done = (): void => {
          this.#ended(group, c, true)
        }
        write(c, () => {
          const copy = core.copyOf(c)
          if (copy === null) done()
          else write(copy, done)
        })
      }
    }
    if (group.flying === 0) group.todo.clear()
  }

  #ended(group: Group, column: number, good: boolean): void {
    if (!good) group.failed.add(column)
    if (--group.flying === 0) group.todo = new Set([...group.todo].filter((c) => group.failed.has(c)))
  }

  #sync(column: number, done: (good: boolean) => void): void {
    const reached = this.journal.syncing(column)
    const { core } = this.#port
    const sync = (index: number, then: () => void): void => {
      this.#later(() => {
        if (core.sync(index)) return then()
        this.#port.columnFailed(index, 'flush', 0)
        done(false)
      })
    }
    const both = (): void => {
      reached()
      done(true)
    }
    sync(column, () => {
      const copy = core.copyOf(column)
      if (copy === null) both()
      else sync(copy, both)
    })
  }
}
