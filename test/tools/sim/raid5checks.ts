/**
 * What must hold of RAID5 devices after every step: computed from the durable records, the disks and what clients
 * know, with none of metad's own judgement.
 *
 * - a line of which nothing is on its way holds what clients know on every column that the records trust, its parity
 *   is right, and the column that they do not trust can be made from the others;
 * - at every start each cell is what was flushed last or written later, parity is right, and the epoch is one
 *   that no start had before, on record;
 * - a plan says what some record said; what waited for a decision goes on without what is in Maintenance;
 * - a column that went into Maintenance had all its data elsewhere; at most one is out; one that joins is zeroes;
 * - what lies below a checkpoint is in step; who comes in step has its header before;
 * - in the end nothing waits: what can be in step is, and everything is in place.
 */
import { decodeHeader } from '../../../src/meta/raid5header.js'
import { wantedRaid5Jobs } from '../../../src/meta/raid5jobs.js'
import { isRaw, membersOf } from '../../../src/meta/raid5tables.js'
import type { Column, Raid5Unit, UnitName } from '../../../src/meta/types.js'
import type { ComponentNode, Plan } from '../../../src/plan/types.js'
import type { Clients } from './client.js'
import { identityOf } from './components.js'
import { cellAt, columnsOf, parityOf, raid5Of, xor } from './raid5layout.js'
import type { World } from './world.js'

const isTrusted = (c: Column): boolean => c.state === 'okay' || c.state === 'lastErred'
const CHECKED_LINES = 3

export class Raid5Checks {
  readonly #world: World
  readonly #clients: ReadonlyMap<UnitName, Clients>
  readonly #known = new Map<UnitName, Raid5Unit>()
  /** Everything that was on record of a device since metad started. */
  readonly #history = new Map<UnitName, Raid5Unit[]>()
  /** By number of the journal: the last epoch that was written in. */
  readonly #epochs = new Map<number, number>()
  /** Journals that -k has taken up again: their epochs begin anew, after those that the rings have. */
  readonly #takenUp = new Set<number>()
  #next = 0

  constructor(world: World, clients: ReadonlyMap<UnitName, Clients>) {
    this.#world = world
    this.#clients = clients
  }

  restarted(): void {
    this.#known.clear()
    this.#history.clear()
  }

  step(): void {
    this.#next += CHECKED_LINES
    for (const { name } of this.#world.setup.raid5s) {
      const u = this.#world.raid5(name)
      if (u === undefined) {
        this.#known.delete(name)
        continue
      }
      const before = this.#known.get(name)
      if (before !== u) {
        this.#known.set(name, u)
        this.#note(u)
        this.#checkUnit(u)
        if (before?.journal.unit === u.journal.unit) this.#checkChange(before, u)
      }
      for (let i = 0; i < CHECKED_LINES; i++) this.#holds(u, (this.#next + i) % u.lines)
    }
  }

  #note(u: Raid5Unit): void {
    const all = this.#history.get(u.name) ?? []
    if (all.at(-1) !== u) all.push(u)
    this.#history.set(u.name, all)
    const { unit, epoch } = u.journal
    if (epoch === 1 && (this.#epochs.get(unit) ?? 0) > 1) this.#takenUp.add(unit)
  }

  #nameOf(device: number): UnitName | undefined {
    return this.#world.system.parts.metadevices.nameOf(device)
  }

  /** A cell of the column as the records know it; null: the disk is another one. */
  #held(u: Raid5Unit, index: number, line: number): number | null {
    const { cellBlocks } = this.#world.setup
    const c = u.columns[index]
    if (c === undefined) return null
    const disk = this.#world.disk(c.path)
    return identityOf(disk) === c.identity ? disk.peek((c.start + u.prewrite) / cellBlocks + line) : null
  }

  #sumOfOthers(u: Raid5Unit, index: number, line: number): number | null {
    const values: number[] = []
    for (const [i, c] of u.columns.slice(0, u.serving).entries()) {
      const held = this.#held(u, i, line)
      if (i === index) continue
      if (!isTrusted(c) || held === null) return null
      values.push(held)
    }
    return xor(values)
  }

  #isAtRest(u: Raid5Unit, line: number): boolean {
    const engine = this.#world.engineRaid5(u.name)
    if (engine?.serves !== true || !engine.groups.isFree(line)) return false
    const cells = u.columns.slice(0, u.serving).map((_, i) => cellAt(u, line, i))
    return cells.every((cell) => cell === null || !engine.core.dirty.has(cell))
  }

  #holds(u: Raid5Unit, line: number): void {
    const oracle = this.#clients.get(u.name)?.oracle
    if (oracle === undefined || isRaw(u) || !this.#isAtRest(u, line)) return
    if (this.#world.spoiled.get(u.name)?.has(line) === true) return
    const serving = u.columns.slice(0, u.serving)
    const whole = serving.every((c, i) => isTrusted(c) && this.#held(u, i, line) !== null)
    if (whole && xor(serving.map((_, i) => this.#held(u, i, line) ?? 0)) !== 0)
      this.#world.broken(`${u.name} line ${line}: parity on column ${parityOf(u, line)} is wrong`)
    for (const [i, c] of serving.entries()) {
      const cell = cellAt(u, line, i)
      const value = cell === null || cell >= oracle.size ? undefined : oracle.certain(cell)
      if (value === undefined) continue
      const held = isTrusted(c) ? this.#held(u, i, line) : this.#sumOfOthers(u, i, line)
      if (held !== null && held !== value)
        this.#world.broken(
          `${u.name} cell ${cell ?? ''} on ${c.name} (${c.state}): ${held} where clients know ${value}`,
        )
    }
  }

  /** Of the column in resync, what is recorded as made. */
  #checkCheckpoint(u: Raid5Unit): void {
    const { checkpoint } = u
    if (checkpoint === null) return
    const { column, done, identity } = checkpoint
    const c = u.columns[column]
    if (c?.state !== 'resync' || c.identity !== identity) this.#world.broken(`${u.name} has a checkpoint of nothing`)
    for (let line = 0; line * this.#world.setup.cellBlocks < done; line++) {
      const held = this.#held(u, column, line)
      const wanted = this.#sumOfOthers(u, column, line)
      if (!this.#isAtRest(u, line) || held === null || wanted === null || held === wanted) continue
      this.#world.broken(`${u.name} line ${line} is below the checkpoint, and column ${column} is not the sum there`)
    }
  }

  /** What is recorded as copied is the same on both. */
  #checkCopy(u: Raid5Unit): void {
    const { copy } = u
    if (copy === null) return
    const { cellBlocks } = this.#world.setup
    const disk = this.#world.disk(copy.to.path)
    if (identityOf(disk) !== copy.to.identity) return
    for (let line = 0; line * cellBlocks < copy.done; line++) {
      const held = disk.peek((copy.to.start + u.prewrite) / cellBlocks + line)
      const wanted = this.#held(u, copy.of, line)
      if (!this.#isAtRest(u, line) || wanted === null || held === wanted) continue
      this.#world.broken(`${u.name} line ${line} is below the checkpoint, and ${copy.to.name} has other data there`)
    }
  }

  #checkUnit(u: Raid5Unit): void {
    if (isRaw(u)) return
    const out = u.columns.slice(0, u.serving).filter((c) => !isTrusted(c))
    if (out.length > 1) this.#world.broken(`${u.name}: ${out.map((c) => c.name).join(' and ')} are out`)
    for (let line = 0; line < u.lines; line++) this.#holds(u, line)
    this.#checkCheckpoint(u)
    this.#checkCopy(u)
  }

  #checkChange(before: Raid5Unit, u: Raid5Unit): void {
    for (const [i, c] of u.columns.slice(0, before.serving).entries()) {
      const was = before.columns[i]
      if (isRaw(before) || was === undefined || !isTrusted(was) || isTrusted(c)) continue
      const others = u.columns.slice(0, u.serving).filter((o) => o !== c)
      // What failed after it, in the same decision, has its data too.
      const later = (o: Column): boolean =>
        o.state === 'lastErred' && (c.state === 'resync' || o.erredOrder > c.erredOrder)
      const enough = (o: Column): boolean => o.state === 'okay' || later(o)
      if (!others.every(enough)) this.#world.broken(`${u.name}: ${c.name} is ${c.state}, and nothing else has its data`)
    }
    const first = isRaw(before) && !isRaw(u) ? 0 : before.serving
    for (const c of u.columns.slice(first, u.serving)) this.#checkJoined(u, c)
    for (const [i, c] of u.columns.entries()) {
      const was = before.columns[i]
      const joined = was?.state === 'resync' || was?.state === 'init'
      if (c.state === 'okay' && joined && i < u.serving) this.#checkHeader(u, i, was)
    }
    if (u.journal.epoch < before.journal.epoch) this.#world.broken(`${u.name}: the epoch went back`)
  }

  /** What -k would know of a column that came in step: newer than its failure, and durable. */
  #checkHeader(u: Raid5Unit, index: number, was: Column): void {
    const c = u.columns[index]
    if (c === undefined) return
    const { cellBlocks } = this.#world.setup
    for (const value of this.#world.disk(c.path).survivors(c.start / cellBlocks)) {
      const block = this.#world.ledger.blockAt(value)
      const header = block === undefined ? undefined : decodeHeader(block)?.header
      const fits = header?.column === index && header.columns === u.serving && header.unit === u.minor
      if (!fits || (was.state === 'resync' && header.generation <= was.erredOrder))
        this.#world.broken(`${u.name}: ${c.name} is in step, and its header does not say so`)
    }
  }

  /** Everything works again, and all that is wanted was asked for: what can be in step is, and nothing is on its way. */
  rested(): void {
    for (const { name } of this.#world.setup.raid5s) {
      const u = this.#world.raid5(name)
      if (u === undefined || u.columns.some((c) => identityOf(this.#world.disk(c.path)) !== c.identity)) continue
      const engine = this.#world.engineRaid5(name)
      // A sync that failed is believed as long as the disk is open: a journal that needs it is not replayed before a restart.
      const doubted = engine?.core.columns.some((_, i) => !engine.core.isTrusted(i)) === true
      if (engine?.serves !== true && !doubted)
        this.#world.broken(`${name} is not served, and all its columns are there`)
      if (doubted || u.columns.some((c) => c.state === 'lastErred')) continue
      if (engine !== undefined && !engine.atRest) this.#world.broken(`${name} does not come to rest`)
      for (const t of wantedRaid5Jobs(u)) this.#world.broken(`${name} wants ${JSON.stringify(t)}, and nothing does it`)
      for (let line = 0; line < u.lines; line++) this.#holds(u, line)
    }
  }

  /** Nothing is in memory or on its way, and every line is what clients know. */
  inPlace(u: Raid5Unit): void {
    if (this.#world.engineRaid5(u.name)?.groups.atRest !== true)
      this.#world.broken(`${u.name}: metad has ended, and something is not in its place`)
    for (let line = 0; line < u.lines; line++) this.#holds(u, line)
  }

  /** Parity is right without it, whatever a power loss takes. */
  #checkJoined(u: Raid5Unit, c: Column): void {
    const { cellBlocks } = this.#world.setup
    const disk = this.#world.disk(c.path)
    const first = (c.start + u.prewrite) / cellBlocks
    for (let i = first; i < first + u.lines; i++)
      if (disk.survivors(i).some((v) => v !== 0)) this.#world.broken(`${c.name} joined ${u.name} and is not zeroes`)
  }

  // ---- what metad does

  #isPlanOf(plan: Plan, u: Raid5Unit): boolean {
    const node = raid5Of(plan)
    const { components } = this.#world.process
    const fits = (n: ComponentNode, c: Column, i: number): boolean => {
      const written = isTrusted(c) || c.state === 'resync' || c.state === 'init'
      if (i >= u.serving && !n.writable) return true
      if (n.readable !== isTrusted(c) || n.writable !== written) return false
      if (n.lastErred > 0 !== (c.state === 'lastErred')) return false
      return !written || components.isOf(n.component, c)
    }
    const nodes = columnsOf(plan)
    return (
      node.unit === u.journal.unit &&
      node.epoch === u.journal.epoch &&
      node.serving === u.serving &&
      node.copied === (nodes.length > u.columns.length ? u.copy?.of : null) &&
      membersOf(u).every((c, i) => {
        // What a column is to be copied to may be away.
        const n = nodes[i]
        return n === undefined ? c === u.copy?.to : fits(n, c, i)
      })
    )
  }

  mounted(device: number, plan: Plan, anew: boolean): void {
    const name = this.#nameOf(device)
    const u = name === undefined ? undefined : this.#world.raid5(name)
    if (u === undefined) return
    this.#note(u)
    const all = this.#history.get(u.name) ?? []
    if (!all.some((old) => this.#isPlanOf(plan, old))) this.#world.broken(`${u.name}: a plan that is on no record`)
    // Nothing was written by clients.
    if (isRaw(u)) return
    const { unit, epoch } = raid5Of(plan)
    const usedBefore = this.#takenUp.has(unit)
      ? this.#isInRings(u, plan, epoch)
      : epoch <= (this.#epochs.get(unit) ?? 0)
    if (anew && usedBefore) this.#world.broken(`${u.name}: epoch ${epoch} was written in before`)
    this.#takenUp.delete(unit)
    this.#epochs.set(unit, epoch)
    if (anew) this.#checkStart(u, plan)
  }

  /** A part of this epoch, or of a later one, lies where a replay would find it. */
  #isInRings(u: Raid5Unit, plan: Plan, epoch: number): boolean {
    const { cellBlocks } = this.#world.setup
    const { ledger } = this.#world
    const { components } = this.#world.process
    return columnsOf(plan).some((n, column) => {
      const disk = n.readable ? components.disk(n.component) : undefined
      return Array.from({ length: u.prewrite / cellBlocks }, (_, i) => n.start / cellBlocks + i).some((cell) => {
        const part = disk === undefined ? undefined : ledger.partAt(disk.peek(cell))
        return part?.unit === u.journal.unit && part.column === column && part.epoch >= epoch
      })
    })
  }

  /** The journal was replayed: nothing is in memory or on its way. */
  #checkStart(u: Raid5Unit, plan: Plan): void {
    const oracle = this.#clients.get(u.name)?.oracle
    const nodes = columnsOf(plan).slice(0, u.serving)
    const { cellBlocks } = this.#world.setup
    const { components } = this.#world.process
    if (oracle === undefined || nodes.filter((n) => !n.readable).length > 1) return
    const held = (i: number, line: number): number => {
      const n = nodes[i]
      return n?.readable === true ? components.disk(n.component).peek((n.start + u.prewrite) / cellBlocks + line) : 0
    }
    for (let line = 0; line < u.lines; line++) {
      const all = nodes.map((_, i) => held(i, line))
      const sum = xor(all)
      if (nodes.every((n) => n.readable) && sum !== 0)
        this.#world.broken(`${u.name} line ${line}: parity is wrong after the start`)
      for (const [i, n] of nodes.entries()) {
        const cell = cellAt(u, line, i)
        if (cell === null || cell >= oracle.size) continue
        const value = n.readable ? (all[i] ?? 0) : sum
        if (!oracle.permits(oracle.possible(cell), value))
          this.#world.broken(
            `${u.name} cell ${cell} is ${value} after the start, permitted ${[...oracle.possible(cell)].join(' ')}`,
          )
        oracle.settled(cell, value)
      }
    }
  }

  resuming(device: number): void {
    const name = this.#nameOf(device)
    const engine = this.#world.process.engine.raid5(device)
    const u = name === undefined ? undefined : this.#world.raid5(name)
    if (u === undefined || engine === undefined) return
    for (const [i, c] of u.columns.slice(0, u.serving).entries()) {
      const node = engine.core.all[i]
      if (node?.writable !== true || c.state !== 'erred') continue
      if (this.#world.process.components.isOf(node.component, c))
        this.#world.broken(`${u.name}: requests go on, and ${c.name} is still in the plan`)
    }
  }

  noticed(text: string): void {
    const erred = /: (\S+) needs maintenance/.exec(text)?.[1]
    for (const { name } of erred === undefined ? [] : this.#world.setup.raid5s)
      if (this.#world.raid5(name)?.columns.some((c) => c.name === erred && c.state === 'okay') === true)
        this.#world.broken(`${erred ?? ''} is said to need maintenance, and is not on record`)
  }
}
