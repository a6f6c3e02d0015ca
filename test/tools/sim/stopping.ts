/**
 * The orderly end of metad, and what must be true of it: requests that were sent are answered, and when nothing is wrong
 * with a device everything that was answered is in its place and on stable storage, no region is dirty, the headers of
 * columns are of this state; after the next start everything is as it was, and no copy begins.
 */
import { isDeepStrictEqual } from 'node:util'
import type { Json } from '../../../src/db/types.js'
import { decodeHeader, encodeHeader, headerOf } from '../../../src/meta/raid5header.js'
import { servingColumns } from '../../../src/meta/raid5tables.js'
import { encodeUnit } from '../../../src/meta/records.js'
import { stripesOf } from '../../../src/meta/tree.js'
import type { MirrorUnit, Raid5Unit, UnitName } from '../../../src/meta/types.js'
import type { Checks } from './checks.js'
import type { Clients } from './client.js'
import type { Raid5Checks } from './raid5checks.js'
import type { Trouble } from './trouble.js'
import { settled } from './schedule.js'
import type { World } from './world.js'

const MAX_REQUESTS = 8

export class Stopping {
  readonly #world: World
  readonly #clients: ReadonlyMap<UnitName, Clients>
  readonly #trouble: Trouble
  readonly #checks: Checks
  readonly #raid5: Raid5Checks
  /** As they were when metad ended; only of devices with which nothing was wrong. */
  readonly #left = new Map<UnitName, readonly Json[]>()
  /** Ends that were judged: something could have been wrong about them. */
  judged = 0

  constructor(
    world: World,
    clients: ReadonlyMap<UnitName, Clients>,
    trouble: Trouble,
    checks: Checks,
    raid5: Raid5Checks,
  ) {
    this.#world = world
    this.#clients = clients
    this.#trouble = trouble
    this.#checks = checks
    this.#raid5 = raid5
  }

  /** metad has ended by itself, though it is still there to be looked at. */
  async stop(check: () => void): Promise<void> {
    const world = this.#world
    const { dice } = world.schedule
    const { system, db } = world.process
    for (let i = dice.below(MAX_REQUESTS); i > 0; i--) dice.pick([...this.#clients.values()]).request()
    await world.finish(system.stop(), check)
    const sound = db.health === 'good' ? [...this.#clients].filter(([name]) => this.#isSound(name)) : []
    for (const [name, clients] of sound) {
      if (!clients.quiet) world.broken(`${name}: metad has ended, and requests are not answered`)
      if (world.engineRaid5(name)?.groups.oldest(true) !== Infinity && world.raid5(name) !== undefined)
        world.broken(`${name}: metad has ended, and something is in memory alone`)
    }
    // The engine ends what is in flight.
    while (world.schedule.step()) {
      await settled()
      check()
    }
    for (const [name, clients] of sound) {
      if (!this.#isSound(name)) continue
      this.judged++
      const m = world.mirror(name)
      // What was answered is there for good. A side that is alone has no regions that had to be clean.
      if (m?.submirrors.length !== 1) clients.oracle.flushed(clients.oracle.flushing())
      if (m !== undefined) this.#mirror(m)
      const u = world.raid5(name)
      if (u !== undefined) this.#columns(u)
      this.#left.set(name, this.#recordsOf(name))
    }
  }

  /** Everything that it stands on is there and in step. */
  #isSound(name: UnitName): boolean {
    const world = this.#world
    const m = world.mirror(name)
    if (m !== undefined) {
      const whole = this.#trouble.wholeSides(name).length === m.submirrors.length
      return whole && this.#trouble.isSound(name) && world.engineMirror(name)?.unequal === false
    }
    const u = world.raid5(name)
    const whole = u?.columns.every((c) => c.state === 'okay') === true && u.copy === null && !u.regen
    return whole && this.#trouble.raid5.isSound(name)
  }

  #mirror(m: MirrorUnit): void {
    const world = this.#world
    const cells = Array.from({ length: world.cellsOf(m.name) }, (_, i) => i)
    this.#checks.holds(m.name, cells)
    const dirty = m.submirrors.length > 1 ? world.system.state.logs.dirty(m.name) : 0
    if (dirty > 0) world.broken(`${m.name}: metad has ended, and ${dirty} regions are dirty`)
  }

  #columns(u: Raid5Unit): void {
    const world = this.#world
    this.#raid5.inPlace(u)
    const { cellBlocks } = world.setup
    for (const [i, c] of servingColumns(u).entries()) {
      const header = headerOf(u, i, false)
      for (const value of world.disk(c.path).survivors(c.start / cellBlocks)) {
        const found = world.ledger.blockAt(value)
        if (header === null || found?.equals(encodeHeader(header)) !== true)
          world.broken(
            `${c.name} of ${u.name}: its header is ${JSON.stringify(found && decodeHeader(found))} at the end`,
          )
      }
    }
  }

  /** But for the epoch, which every start raises. */
  #recordsOf(name: UnitName): readonly Json[] {
    const { tree } = this.#world
    const u = tree.get(name)
    if (u?.kind === 'raid5') return [encodeUnit({ ...u, journal: { ...u.journal, epoch: 0 } })]
    return u?.kind === 'mirror' ? [u, ...stripesOf(u, tree)].map(encodeUnit) : []
  }

  /** Something failed while metad was away. */
  forget(): void {
    this.#left.clear()
  }

  /** metad serves again. */
  started(): void {
    for (const [name, left] of this.#left) {
      const now = this.#recordsOf(name)
      if (!isDeepStrictEqual(now, left))
        this.#world.broken(`${name} was ${JSON.stringify(left)} when metad ended, and is ${JSON.stringify(now)}`)
      if (this.#world.system.resyncs.isRunning(name))
        this.#world.broken(`${name}: a copy begins, and metad had ended in order`)
      if (this.#world.engineDevice(name) === undefined) this.#world.broken(`${name} is not served again`)
    }
    this.#left.clear()
  }
}
