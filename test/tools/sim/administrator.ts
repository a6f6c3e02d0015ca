/** Which command comes next: anything that metad may be asked, most often what mends. */
import { stripeComponents } from '../../../src/meta/sources.js'
import { configured, standingSpares } from '../../../src/meta/standing.js'
import { isMetadevice, ownComponents, poolsOf } from '../../../src/meta/tree.js'
import type { Component, MirrorUnit, UnitName } from '../../../src/meta/types.js'
import type { Dice } from './schedule.js'
import { Raid5Administrator } from './raid5admin.js'
import type { MirrorSetup } from './setup.js'
import type { World } from './world.js'

export type Command = readonly string[]

const READ = ['roundrobin', 'geometric', 'first']
const WRITE = ['parallel', 'serial']

export class Administrator {
  readonly #world: World
  /** Side whose content a mirror that was cleared had; it is made of that one again. */
  readonly #content = new Map<UnitName, UnitName>()

  readonly #raid5: Raid5Administrator

  constructor(world: World) {
    this.#world = world
    this.#raid5 = new Raid5Administrator(
      world,
      (dice) => this.#anyDisk(dice),
      (units, dice) => this.#spares(units, dice),
    )
  }

  /** null: nothing comes to mind. */
  next(): Command | null {
    const { dice } = this.#world.schedule
    const { mirrors, raid5s } = this.#world.setup
    const setup = dice.pick([...mirrors, ...raid5s])
    if ('pool' in setup) return this.#raid5.next(setup)
    const m = this.#world.mirror(setup.name)
    if (m === undefined) return this.#remake(setup)
    const wants = dice.below(100)
    if (wants < 28) return this.#mend(m, dice)
    if (wants < 54) return this.#sides(m, setup, dice)
    if (wants < 68) return this.#resync(m, dice)
    if (wants < 77) return this.#grow(m, setup, dice)
    const units = m.submirrors.map((s) => s.unit)
    if (wants < 93) return this.#spares(units, dice)
    if (wants < 96) return this.#policies(m, dice)
    return this.#clear(m, setup)
  }

  #components(m: MirrorUnit): readonly Component[] {
    return m.submirrors.flatMap((s) => stripeComponents(this.#world.stripe(s.unit)))
  }

  /** Disks that nobody uses; sometimes some that somebody does. */
  #anyDisk(dice: Dice): string {
    const { tree, disks } = this.#world
    const used = new Set<string>()
    for (const u of tree.values()) {
      if (u.kind === 'pool') for (const s of u.spares) used.add(s.name)
      if (!isMetadevice(u)) continue
      for (const c of ownComponents(u)) for (const name of [c.name, configured(c).name]) used.add(name)
    }
    const { mirrors, raid5s } = this.#world.setup
    const growth = [...mirrors.flatMap((s) => Object.values(s.growth)), ...raid5s.flatMap((r) => r.growth)]
    const free = [...disks.keys()].filter((name) => !used.has(name) && !growth.includes(name))
    return free.length > 0 && !dice.chance(5) ? dice.pick(free) : dice.pick([...disks.keys()])
  }

  #mend(m: MirrorUnit, dice: Dice): Command | null {
    const all = this.#components(m)
    const bad = all.filter((c) => c.state === 'erred' || c.state === 'lastErred')
    const spared = all.filter((c) => c.spare !== null)
    const from = bad.length > 0 && !dice.chance(10) ? bad : dice.chance(40) && spared.length > 0 ? spared : all
    if (from === all && !dice.chance(15)) return null
    const old = configured(dice.pick(from)).name
    return dice.chance(70) ? ['replace', m.name, old] : ['replace', m.name, old, this.#anyDisk(dice)]
  }

  #sides(m: MirrorUnit, setup: MirrorSetup, dice: Dice): Command {
    const stopped = m.cancelled ? m.submirrors.find((s) => s.state === 'resync') : undefined
    if (stopped !== undefined && dice.chance(40)) return ['offline-f', m.name, stopped.unit]
    const away = m.submirrors.filter((s) => s.state === 'offline')
    const [back] = away
    if (back !== undefined && dice.chance(60)) return ['online', m.name, back.unit]
    const missing = setup.sides.filter((unit) => m.submirrors.every((s) => s.unit !== unit))
    if (missing.length > 0 && dice.chance(70)) return ['attach', m.name, dice.pick(missing)]
    const unit = dice.pick(setup.sides)
    return [dice.pick(['detach', 'detach-f', 'offline', 'offline', 'offline-f', 'online']), m.name, unit]
  }

  #resync(m: MirrorUnit, dice: Dice): Command {
    if (this.#world.system.resyncs.isRunning(m.name) && dice.chance(40)) return ['cancel', m.name]
    const verb = dice.pick(['sync', 'sync', 'cancel', 'resync-all', 'probe', 'verify', 'verify', 'repair'])
    return [verb, m.name]
  }

  #grow(m: MirrorUnit, setup: MirrorSetup, dice: Dice): Command {
    const left = setup.sides.filter((unit) =>
      stripeComponents(this.#world.stripe(unit)).every((c) => configured(c).name !== setup.growth[unit]),
    )
    const side = dice.pick(left.length > 0 ? left : setup.sides)
    const by = setup.growth[side]
    return by === undefined || dice.chance(20) ? ['attach', m.name] : ['attach', side, by]
  }

  #spares(units: readonly UnitName[], dice: Dice): Command | null {
    const pools = poolsOf(this.#world.tree)
    if (pools.length === 0) return ['add', 'hsp001']
    const pool = dice.pick(pools)
    const all = pools.flatMap((p) => p.spares)
    const standing = standingSpares(this.#world.tree)
    const broken = all.filter((s) => s.broken)
    if (broken.length > 0 && dice.chance(50)) return ['enable', dice.pick(broken).name]
    if (pool.spares.length < 2 && dice.chance(70)) return ['add', pool.name, this.#anyDisk(dice)]
    const spare = pool.spares.length > 0 ? dice.pick(pool.spares) : null
    const unit = dice.pick(units)
    switch (dice.below(6)) {
      case 0:
        return ['param', unit, '-h', dice.pick(['hsp001', 'hsp002', 'hsp002', 'none'])]
      case 1:
        return ['add', dice.pick([pool.name, 'all']), this.#anyDisk(dice)]
      case 2:
        return spare === null ? null : ['delete', dice.pick([pool.name, 'all']), spare.name]
      case 3:
        return spare === null ? null : ['exchange', pool.name, spare.name, this.#anyDisk(dice)]
      case 4:
        return standing.size === 0 ? null : ['enable', dice.pick([...standing.keys()])]
      default:
        return ['param', unit, '-h', unit === 'd3' ? 'hsp002' : 'hsp001']
    }
  }

  /** Never pass 0: it says that nobody cares. */
  #policies(m: MirrorUnit, dice: Dice): Command {
    const [option, word] = dice.pick([
      ['-r', dice.pick(READ)],
      ['-w', dice.pick(WRITE)],
      ['-p', String(1 + dice.below(9))],
    ] as const)
    return ['param', m.name, option, word]
  }

  #clear(m: MirrorUnit, setup: MirrorSetup): Command | null {
    if (!setup.passing) return null
    const right = m.submirrors.find(
      (s) => s.state === 'okay' && stripeComponents(this.#world.stripe(s.unit)).every((c) => c.state === 'okay'),
    )
    if (right === undefined) return null
    this.#content.set(m.name, right.unit)
    return ['clear', m.name]
  }

  #remake({ name, sides }: MirrorSetup): Command {
    return ['init', name, '-m', this.#content.get(name) ?? sides[0] ?? '']
  }
}
