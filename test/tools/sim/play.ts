/** What happens in a simulation, thrown by the dice: requests, faults, deaths, and the checks after each step. */
import { stripeComponents } from '../../../src/meta/sources.js'
import type { UnitName } from '../../../src/meta/types.js'
import { Clients } from './client.js'
import { CELL_BLOCKS } from './disks.js'
import { componentsOfSide, placeOf } from './layout.js'
import { settled } from './schedule.js'
import { CELLS, World, Wrong } from './world.js'

export interface Tally {
  events: number
  kills: number
  powerLosses: number
  faults: number
  evictions: number
  answered: number
  errors: number
  commits: number
}

export class Play {
  readonly world: World
  readonly clients: Clients
  readonly tally: Tally = {
    events: 0,
    kills: 0,
    powerLosses: 0,
    faults: 0,
    evictions: 0,
    answered: 0,
    errors: 0,
    commits: 0,
  }
  /** The side whose disks may misbehave; null: all are well. */
  #troubled: number | null = null
  #wasErred = new Set<string>()

  constructor(seed: number, etc: string) {
    this.world = new World(seed, etc)
    this.clients = new Clients(this.world)
    this.clients.strict = () => this.#strict()
  }

  async run(events: number): Promise<Tally> {
    const { world } = this
    if (!(await world.boot())) throw new Error('the first start failed')
    await world.configure()
    await this.#attach('d2' as UnitName)
    // Turns count too: a world in which nothing can happen must come to an end.
    for (let turns = 0; world.schedule.events < events; turns++) {
      if (turns > events * 20) throw new Wrong('nothing happens any more')
      await this.#turn()
    }
    this.tally.events = world.schedule.events
    this.tally.answered = this.clients.answered
    this.tally.errors = this.clients.errors
    return this.tally
  }

  async #turn(): Promise<void> {
    const { world, clients } = this
    const { dice } = world.schedule
    if (!world.running) {
      await this.#restart()
      return
    }
    const throwOf = dice.below(2000)
    if (throwOf < 300) clients.request()
    else if (throwOf < 308) this.#fault()
    else if (throwOf < 318) this.#heal()
    else if (throwOf < 320) await this.#die()
    else if (throwOf < 323) this.#replicas()
    else if (throwOf < 340) world.engineMirror?.sweep()
    else if (throwOf < 344) clients.leave()
    else if (throwOf < 364) await this.#command()
    else if (throwOf < 400 && !clients.connected) await clients.arrive()
    else world.schedule.step()
    await settled()
    this.#check()
  }

  // ---- trouble

  /** Some side is whole: every block can be read there, whatever the troubled one does. */
  #wholeSides(): readonly number[] {
    const { mirror, engineMirror } = this.world
    if (mirror === undefined || engineMirror === undefined) return []
    return mirror.submirrors.flatMap((s) => {
      const side = engineMirror.mirror.sides.find((x) => x.slot === s.slot)
      if (side === undefined || !side.readable || side.stale || s.state !== 'okay') return []
      const good = componentsOfSide(engineMirror.plan, side).every((n) => n.readable && n.lastErred === 0)
      const healthy = this.world.disksOf(this.#sideOf(s.unit)).every((d) => !d.fails && d.canOpen)
      return good && healthy ? [this.#sideOf(s.unit)] : []
    })
  }

  #sideOf(unit: UnitName): number {
    return Number(unit.slice(1)) - 1
  }

  #strict(): boolean {
    const { world } = this
    if (!world.running || world.process.db.health !== 'good') return false
    return this.#wholeSides().length > 0
  }

  #fault(): void {
    const { world } = this
    const { dice } = world.schedule
    const side = this.#troubled ?? dice.below(3)
    const others = this.#wholeSides().filter((s) => s !== side)
    if (this.#troubled === null ? others.length === 0 : dice.chance(60)) return
    this.#troubled = side
    this.tally.faults++
    const disk = dice.pick(world.disksOf(side))
    const what = dice.below(6)
    world.tell(`fault ${what} on ${disk.name}`)
    if (what === 0) disk.failing = { ...disk.failing, write: true }
    else if (what === 1) disk.failing = { ...disk.failing, read: true }
    else if (what === 2) disk.failing = { ...disk.failing, sync: true }
    else if (what === 3) disk.failing = { read: true, write: true, sync: true }
    else if (what === 4) disk.canOpen = false
    else for (let i = 0; i < 4; i++) disk.spoil(dice.below(disk.cells))
  }

  #heal(): void {
    if (this.#troubled === null) return
    const { world } = this
    const disks = world.disksOf(this.#troubled)
    for (const d of disks) d.heal()
    world.tell(`side ${this.#troubled} healed`)
    // What was evicted comes back before another side may fail.
    if (this.#wholeSides().includes(this.#troubled) || !this.#isPart(this.#troubled)) this.#troubled = null
  }

  #isPart(side: number): boolean {
    return this.world.mirror?.submirrors.some((s) => this.#sideOf(s.unit) === side) === true
  }

  #replicas(): void {
    const { world } = this
    const { dice } = world.schedule
    const replica = dice.pick(world.replicas)
    replica.broken = dice.chance(40)
  }

  async #die(): Promise<void> {
    const { world, clients } = this
    const { dice } = world.schedule
    const power = dice.chance(40)
    world.tell(power ? 'power loss' : 'kill')
    this.tally[power ? 'powerLosses' : 'kills']++
    this.tally.commits += world.process.db.commits
    world.kill()
    await settled()
    if (power) for (const d of world.disks.values()) d.powerLoss(dice)
    clients.dropped(power)
    // Together with the crash a side may be lost (promise P3): the one that is in trouble already, or any.
    if (dice.chance(20) && this.#troubled !== null) for (const d of world.disksOf(this.#troubled)) d.canOpen = false
  }

  async #restart(): Promise<void> {
    const { world } = this
    if (world.schedule.dice.chance(70)) for (const r of world.replicas) r.broken = false
    if (!(await world.boot())) {
      for (const r of world.replicas) r.broken = false
      world.tell('too few replicas: not started')
      return
    }
    world.tell('started')
    await settled()
  }

  // ---- commands

  async #attach(unit: UnitName): Promise<void> {
    await this.#say(['attach', unit])
  }

  async #say(words: readonly string[]): Promise<void> {
    const { world } = this
    const { commandOf } = await import('./commands.js')
    const done = await world.finish(commandOf(world, words))
    world.tell(`${words.join(' ')}: ${done}`)
  }

  async #command(): Promise<void> {
    const { world } = this
    const { dice } = world.schedule
    const m = world.mirror
    if (m === undefined) return
    const side = this.#troubled ?? dice.below(3)
    const unit = `d${side + 1}`
    const choice = dice.below(7)
    if (choice === 0 && this.#troubled === null) await this.#say([this.#isPart(side) ? 'detach' : 'attach', unit])
    else if (choice === 1 && this.#troubled === null) await this.#say(['offline', unit])
    else if (choice === 2) await this.#say(['online', dice.pick(m.submirrors).unit])
    else if (choice === 3) await this.#say(['sync'])
    else if (choice === 4) await this.#say(['cancel'])
    else {
      const erred = m.submirrors.flatMap((s) =>
        stripeComponents(world.stripe(s.unit)).flatMap((c) => (c.state === 'okay' ? [] : [c.name])),
      )
      if (erred.length > 0) await this.#say(['enable', dice.pick(erred)])
    }
  }

  // ---- checks

  #check(): void {
    const { world, clients } = this
    if (world.wrong !== null) throw world.wrong
    if (!world.running) return
    const m = world.mirror
    for (const s of m?.submirrors ?? [])
      for (const c of stripeComponents(world.stripe(s.unit))) {
        if (c.state === 'okay') this.#wasErred.delete(c.path)
        else if (!this.#wasErred.has(c.path)) {
          this.#wasErred.add(c.path)
          this.tally.evictions++
        }
      }
    const mirror = world.engineMirror
    if (mirror === undefined || !clients.quiet || !mirror.idle || world.schedule.events % 8 !== 0) return
    for (let cell = 0; cell < CELLS; cell++) {
      const value = clients.oracle.certain(cell)
      if (value === undefined) continue
      for (const side of mirror.mirror.sides) {
        const { node, cell: at } = placeOf(mirror.plan, side, cell)
        if (!side.readable || !node.readable || mirror.isStaleAt(side, cell)) continue
        const held = world.process.components.disk(node.component).peek(at)
        if (held !== value)
          world.broken(
            `cell ${cell} (region ${Math.floor((cell * CELL_BLOCKS) / mirror.mirror.regionBlocks)}): side ${side.slot} holds ${held}, clients know ${value}`,
          )
      }
    }
  }
}
