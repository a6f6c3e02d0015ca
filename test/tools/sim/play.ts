/** What happens in a simulation, thrown by the dice: requests, faults, deaths, commands, and the checks after each step. */
import type { UnitName } from '../../../src/meta/types.js'
import type { Verified } from '../../../src/resync/scheduler.js'
import { Administrator, type Command } from './administrator.js'
import { Checks } from './checks.js'
import { Clients } from './client.js'
import { commandOf } from './commands.js'
import { Raid5Checks } from './raid5checks.js'
import { type Comparison, compareParity } from './raid5parity.js'
import { settled } from './schedule.js'
import { Stopping } from './stopping.js'
import { newTally, type Tally, TreeCounter } from './tally.js'
import { ToldChecks } from './told.js'
import { Trouble } from './trouble.js'
import { World, Wrong } from './world.js'

/** Commands during which metad is killed, and within how many events of them. */
const MORTAL_PERCENT = 10
const MORTAL_EVENTS = 30
/** Commands after which a job runs. */
const BEGINS = ['init', 'attach', 'parity', 'replace', 'replace-f']

class Died extends Error {}

export class Play {
  readonly world: World
  readonly tally = newTally()
  readonly #clients = new Map<UnitName, Clients>()
  readonly #trouble: Trouble
  readonly #administrator: Administrator
  readonly #checks: Checks
  readonly #raid5: Raid5Checks
  readonly #told: ToldChecks
  readonly #stopping: Stopping
  #value = 1
  readonly #counter = new TreeCounter(this.tally)

  constructor(seed: number) {
    const world = new World(seed)
    this.world = world
    this.#trouble = new Trouble(world)
    this.#administrator = new Administrator(world)
    this.#checks = new Checks(world, this.#clients)
    this.#raid5 = new Raid5Checks(world, this.#clients)
    this.#told = new ToldChecks(world)
    this.#stopping = new Stopping(world, this.#clients, this.#trouble, this.#checks, this.#raid5)
    world.hooks = {
      writing: (device, regions, size) => this.#checks.writing(device, regions, size),
      copying: (device, job, loaded) => this.#checks.copying(device, job, loaded),
      resuming: (device) => {
        this.#checks.resuming(device)
        this.#raid5.resuming(device)
      },
      mounted: (device, plan, anew) => this.#raid5.mounted(device, plan, anew),
      noticed: (text) => {
        this.#checks.noticed(text)
        this.#raid5.noticed(text)
      },
    }
    for (const { name, cells } of world.setup.mirrors) {
      const watch = {
        volatile: false,
        check: () => this.#check(),
        grown: (size: number) => this.#clients.get(name)?.oracle.grow(size),
        strict: () => this.#trouble.strict(name),
        heals: () => this.#trouble.heals,
        answered: (at: readonly number[]) => this.#checks.holds(name, at),
      }
      this.#clients.set(name, new Clients(world, name, cells, () => this.#value++, watch))
    }
    for (const { name } of world.setup.raid5s) {
      const watch = {
        volatile: true,
        check: () => this.#check(),
        // What joins is zeroes.
        grown: (size: number) => this.#clients.get(name)?.oracle.grow(size, 0),
        strict: () => this.#trouble.raid5.strict(name),
        heals: () => this.#trouble.heals,
        answered: () => undefined,
      }
      this.#clients.set(name, new Clients(world, name, 0, () => this.#value++, watch))
    }
  }

  run(events: number): Promise<Tally> {
    return this.world.clock.during(() => this.#run(events))
  }

  async #run(events: number): Promise<Tally> {
    const { world } = this
    if (!(await world.boot())) throw new Error('the first start failed')
    await world.configure()
    for (const { name } of world.setup.raid5s) this.#trouble.strike(name)
    for (const { name, sides } of world.setup.mirrors) await this.#say(['attach', name, sides[1] ?? ''])
    // Turns count too: a world in which nothing can happen must come to an end.
    for (let turns = 0; world.schedule.events < events; turns++) {
      if (turns > events * 20) throw new Wrong('nothing happens any more')
      await this.#turn()
    }
    await this.#rest()
    this.tally.events = world.schedule.events
    this.tally.stopsJudged = this.#stopping.judged
    this.tally.faults = this.#trouble.faults
    this.tally.hangs = this.#trouble.hangs
    for (const c of this.#clients.values()) {
      this.tally.answered += c.answered
      this.tally.errors += c.errors
    }
    return this.tally
  }

  async #turn(): Promise<void> {
    const { world } = this
    const { dice } = world.schedule
    if (!world.running) {
      await this.#restart()
      return
    }
    const clients = dice.pick([...this.#clients.values()])
    const throwOf = dice.below(2000)
    if (throwOf < 290) clients.request()
    else if (throwOf < 290 + this.#trouble.rate) this.#trouble.fault()
    else if (throwOf < 314) clients.request()
    else if (throwOf < 324) this.#trouble.heal()
    else if (throwOf < 327) await this.#die()
    else if (throwOf < 330) this.#replicas()
    else if (throwOf < 347) world.engineMirror(clients.mirror)?.sweep()
    else if (throwOf < 351) clients.leave()
    else if (throwOf < 352) this.#trouble.exchange()
    else if (throwOf < 353) this.#corrupt(clients)
    else if (throwOf < 385) await this.#command()
    else if (throwOf < 418 && !clients.connected) await clients.arrive()
    else if (!world.step()) this.#nothingHangs()
    await settled()
    this.#check()
  }

  /** When nothing is going to happen, everything was answered. */
  #nothingHangs(): void {
    if (this.world.process.db.health !== 'good') return
    for (const c of this.#clients.values())
      if (!c.quiet) throw new Wrong(`requests of ${c.mirror} hang, and nothing can happen`)
  }

  /** In the end everything works again: all is answered, and all that is wanted gets copied. */
  async #rest(): Promise<void> {
    const { world } = this
    this.#trouble.everything()
    for (const r of world.replicas) r.broken = false
    if (world.running && world.process.db.health !== 'good') await this.#die()
    // What went with metad, too.
    this.#trouble.everything()
    if (!world.running) await this.#restart()
    while (world.step()) {
      await settled()
      this.#check()
    }
    this.#nothingHangs()
    if (world.setup.raid5s.length > 0) await this.#restRaid5()
    this.#counter.count(this.world.tree)
    this.tally.commits += world.process.db.commits
  }

  async #restRaid5(): Promise<void> {
    const { world } = this
    await this.#finish(commandOf(world, ['probe']))
    // What could not be read for its parity is asked for again by whoever flushes. An error is judged by what is left.
    const { engine, metadevices } = world.system.parts
    for (const { name } of world.setup.raid5s) {
      const device = metadevices.deviceOf(name)
      if (device === undefined || world.engineRaid5(name)?.serves !== true) continue
      await this.#finish(engine.flush(device).catch(() => undefined))
    }
    await this.#finish(commandOf(world, ['resync-all']))
    // What could not be staged while something could not be read is tried again when somebody flushes.
    for (const { name } of world.setup.raid5s) {
      const device = world.system.parts.metadevices.deviceOf(name)
      if (device === undefined || world.engineRaid5(name)?.serves !== true) continue
      await this.#finish(world.process.engine.flush(device).catch(() => undefined))
    }
    while (world.step()) {
      await settled()
      this.#check()
    }
    this.#raid5.rested()
    this.#throwWrong()
  }

  #replicas(): void {
    const { dice } = this.world.schedule
    dice.pick(this.world.replicas).broken = dice.chance(40)
  }

  /** One side of a mirror that rests holds other data than the others. */
  #corrupt(clients: Clients): void {
    const { world } = this
    const { dice } = world.schedule
    const engine = world.engineMirror(clients.mirror)
    const whole = this.#trouble.wholeSides(clients.mirror)
    if (engine?.idle !== true || engine.resyncing || !clients.quiet || whole.length < 2) return
    const cell = dice.below(engine.cells)
    if (clients.oracle.certain(cell) === undefined) return
    const value = this.#value++
    clients.oracle.corrupted(cell, value)
    const at = this.#checks.placeOf(dice.pick(whole), cell)
    world.disk(at.disk).corrupt(at.cell, value)
    world.tell(`${clients.mirror} cell ${cell} corrupted on ${at.disk}`)
    this.tally.corrupted++
  }

  async #die(): Promise<void> {
    const { world } = this
    const { dice } = world.schedule
    const stops = dice.chance(25)
    if (stops) {
      world.tell('stop')
      await this.#stopping.stop(() => this.#check())
    }
    const power = dice.chance(40)
    world.tell(power ? 'power loss' : stops ? 'stopped' : 'kill')
    this.tally[stops ? 'stops' : power ? 'powerLosses' : 'kills']++
    this.tally.commits += world.process.db.commits
    if (this.#trouble.withCrash()) this.#stopping.forget()
    world.kill()
    await settled()
    if (power) for (const d of world.disks.values()) d.powerLoss(dice)
    for (const c of this.#clients.values()) c.dropped(power)
  }

  async #restart(): Promise<void> {
    const { world } = this
    if (world.schedule.dice.chance(70)) for (const r of world.replicas) r.broken = false
    this.#checks.restarted()
    this.#raid5.restarted()
    this.#told.restarted()
    if (!(await world.boot(() => this.#check()))) {
      for (const r of world.replicas) r.broken = false
      world.tell('too few replicas: not started')
      return
    }
    world.tell('started')
    await settled()
    this.#check()
    this.#stopping.started()
    this.#throwWrong()
  }

  /** What comes about and is gone again while somebody waits is checked too: the rules for spares go by what was before. */
  #finish<T>(work: Promise<T>): Promise<T> {
    return this.world.finish(work, () => this.#check())
  }

  // ---- commands

  async #say(words: Command): Promise<void> {
    const { world } = this
    const done = await this.#orDie(words, commandOf(world, words))
    if (done === null) return
    world.tell(`${words.join(' ')}: ${done}`)
    this.tally[done === 'ok' ? 'done' : 'refused']++
    const raid5 = world.raid5Setup(words[1] as UnitName)
    if (done === 'ok' && raid5 !== undefined && BEGINS.includes(words[0] ?? '')) this.#trouble.strike(raid5.name)
    if (done === 'ok' && words[0] === 'clear' && raid5 !== undefined) this.#clients.get(raid5.name)?.dropped(true)
    if (done !== 'ok' || words[0] !== 'init') return
    this.tally.remade++
    const name = words[1] as UnitName
    if (!words.includes('-k') && world.raid5(name) !== undefined) this.#clients.get(name)?.remade(0)
  }

  /** null: metad was killed in the middle of it. What becomes of a device that is made or cleared then is not known here. */
  async #orDie(words: Command, work: Promise<string>): Promise<string | null> {
    const { world } = this
    const { dice } = world.schedule
    const survives = world.setup.raid5s.length === 0 || words[0] === 'init' || words[0] === 'clear'
    if (survives || !dice.chance(MORTAL_PERCENT)) return this.#finish(work)
    let left = dice.below(MORTAL_EVENTS)
    try {
      return await world.finish(work, () => {
        this.#check()
        if (left-- === 0) throw new Died()
      })
    } catch (e) {
      if (!(e instanceof Died)) throw e
      world.tell(`${words.join(' ')}: in the middle of it`)
      await this.#die()
      return null
    }
  }

  async #command(): Promise<void> {
    const words = this.#administrator.next()
    if (words === null) return
    const [verb, name = ''] = words
    // Regions may just be on their way to be clean when a growth renumbers them.
    if (verb === 'attach') for (let i = 0; i < 2; i++) this.world.engineMirror('d0' as UnitName)?.sweep()
    // Only what nobody has open is cleared.
    if (verb === 'clear') this.#clients.get(name as UnitName)?.leave()
    if (verb === 'verify' || verb === 'repair' || verb === 'remake-parity')
      if (this.world.raid5(name as UnitName) !== undefined) return this.#compareParity(name as UnitName, verb)
    if (verb === 'verify' || verb === 'repair') await this.#compareAndChange(name as UnitName, verb === 'repair')
    else await this.#say(words)
  }

  async #compareParity(name: UnitName, how: Comparison): Promise<void> {
    const { world } = this
    if (world.process.db.health !== 'good' || world.system.resyncs.isRunning(name)) return
    if (!this.#trouble.raid5.isSound(name) || this.#clients.get(name)?.quiet !== true) return
    world.tell(`${how} ${name}`)
    const finish = <T>(work: Promise<T>): Promise<T> => this.#finish(work)
    const say = (words: Command): Promise<string> => this.#finish(commandOf(world, words))
    this.tally.corrupted++
    if (await compareParity(world, name, how, () => this.#value++, finish, say)) this.tally.verified++
  }

  /** Often there is something to find, and a new plan interrupts the comparison. */
  async #compareAndChange(name: UnitName, repair: boolean): Promise<void> {
    const { dice } = this.world.schedule
    const clients = this.#clients.get(name)
    if (clients !== undefined) for (let i = dice.below(4); i > 0; i--) this.#corrupt(clients)
    this.#compare(name, repair)
    for (let i = dice.below(20); i > 0; i--) this.world.schedule.step()
    if (dice.chance(40)) await this.#say(['param', name, '-r', dice.pick(['roundrobin', 'geometric', 'first'])])
  }

  /** In the background: what differed all the time is found, and repaired when asked for. */
  #compare(name: UnitName, repair: boolean): void {
    const { world } = this
    const clients = this.#clients.get(name)
    const engine = world.engineMirror(name)
    if (clients === undefined || engine === undefined || world.system.resyncs.isRunning(name)) return
    const verifying = world.system.resyncs.verify(name, repair)
    if (verifying === null) return
    const { process } = world
    const before = this.#checks.differing(name)
    const changes = before.map((cell) => clients.oracle.changes(cell))
    const shape = (): string => {
      const { submirrors, errors, blocks } = world.mirror(name) ?? {}
      return JSON.stringify([submirrors, errors, blocks])
    }
    const shaped = shape()
    const { faults } = this.#trouble
    const sound = this.#trouble.isSound(name)
    world.tell(`${repair ? 'repair' : 'verify'} ${name}`)
    const ended = (v: Verified): void => {
      if (world.running && world.process !== process) return
      world.tell(`comparison of ${name} ${v.ending}: ${v.mismatchBlocks} blocks`)
      if (v.ending !== 'done' || shape() !== shaped) return
      this.tally.verified++
      // What cannot be read is not compared.
      if (!sound || faults !== this.#trouble.faults || !this.#trouble.isSound(name)) return
      const after = new Set(this.#checks.differing(name))
      const { cellBlocks } = world.setup
      for (const [i, cell] of before.entries()) {
        if (clients.oracle.changes(cell) !== changes[i]) continue
        const told = v.ranges.some((r) => r.block <= cell * cellBlocks && cell * cellBlocks < r.block + r.blocks)
        if (!told) world.broken(`${name} cell ${cell} differed, and the comparison did not find it`)
        if (repair && after.has(cell)) world.broken(`${name} cell ${cell} differs after the repair`)
      }
    }
    verifying.then(ended).catch((e: unknown) => world.broken(String(e)))
  }

  // ---- checks

  #throwWrong(): void {
    if (this.world.wrong !== null) throw this.world.wrong
  }

  #check(): void {
    const { world } = this
    this.#throwWrong()
    if (!world.running) return
    for (const [name, c] of this.#clients) {
      const size = world.cellsOf(name)
      c.oracle.grow(size, world.raid5(name) === undefined ? undefined : 0)
    }
    this.#checks.step()
    this.#raid5.step()
    this.#told.step()
    this.#throwWrong()
    this.#counter.count(this.world.tree)
  }
}
