/**
 * Faults of disks, within a pattern that redundancy can bear: of a mirror the disks of one side at a time, and only
 * while another side is whole; disks that nobody uses at any time. In a `wild` run any disk at any time: then errors
 * may reach clients, and wrong data still must not.
 */
import { stripeComponents } from '../../../src/meta/sources.js'
import { configured } from '../../../src/meta/standing.js'
import { isMetadevice, ownComponents, parentOf } from '../../../src/meta/tree.js'
import type { UnitName } from '../../../src/meta/types.js'
import type { SimDisk } from './disks.js'
import { componentsOfSide } from './layout.js'
import { Raid5Trouble } from './raid5trouble.js'
import type { World } from './world.js'

const WILD_PERCENT = 30
const STRIKE_PERCENT = 25

export class Trouble {
  readonly #world: World
  readonly wild: boolean
  /** By mirror: the side whose disks may misbehave; none: all are well. */
  readonly #at = new Map<UnitName, UnitName>()
  faults = 0
  heals = 0
  hangs = 0
  readonly raid5: Raid5Trouble

  constructor(world: World) {
    this.#world = world
    this.wild = world.schedule.dice.chance(WILD_PERCENT)
    this.raid5 = new Raid5Trouble(world, this.wild)
  }

  /** What a submirror stands on, or will again when its spares leave. */
  #disksOf(unit: UnitName): readonly SimDisk[] {
    const all = stripeComponents(this.#world.stripe(unit))
    return [...new Set(all.flatMap((c) => [c.path, configured(c).path]))].map((name) => this.#world.disk(name))
  }

  #idleDisks(): readonly SimDisk[] {
    const used = new Set<SimDisk>()
    for (const u of this.#world.tree.values())
      for (const c of isMetadevice(u) ? ownComponents(u) : [])
        for (const name of [c.path, configured(c).path]) used.add(this.#world.disk(name))
    return [...this.#world.disks.values()].filter((d) => !used.has(d))
  }

  /** Sides on which every block can be read, whatever happens to the others. */
  wholeSides(name: UnitName): readonly UnitName[] {
    const m = this.#world.mirror(name)
    const engine = this.#world.engineMirror(name)
    if (m === undefined || engine === undefined) return []
    return m.submirrors.flatMap((s) => {
      const side = engine.mirror.sides.find((x) => x.slot === s.slot)
      if (side === undefined || !side.readable || side.stale || s.state !== 'okay') return []
      const good = componentsOfSide(engine.plan, side).every((n) => n.readable && n.lastErred === 0)
      const current = stripeComponents(this.#world.stripe(s.unit))
      const healthy = current.every((c) => c.state === 'okay' && this.#world.disk(c.path).isSound)
      return good && healthy ? [s.unit] : []
    })
  }

  /** Nothing is wrong with any disk that the mirror stands on. */
  isSound(name: UnitName): boolean {
    return this.#world.mirror(name)?.submirrors.every((s) => this.#disksOf(s.unit).every((d) => d.isSound)) === true
  }

  /** Whether an error would break promise P4 now. */
  strict(name: UnitName): boolean {
    const world = this.#world
    return world.running && world.process.db.health === 'good' && this.wholeSides(name).length > 0
  }

  #isPart(name: UnitName, unit: UnitName): boolean {
    return this.#world.mirror(name)?.submirrors.some((s) => s.unit === unit) === true
  }

  /** Side of the mirror that may be hurt now. */
  #victim(name: UnitName): UnitName | null {
    const { dice } = this.#world.schedule
    const m = this.#world.mirror(name)
    if (m === undefined) return null
    const side = this.#at.get(name) ?? dice.pick(m.submirrors).unit
    if (!this.wild) {
      const others = this.wholeSides(name).filter((s) => s !== side)
      if (this.#at.has(name) ? dice.chance(60) : others.length === 0) return null
    }
    return side
  }

  /** How often faults come, in 2000 turns. */
  get rate(): number {
    return this.wild ? 24 : 8
  }

  fault(): void {
    const { schedule, setup } = this.#world
    const { dice } = schedule
    const idle = this.#idleDisks()
    if (idle.length > 0 && dice.chance(12)) return this.#hurtMember(dice.pick(idle))
    const { name } = dice.pick([...setup.mirrors, ...setup.raid5s])
    if (this.#world.raid5Setup(name) !== undefined) return this.#hurtColumn(name)
    const side = this.#victim(name)
    if (side === null) return
    if (!this.wild) this.#at.set(name, side)
    this.faults++
    this.#hurtMember(dice.pick(this.#disksOf(side)))
  }

  /** Something has begun that is to fail now and then. */
  strike(name: UnitName): void {
    if (this.#world.schedule.dice.chance(STRIKE_PERCENT)) this.#hurtColumn(name)
  }

  #hurtColumn(name: UnitName): void {
    const { dice } = this.#world.schedule
    const disks = this.raid5.victims(name)
    if (disks.length === 0) return
    this.faults++
    this.#hurtMember(dice.pick(disks))
  }

  #hurtMember(disk: SimDisk): void {
    const { dice } = this.#world.schedule
    if (!dice.chance(15)) return this.#hurt(disk)
    this.#world.tell(`${disk.name} hangs`)
    this.hangs++
    disk.hangs = true
  }

  #hurt(disk: SimDisk): void {
    const { dice } = this.#world.schedule
    const what = dice.below(6)
    this.#world.tell(`fault ${what} on ${disk.name}`)
    if (what === 0) disk.failing = { ...disk.failing, write: true }
    else if (what === 1) disk.failing = { ...disk.failing, read: true }
    else if (what === 2) disk.failing = { ...disk.failing, sync: true }
    else if (what === 3) disk.failing = { read: true, write: true, sync: true }
    else if (what === 4) disk.canOpen = false
    else for (let i = 0; i < 4; i++) disk.spoil(dice.below(disk.cells))
  }

  heal(): void {
    this.heals++
    const world = this.#world
    const { dice } = world.schedule
    if (dice.chance(30)) for (const d of this.#idleDisks()) d.heal()
    if (this.wild) return this.#healAny()
    this.raid5.heal()
    for (const [name, side] of this.#at) {
      for (const d of this.#disksOf(side)) d.heal()
      world.tell(`${side} healed`)
      // What was evicted comes back before another side may fail.
      if (this.wholeSides(name).includes(side) || !this.#isPart(name, side)) this.#at.delete(name)
    }
  }

  #healAny(): void {
    const { dice } = this.#world.schedule
    for (const d of this.#world.disks.values()) if (dice.chance(50)) d.heal()
    this.#world.tell('some disks healed')
  }

  everything(): void {
    this.heals++
    for (const d of this.#world.disks.values()) d.heal()
  }

  /** Together with a crash a side may be lost (promise P3): the one that is in trouble. Disks may be other ones after it. @returns whether one was. */
  withCrash(): boolean {
    const { dice } = this.#world.schedule
    if (!dice.chance(20)) return false
    this.raid5.withCrash()
    for (const side of this.#at.values()) for (const d of this.#disksOf(side)) d.canOpen = false
    return true
  }

  /** A disk of a side in trouble that nobody has open is exchanged for an empty one. */
  exchange(): void {
    const { dice } = this.#world.schedule
    if (this.wild) return
    const columns = this.raid5.exchangeable()
    if (columns.length > 0) return this.#exchange(dice.pick(columns))
    const sides = [...this.#at.values()]
    if (sides.length === 0) return
    const side = dice.pick(sides)
    const name = parentOf(this.#world.tree, side)?.name
    if (name === undefined || this.wholeSides(name).every((s) => s === side)) return
    const closed = this.#disksOf(side).filter((d) => !this.#world.process.components.isOpen(d.name))
    if (closed.length === 0) return
    this.#exchange(dice.pick(closed))
  }

  #exchange(disk: SimDisk): void {
    disk.exchange()
    this.#world.tell(`${disk.name} exchanged`)
  }
}
