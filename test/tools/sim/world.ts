/**
 * A host in which everything but the control plane is simulated: disks and replicas that outlive metad,
 * an engine, clients that check what they read. metad's own System runs in it unchanged.
 *
 * Permitted pattern of trouble: disks of one side at a time, and only while another side is whole; the
 * process may be killed and the power may go at any moment; replicas may break in any number.
 */
import { ok } from '../../../src/base/result.js'
import { type Blocks, blocks } from '../../../src/base/units.js'
import type { Components } from '../../../src/daemon/components.js'
import { DEFAULTS } from '../../../src/daemon/config.js'
import type { Logger } from '../../../src/daemon/log.js'
import { Metadevices } from '../../../src/daemon/metadevices.js'
import { System } from '../../../src/daemon/system.js'
import { init, initEntries, type Outcome } from '../../../src/meta/operations.js'
import { IDLE } from '../../../src/meta/kind.js'
import { parseTab } from '../../../src/meta/tab.js'
import type { Device, Inventory, MirrorUnit, StripeUnit, Tree, UnitName } from '../../../src/meta/types.js'
import { errorText, type MetaResult, metaError } from '../../../src/msg/errors.js'
import { err } from '../../../src/base/result.js'
import type { DeviceLinks } from '../../../src/sys/links.js'
import { SimComponents, identityOf } from './components.js'
import { makeSimReplicas, SimDatabase, type SimReplica } from './database.js'
import { CELL_BLOCKS, SimDisk } from './disks.js'
import { SimEngine } from './engine.js'
import type { SimMirror } from './mirror.js'
import { Schedule, settled } from './schedule.js'

/** SIM_TRACE=1: what crosses the boundary is part of the story. */
const TRACE = process.env['SIM_TRACE'] === '1'

const STUCK_MS = 20_000

export const CELLS = 96
export const MIRROR = 'd0' as UnitName

/** Components of each side; the last one is only attached by command. */
const SIDES: readonly (readonly string[])[] = [['/a1', '/a2'], ['/b1'], ['/c1', '/c2', '/c3']]
const TAB = [
  `d1 1 2 /a1 /a2 -i ${CELL_BLOCKS}b`,
  'd2 1 1 /b1',
  `d3 2 1 /c1 2 /c2 /c3 -i ${CELL_BLOCKS}b`,
  'd0 -m d1',
  '',
].join('\n')
const SIZES: Readonly<Record<string, number>> = {
  '/a1': CELLS / 2,
  '/a2': CELLS / 2,
  '/b1': CELLS,
  '/c1': CELLS / 3,
  '/c2': CELLS / 3,
  '/c3': CELLS / 3,
}

export interface Process {
  readonly db: SimDatabase
  readonly engine: SimEngine
  readonly components: SimComponents
  readonly system: System
}

export class Wrong extends Error {}

export class World {
  readonly schedule: Schedule
  readonly disks: ReadonlyMap<string, SimDisk>
  readonly replicas: SimReplica[]
  readonly #etc: string
  /** The first promise that was broken; noted, because it is found inside of metad's own callbacks. */
  wrong: Wrong | null = null
  /** Lines of the log, for a failing seed. */
  readonly story: string[] = []
  #process: Process | null = null

  /** @param etc a directory for md.cf */
  constructor(seed: number, etc: string) {
    this.schedule = new Schedule(seed)
    this.#etc = etc
    this.disks = new Map(Object.entries(SIZES).map(([name, cells]) => [name, new SimDisk(name, cells)]))
    this.replicas = makeSimReplicas(this.schedule.dice.pick([1, 2, 3, 5]))
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
  get mirror(): MirrorUnit | undefined {
    const m = this.tree.get(MIRROR)
    return m?.kind === 'mirror' ? m : undefined
  }
  get engineMirror(): SimMirror | undefined {
    const device = this.system.parts.metadevices.deviceOf(MIRROR)
    return device === undefined ? undefined : this.process.engine.mirror(device)
  }

  stripe(name: UnitName): StripeUnit {
    const unit = this.tree.get(name)
    if (unit?.kind !== 'stripe') throw new Error(`no stripe ${name}`)
    return unit
  }

  disksOf(side: number): readonly SimDisk[] {
    return (SIDES[side] ?? []).flatMap((name) => this.disks.get(name) ?? [])
  }

  broken(what: string): void {
    this.wrong ??= new Wrong(what)
  }

  tell(line: string): void {
    this.story.push(`${this.schedule.events}: ${line}`)
  }

  /** False when the state database refuses to start: too few replicas. */
  async boot(): Promise<boolean> {
    const db = SimDatabase.start(this.replicas, this.schedule, (health) => {
      this.tell(`state database ${health}`)
      void this.#process?.system.healthChanged(health)
    })
    if (db === undefined) return false
    const components = new SimComponents(this.disks)
    const engine = new SimEngine(
      this.schedule,
      (id) => components.disk(id),
      (line) => TRACE && this.tell(line),
    )
    const log = this.#logger()
    const links = { add: () => Promise.resolve(), remove: () => Promise.resolve() } as unknown as DeviceLinks
    const shared = components as unknown as Components
    const system = new System({
      config: DEFAULTS,
      where: { etc: this.#etc, run: this.#etc, dev: this.#etc },
      db,
      engine,
      metadevices: new Metadevices(engine, shared, links),
      components: shared,
      log,
      notice: (level, text) => this.tell(`${level}: ${text}`),
    })
    engine.start(undefined, () => {
      for (const e of engine.drain(1000)) system.event(e)
    })
    this.#process = { db, engine, components, system }
    await this.finish(system.load())
    await this.finish(system.startResyncs())
    return true
  }

  kill(): void {
    const { db, engine } = this.process
    db.kill()
    engine.kill()
    this.schedule.clear()
    this.#process = null
  }

  /** Lets things happen until `work` is done. */
  async finish<T>(work: Promise<T>): Promise<T> {
    let done = false
    const began = Date.now()
    const noted = work.finally(() => (done = true))
    for (;;) {
      await settled()
      if (done) return noted
      if (this.wrong !== null) throw this.wrong
      if (this.schedule.step()) continue
      // Only real files (md.cf) are left to wait for.
      await new Promise((resolve) => setTimeout(resolve, 1))
      if (Date.now() - began > STUCK_MS) throw new Wrong('nothing can happen any more, and somebody waits')
    }
  }

  async configure(): Promise<void> {
    const tab = parseTab(TAB, 'md.tab')
    if (!tab.ok) throw new Error(errorText(tab.error))
    const entries = initEntries([], true, tab.value)
    if (!entries.ok) throw new Error(errorText(entries.error))
    const operation = (tree: Tree): MetaResult<Outcome> => {
      const context = { inventory: this.inventory, live: IDLE, now: 0, force: false, counter: 0, check: false }
      const batch = init(entries.value, { ...context, tree })
      const [problem] = batch.errors
      return problem === undefined ? ok(batch.outcome) : err(problem)
    }
    const done = await this.finish(this.system.apply(operation))
    if (!done.ok) throw new Error(`${done.error.object ?? ''} ${errorText(done.error)}`)
  }

  get inventory(): Inventory {
    return (word) => {
      const disk = this.disks.get(word)
      if (disk?.canOpen !== true) return err(metaError('sys', word, 'No such device or address'))
      const size: Blocks = blocks(disk.cells * CELL_BLOCKS)
      const device: Device = {
        name: word,
        path: word,
        identity: identityOf(disk),
        extent: { first: blocks(0), blocks: size },
        offset: blocks(0),
        size,
        // A cylinder is a cell, so that nothing is rounded away.
        geometry: { heads: 1, sectors: CELL_BLOCKS },
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
          `${level}: ${words.map((w) => (w instanceof Error ? String(w.stack) : typeof w === 'string' ? w : JSON.stringify(w))).join(' ')}`,
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
