/**
 * A host in which everything but the control plane is simulated: disks and replicas that outlive metad,
 * an engine, clients that check what they read. metad's own System runs in it unchanged. Nothing happens but by the
 * schedule, so that a seed replays exactly.
 */
import { err, ok } from '../../../src/base/result.js'
import { blocks } from '../../../src/base/units.js'
import type { Components } from '../../../src/daemon/components.js'
import { type Config, DEFAULTS } from '../../../src/daemon/config.js'
import type { Logger } from '../../../src/daemon/log.js'
import { Metadevices } from '../../../src/daemon/metadevices.js'
import { System } from '../../../src/daemon/system.js'
import type { ResyncJob } from '../../../src/dataplane/types.js'
import { IDLE } from '../../../src/meta/kind.js'
import { init, initEntries, type Outcome } from '../../../src/meta/operations.js'
import { decodeHeader, type Headers } from '../../../src/meta/raid5header.js'
import { parseTab } from '../../../src/meta/tab.js'
import type { Device, Inventory, MirrorUnit, Raid5Unit, StripeUnit, Tree, UnitName } from '../../../src/meta/types.js'
import { errorText, type MetaResult, metaError } from '../../../src/msg/errors.js'
import type { DeviceLinks } from '../../../src/sys/links.js'
import { SimComponents, identityOf } from './components.js'
import { makeSimReplicas, SimDatabase, type SimReplica } from './database.js'
import { SimDisk } from './disks.js'
import { SimEngine } from './engine.js'
import { Clock } from './clock.js'
import { Evidence } from './evidence.js'
import { simFiles } from './files.js'
import type { SimMirror } from './mirror.js'
import { Ledger } from './ledger.js'
import type { SimRaid5 } from './raid5.js'
import type { SimDevice } from './device.js'
import type { Plan } from '../../../src/plan/types.js'
import { Schedule, settled } from './schedule.js'
import { type MirrorSetup, type Raid5Setup, type Setup, setupOf } from './setup.js'

/** SIM_TRACE=1: what crosses the boundary is part of the story. */
const TRACE = process.env['SIM_TRACE'] === '1'

/** Nothing may hang on a clock. */
const CONFIG: Config = { ...DEFAULTS, componentTimeoutSeconds: 0, componentReadErrors: 5 }

/** Larger than what clients write, and smaller than what the ledger has. */
const OLD = 2 ** 28

export interface Process {
  readonly db: SimDatabase
  readonly engine: SimEngine
  readonly components: SimComponents
  readonly evidence: Evidence
  readonly system: System
}

export class Wrong extends Error {}

export interface WorldHooks {
  /** Writes are about to reach the sides of a mirror. */
  writing(device: number, regions: readonly number[], regionBlocks: number): void
  /** A copy begins; `loaded`: the regions below its beginning that it copies all the same. */
  copying(device: number, job: ResyncJob, loaded: ReadonlySet<number>): void
  /** Requests that waited for a decision go on. */
  resuming(device: number): void
  /** A plan of a RAID5 device serves from now on. */
  mounted(device: number, plan: Plan, anew: boolean): void
  /** What metad says on the console. */
  noticed(text: string): void
}

/** An error has no members of its own that JSON would show. */
const stackOfError = (_key: string, value: unknown): unknown => (value instanceof Error ? value.stack : value)

export class World {
  readonly schedule: Schedule
  readonly clock: Clock
  readonly setup: Setup
  readonly disks: ReadonlyMap<string, SimDisk>
  readonly replicas: SimReplica[]
  readonly ledger = new Ledger()
  hooks: WorldHooks = {
    writing: () => undefined,
    copying: () => undefined,
    resuming: () => undefined,
    mounted: () => undefined,
    noticed: () => undefined,
  }
  /** The first promise that was broken; noted, because it is found inside of metad's own callbacks. */
  wrong: Wrong | null = null
  /** By RAID5 device: lines whose parity is wrong on purpose. */
  readonly spoiled = new Map<UnitName, ReadonlySet<number>>()
  /** Lines of the log, for a failing seed. */
  readonly story: string[] = []
  #process: Process | null = null
  #unit = 0

  constructor(seed: number) {
    this.schedule = new Schedule(seed)
    this.clock = new Clock(() => this.schedule.events)
    const { dice } = this.schedule
    this.setup = setupOf(seed, dice)
    this.disks = new Map(
      Object.entries(this.setup.disks).map(([name, cells]) => [name, new SimDisk(name, cells, this.#old(name))]),
    )
    this.replicas = makeSimReplicas(dice.pick([1, 2, 3, 5]))
  }

  /** What is on a disk before metad has it: columns have to be zeroed. Sides of mirrors begin as zeroes. */
  #old(name: string): (cell: number) => number {
    const base = OLD + this.schedule.dice.below(OLD / 2)
    return this.setup.raid5s.length === 0 || this.setup.sides.includes(name) ? () => 0 : (cell) => base + cell
  }

  get process(): Process {
    if (this.#process === null) throw new Error('metad does not run')
    return this.#process
  }
  get running(): boolean {
    return this.#process !== null
  }
  get system(): System {
    return this.process.system
  }
  get tree(): Tree {
    return this.system.tree
  }
  mirror(name: UnitName): MirrorUnit | undefined {
    const m = this.tree.get(name)
    return m?.kind === 'mirror' ? m : undefined
  }
  mirrorSetup(name: UnitName): MirrorSetup {
    const found = this.setup.mirrors.find((m) => m.name === name)
    if (found === undefined) throw new Error(`no mirror ${name}`)
    return found
  }
  engineMirror(name: UnitName): SimMirror | undefined {
    const device = this.system.parts.metadevices.deviceOf(name)
    return device === undefined ? undefined : this.process.engine.mirror(device)
  }

  raid5(name: UnitName): Raid5Unit | undefined {
    const u = this.tree.get(name)
    return u?.kind === 'raid5' ? u : undefined
  }
  raid5Setup(name: UnitName): Raid5Setup | undefined {
    return this.setup.raid5s.find((r) => r.name === name)
  }
  engineRaid5(name: UnitName): SimRaid5 | undefined {
    const device = this.system.parts.metadevices.deviceOf(name)
    return device === undefined ? undefined : this.process.engine.raid5(device)
  }
  engineDevice(name: UnitName): SimDevice | undefined {
    const device = this.system.parts.metadevices.deviceOf(name)
    return device === undefined ? undefined : this.process.engine.device(device)
  }
  /** Cells that clients have of it. */
  cellsOf(name: UnitName): number {
    const u = this.tree.get(name)
    return u?.kind === 'mirror' || u?.kind === 'raid5' ? Math.floor(u.blocks / this.setup.cellBlocks) : 0
  }

  stripe(name: UnitName): StripeUnit {
    const unit = this.tree.get(name)
    if (unit?.kind !== 'stripe') throw new Error(`no stripe ${name}`)
    return unit
  }

  disk(name: string): SimDisk {
    const found = this.disks.get(name)
    if (found === undefined) throw new Error(`no disk ${name}`)
    return found
  }

  broken(what: string): void {
    this.wrong ??= new Wrong(what)
  }

  tell(line: string): void {
    this.story.push(`${this.schedule.events}: ${line}`)
  }

  /** False when the state database refuses to start: too few replicas. `check` comes after each event. */
  async boot(check: () => void = () => undefined): Promise<boolean> {
    const { schedule } = this
    const { cellBlocks } = this.setup
    const db = SimDatabase.start(this.replicas, schedule, (health) => {
      this.tell(`state database ${health}`)
      void this.#process?.system.healthChanged(health)
    })
    if (db === undefined) return false
    const components = new SimComponents(this.disks, cellBlocks)
    const evidence = new Evidence(components, CONFIG.componentReadErrors)
    const engine = new SimEngine({
      schedule,
      cellBlocks,
      ledger: this.ledger,
      disk: (id) => components.disk(id),
      writing: (device, regions, size) => this.hooks.writing(device, regions, size),
      copying: (device, job, loaded) => this.hooks.copying(device, job, loaded),
      refused: (job) => this.broken(`a job that the plan does not know: ${JSON.stringify(job)}`),
      mounted: (device, plan, anew) => this.hooks.mounted(device, plan, anew),
      resuming: (device) => this.hooks.resuming(device),
      told: (e) => {
        evidence.event(e)
      },
      begun: (device, job, targets) => {
        evidence.begun({ unit: this.system.parts.metadevices.nameOf(device), job, targets })
      },
      trace: (line) => TRACE && this.tell(line),
    })
    const log = this.#logger()
    const links = { add: () => Promise.resolve(), remove: () => Promise.resolve() } as unknown as DeviceLinks
    const shared = components as unknown as Components
    const system = new System({
      config: CONFIG,
      where: { etc: '/etc', run: '/run', dev: '/dev' },
      db,
      engine,
      metadevices: new Metadevices(engine, shared, links),
      components: shared,
      files: simFiles(schedule, cellBlocks, this.ledger, (fd) => components.opened(fd)),
      log,
      notice: (level, text) => {
        this.tell(`${level}: ${text}`)
        this.hooks.noticed(text)
      },
    })
    engine.start(undefined, () => {
      for (const e of engine.drain(1000)) system.event(e)
    })
    this.#process = { db, engine, components, evidence, system }
    await this.finish(system.load(), check)
    await this.finish(system.startResyncs(), check)
    return true
  }

  kill(): void {
    const { db, engine } = this.process
    db.kill()
    engine.kill()
    for (const d of this.disks.values()) d.forget()
    this.schedule.clear()
    this.clock.clear()
    this.#process = null
  }

  /** Something happens; false when nothing can. */
  step(): boolean {
    return this.clock.fire() || this.schedule.step() || this.#idle()
  }

  /** Time passes until somebody has waited long enough; cleaners look at their regions meanwhile. */
  #idle(): boolean {
    if (!this.clock.fire(true)) return false
    for (const { name } of this.setup.mirrors) this.engineMirror(name)?.sweep()
    return true
  }

  /** Lets things happen until `work` is done; `check` comes after each of them. */
  async finish<T>(work: Promise<T>, check: () => void = () => undefined): Promise<T> {
    let done = false
    const noted = work.finally(() => (done = true))
    for (;;) {
      await settled()
      check()
      if (done) return noted
      if (this.wrong !== null) throw this.wrong
      if (!this.step()) throw new Wrong('nothing can happen any more, and somebody waits')
    }
  }

  async configure(): Promise<void> {
    const tab = parseTab(this.setup.tab, 'md.tab')
    if (!tab.ok) throw new Error(errorText(tab.error))
    const entries = initEntries([], true, tab.value)
    if (!entries.ok) throw new Error(errorText(entries.error))
    const operation = (tree: Tree): MetaResult<Outcome> => {
      const options = { force: false, check: false, random: () => this.nextUnit(), headers: this.headers }
      const context = { inventory: this.inventory, live: IDLE, now: 0, counter: 0, ...options }
      const batch = init(entries.value, { ...context, tree })
      const [problem] = batch.errors
      return problem === undefined ? ok(batch.outcome) : err(problem)
    }
    const done = await this.finish(this.system.apply(operation))
    if (!done.ok) throw new Error(`${done.error.object ?? ''} ${errorText(done.error)}`)
    this.system.kickResyncs(done.value.put)
  }

  /** What a journal is known by. */
  nextUnit(): number {
    return ++this.#unit
  }

  /** As raid5headers.ts finds them on real devices. */
  get headers(): Headers {
    return (d) => {
      const value = this.disk(d.path).read(0)
      if (value === undefined) return err(metaError('sys', d.name, 'I/O error'))
      const block = this.ledger.blockAt(value)
      const found = block === undefined ? null : decodeHeader(block)
      return ok(found === null ? null : { header: found.header, live: false })
    }
  }

  get inventory(): Inventory {
    const { cellBlocks } = this.setup
    return (word) => {
      const disk = this.disks.get(word)
      if (disk?.canOpen !== true) return err(metaError('sys', word, 'No such device or address'))
      const size = blocks(disk.cells * cellBlocks)
      const device: Device = {
        name: word,
        path: word,
        identity: identityOf(disk),
        extent: { first: blocks(0), blocks: size },
        offset: blocks(0),
        size,
        // A cylinder is a cell, so that nothing is rounded away.
        geometry: { heads: 1, sectors: cellBlocks },
        labelAtStart: false,
        replicaEnd: blocks(0),
        isReplica: false,
        usedBy: null,
      }
      return ok(device)
    }
  }

  #logger(): Logger {
    const say =
      (level: string) =>
      (...words: readonly unknown[]): void =>
        this.tell(
          `${level}: ${words.map((w) => (typeof w === 'string' ? w : JSON.stringify(w, stackOfError))).join(' ')}`,
        )
    const none = (): void => undefined
    const defect = (...words: readonly unknown[]): void => {
      say('error')(...words)
      // An error that is no disk's and no database's is metad's own.
      if (this.#process?.db.health === 'good') this.broken(`metad logs an error: ${this.story.at(-1) ?? ''}`)
    }
    return {
      trace: none,
      debug: none,
      info: say('info'),
      warn: say('warn'),
      error: defect,
      fatal: say('fatal'),
    } as unknown as Logger
  }
}
