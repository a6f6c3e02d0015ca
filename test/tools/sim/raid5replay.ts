/** The replay of a simulated RAID5 journal: step by step, so that it may be interrupted anywhere, and made again. */
import type { Raid5Core } from './raid5core.js'
import { replayOf, type Replay } from './raid5journal.js'
import { xor } from './raid5layout.js'
import { blocks } from '../../../src/base/units.js'
import type { JournalPart } from './ledger.js'

const EIO = 5
const ENOMEM = 12

export class SimReplay {
  readonly #core: Raid5Core
  readonly #over: () => void
  #running = true
  /** Of what is replayed: the record's, or a later one that the rings have. */
  #epoch: number

  constructor(core: Raid5Core, over: () => void) {
    this.#core = core
    this.#epoch = core.node.epoch
    this.#over = over
    core.host.schedule.later(() => this.#scan())
  }

  get running(): boolean {
    return this.#running
  }

  #end(errno: number, groups: number, cells: number, damaged: number): void {
    const { host, device, plan } = this.#core
    this.#running = false
    const { generation } = plan
    const epoch = this.#epoch
    const told = { errno, groups, blocks: blocks(cells * host.cellBlocks), damaged, epoch }
    host.event({ kind: 'replayed', device, generation, ...told })
    this.#over()
  }

  #failed(column: number, op: 'read' | 'write' | 'flush', cell: number): void {
    this.#core.report(column, op, cell, true)
    this.#end(EIO, 0, 0, 0)
  }

  #scan(): void {
    const core = this.#core
    // A picture instead of a replay (docs/raid5.md): here there is never memory for one.
    if (core.plan.readOnly) return this.#end(ENOMEM, 0, 0, 0)
    const { unit, epoch } = core.node
    const found: JournalPart[] = []
    for (const column of core.readable)
      for (let position = 1; position < core.prewrite; position++) {
        const cell = core.at(column, position)
        const value = core.disk(column).read(cell)
        if (value === undefined) return this.#failed(column, 'read', cell)
        const part = core.host.ledger.partAt(value)
        if (part?.unit === unit && part.epoch >= epoch && part.column === column) found.push(part)
      }
    this.#epoch = Math.max(epoch, ...found.map((p) => p.epoch))
    const newest = found.filter((p) => p.epoch === this.#epoch)
    const replay = replayOf(newest, core.readable)
    core.host.schedule.later(() => this.#settle(replay))
  }

  /** What was read may be there for this process alone: nothing may be in place of a group that the next one misses. */
  #settle(replay: Replay): void {
    for (const column of replay.groups.length > 0 ? this.#core.readable : [])
      if (!this.#core.sync(column)) return this.#failed(column, 'flush', 0)
    this.#core.host.schedule.later(() => this.#carryOut(replay, 0, new Set()))
  }

  #carryOut(replay: Replay, at: number, lines: ReadonlySet<number>): void {
    const core = this.#core
    const group = replay.groups[at]
    if (group === undefined) return this.#derive(replay, lines)
    const { dice } = core.host.schedule
    for (const { column, entries } of group)
      for (const { line, value } of entries) {
        const cell = core.place(column, line)
        if (!core.disk(column).write(cell, value, dice)) return this.#failed(column, 'write', cell)
        const copy = core.copyOf(column)
        const there = copy === null ? 0 : core.place(copy, line)
        if (copy !== null && !core.disk(copy).write(there, value, dice)) return this.#failed(copy, 'write', there)
      }
    const touched = group.flatMap((p) => p.entries.map((e) => e.line))
    core.host.schedule.later(() => this.#carryOut(replay, at + 1, new Set([...lines, ...touched])))
  }

  /** A column in regeneration gets what the others say. */
  #derive(replay: Replay, lines: ReadonlySet<number>): void {
    const core = this.#core
    const { dice } = core.host.schedule
    for (const column of core.writable) {
      if (core.readable.has(column) || core.missing > 1) continue
      for (const line of lines) {
        const values: number[] = []
        for (const other of core.readable) {
          const cell = core.place(other, line)
          const value = core.disk(other).read(cell)
          if (value === undefined) return this.#failed(other, 'read', cell)
          values.push(value)
        }
        const cell = core.place(column, line)
        if (!core.disk(column).write(cell, xor(values), dice)) return this.#failed(column, 'write', cell)
      }
    }
    core.host.schedule.later(() => this.#sync(replay, lines.size))
  }

  #sync(replay: Replay, lines: number): void {
    const core = this.#core
    const copies = [...core.writable].flatMap((c) => core.copyOf(c) ?? [])
    for (const column of [...core.writable, ...copies]) if (!core.sync(column)) return this.#failed(column, 'flush', 0)
    this.#end(0, replay.groups.length, lines, replay.damaged)
  }
}
