/**
 * Faults of RAID5 columns. Unless the run is wild only one column of a device misbehaves at a time, and only while all
 * others are whole: then no error may reach a client.
 */
import { configured } from '../../../src/meta/standing.js'
import { isRaw } from '../../../src/meta/raid5tables.js'
import type { Column, UnitName } from '../../../src/meta/types.js'
import type { SimDisk } from './disks.js'
import type { World } from './world.js'

export class Raid5Trouble {
  readonly #world: World
  readonly #wild: boolean
  /** By device: the place of the column whose disks may misbehave. */
  readonly #at = new Map<UnitName, number>()

  constructor(world: World, wild: boolean) {
    this.#world = world
    this.#wild = wild
  }

  /** What a column stands on, or will again when its spare leaves. */
  #disksOf(c: Column): readonly SimDisk[] {
    return [...new Set([c.path, configured(c).path])].map((name) => this.#world.disk(name))
  }
  #disksAt(name: UnitName, index: number): readonly SimDisk[] {
    const c = this.#world.raid5(name)?.columns[index]
    return c === undefined ? [] : this.#disksOf(c)
  }

  /** All of its data can be read and written, whatever happens to the others. */
  #isGood(name: UnitName, index: number): boolean {
    const world = this.#world
    const c = world.raid5(name)?.columns[index]
    const core = world.engineRaid5(name)?.core
    const node = core?.columns[index]
    if (c === undefined || core === undefined || node === undefined) return false
    const served = node.readable && node.lastErred === 0 && world.process.components.isOf(node.component, c)
    return c.state === 'okay' && served && world.disk(c.path).isSound && core.isTrusted(index)
  }

  bad(name: UnitName): readonly number[] {
    const serving = this.#world.raid5(name)?.serving ?? 0
    return Array.from({ length: serving }, (_, i) => i).filter((i) => !this.#isGood(name, i))
  }

  /** Whether an error would break promise P4 now. */
  strict(name: UnitName): boolean {
    const world = this.#world
    if (!world.running || world.process.db.health !== 'good') return false
    return world.engineRaid5(name)?.serves === true && this.bad(name).length <= 1
  }

  isSound(name: UnitName): boolean {
    return this.bad(name).length === 0 && this.#world.engineRaid5(name)?.serves === true
  }

  /** Disks that may be hurt now. */
  victims(name: UnitName): readonly SimDisk[] {
    const { dice } = this.#world.schedule
    const u = this.#world.raid5(name)
    if (u === undefined) return []
    const index = this.#at.get(name) ?? dice.below(u.columns.length)
    const known = this.#at.has(name)
    // There is no data to lose.
    if (!this.#wild && isRaw(u)) this.#at.set(name, index)
    else if (!this.#wild) {
      if (known ? dice.chance(60) : this.bad(name).some((i) => i !== index)) return []
      this.#at.set(name, index)
    }
    return this.#disksAt(name, index)
  }

  /** What failed comes back before another column may fail. */
  heal(): void {
    for (const [name, index] of this.#at) {
      for (const d of this.#disksAt(name, index)) d.heal()
      this.#world.tell(`column ${index} of ${name} healed`)
      const u = this.#world.raid5(name)
      const joins = u !== undefined && index >= u.serving
      if (u === undefined || joins || this.#isGood(name, index)) this.#at.delete(name)
    }
  }

  withCrash(): void {
    for (const [name, index] of this.#at) for (const d of this.#disksAt(name, index)) d.canOpen = false
  }

  /** Of a column in trouble that nobody has open, while all others are whole. */
  exchangeable(): readonly SimDisk[] {
    return [...this.#at].flatMap(([name, index]) => {
      if (this.bad(name).some((i) => i !== index)) return []
      return this.#disksAt(name, index).filter((d) => !this.#world.process.components.isOpen(d.name))
    })
  }
}
