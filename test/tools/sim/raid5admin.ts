/** Which command comes next for a RAID5 device: anything that metad may be asked, most often what mends. */
import { configured } from '../../../src/meta/standing.js'
import { isInitFailed, isRaw } from '../../../src/meta/raid5tables.js'
import { poolsOf } from '../../../src/meta/tree.js'
import type { Raid5Unit, UnitName } from '../../../src/meta/types.js'
import type { Command } from './administrator.js'
import type { Dice } from './schedule.js'
import type { Raid5Setup } from './setup.js'
import type { World } from './world.js'

export class Raid5Administrator {
  readonly #world: World
  readonly #anyDisk: (dice: Dice) => string
  readonly #spares: (units: readonly UnitName[], dice: Dice) => Command | null
  /** Of a device that was cleared: what makes it again with its data. */
  readonly #kept = new Map<UnitName, Command>()

  constructor(
    world: World,
    anyDisk: (dice: Dice) => string,
    spares: (units: readonly UnitName[], dice: Dice) => Command | null,
  ) {
    this.#world = world
    this.#anyDisk = anyDisk
    this.#spares = spares
  }

  next(setup: Raid5Setup): Command | null {
    const { dice } = this.#world.schedule
    const u = this.#world.raid5(setup.name)
    if (u === undefined) return this.#remake(setup, dice)
    // Nothing else can be done with it.
    if (isInitFailed(u) && dice.chance(50)) {
      this.#kept.delete(u.name)
      return ['clear', u.name]
    }
    const wants = dice.below(100)
    if (wants < 35) return this.#mend(u, dice)
    if (wants < 55) return [dice.pick(['sync', 'sync', 'parity', 'cancel', 'resync-all', 'probe', 'probe']), u.name]
    if (wants < 65) return [dice.pick(['verify', 'repair', 'remake-parity']), u.name]
    if (wants < 72) return ['attach', u.name, ...this.#growth(setup, dice)]
    if (wants < 93) return this.#spares([u.name], dice)
    return setup.passing ? this.#clear(u) : null
  }

  #growth({ growth }: Raid5Setup, dice: Dice): readonly string[] {
    if (growth.length === 0) return [this.#anyDisk(dice)]
    return dice.chance(30) ? growth : [dice.pick(growth)]
  }

  /** What is out altogether first; sometimes what is well. */
  #mend(u: Raid5Unit, dice: Dice): Command | null {
    const out = u.columns.filter((c) => c.state === 'erred' || c.state === 'initErred' || c.state === 'resync')
    const last = u.columns.filter((c) => c.state === 'lastErred')
    const spared = u.columns.filter((c) => c.spare !== null)
    const bad = out.length > 0 ? out : last
    const from = bad.length > 0 && !dice.chance(10) ? bad : spared.length > 0 && dice.chance(40) ? spared : u.columns
    if (from === u.columns && !dice.chance(15)) return null
    const old = configured(dice.pick(from)).name
    const verb = last.length > 0 && dice.chance(80) ? 'replace-f' : 'replace'
    return dice.chance(65) ? [verb, u.name, old] : [verb, u.name, old, this.#anyDisk(dice)]
  }

  /** Only what rests, so that its columns have everything. */
  #clear(u: Raid5Unit): Command | null {
    const engine = this.#world.engineRaid5(u.name)
    const odd = u.columns.filter((c) => c.state !== 'okay' || c.spare !== null)
    if (isRaw(u) || engine?.serves !== true || !engine.atRest) return null
    if (odd.length > 1 || odd.some((c) => c.state !== 'erred' && c.state !== 'okay')) return null
    const columns = u.columns.map((c) => configured(c).name)
    const words = ['-r', ...columns, '-k', '-i', '128b', '-o', String(u.originals)]
    this.#kept.set(u.name, ['init', u.name, ...words])
    return ['clear', u.name]
  }

  #remake({ name, columns, pool }: Raid5Setup, dice: Dice): Command {
    const kept = this.#kept.get(name)
    if (kept !== undefined && dice.chance(80)) return kept
    // Somebody took them for spares meanwhile, and then it could never be made again.
    const spare = poolsOf(this.#world.tree)
      .flatMap((p) => p.spares)
      .find((s) => columns.includes(s.name))
    if (spare !== undefined) return ['delete', 'all', spare.name]
    return ['init', name, '-r', ...columns, '-i', '128b', '-h', pool]
  }
}
