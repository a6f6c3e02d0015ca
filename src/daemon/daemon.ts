/**
 * metad's life: everything is built in start(), in the order that lets nothing be answered too early,
 * and taken down in stop() in the reverse order. What commands do is in requests.ts; what the
 * metadevices are, in system.ts.
 */
import { join } from 'node:path'
import type { DatabaseHealth, StateDatabase } from '../db/types.js'
import { openMddb } from '../db/mddb.js'
import { loadDataPlane } from '../dataplane/native.js'
import type { DataPlane } from '../dataplane/types.js'
import { type ExportUnit, makeExportTable } from '../nbd/exports.js'
import { NbdListener } from '../nbd/listener.js'
import { toBytes } from '../base/units.js'
import type { NativeEvent } from '../plan/events.js'
import { HOST_FILES } from '../sys/hostfiles.js'
import { DeviceLinks } from '../sys/links.js'
import { errorText } from '../msg/errors.js'
import { KIND_TITLES } from '../msg/report.js'
import { Clients } from './clients.js'
import { Components } from './components.js'
import type { Config } from './config.js'
import { type Logger, type Notice, noticeTo } from './log.js'
import { Metadevices } from './metadevices.js'
import { makeHandler } from './requests.js'
import { ControlServer } from './server.js'
import { System } from './system.js'

export interface Places {
  readonly etc: string
  readonly run: string
  readonly dev: string
}

/** Events taken per turn of the event loop, so that a burst of errors does not starve commands. */
const DRAIN_EVENTS = 1024

export class Daemon {
  readonly #where: Places
  readonly #config: Config
  readonly #log: Logger
  readonly #notice: Notice
  #parts:
    | {
        readonly db: StateDatabase
        readonly engine: DataPlane
        readonly components: Components
        readonly links: DeviceLinks
        readonly system: System
        readonly control: ControlServer
        readonly nbd: NbdListener
        readonly clients: Clients
      }
    | undefined

  constructor(where: Places, config: Config, log: Logger) {
    this.#where = where
    this.#config = config
    this.#log = log
    this.#notice = noticeTo(log)
  }

  async start(): Promise<void> {
    const db = await openMddb({
      configDir: this.#where.etc,
      events: {
        notice: this.#notice,
        healthChanged: (health: DatabaseHealth) => void this.#parts?.system.healthChanged(health),
      },
    })
    const engine = loadDataPlane()
    const { threads, queueDepth, maxRequestBytes, spinMicros, regionCleanSeconds, raid5CacheBytes } = this.#config
    const regionSweepMillis = regionCleanSeconds * 1000
    const limits = { threads, queueDepth, maxRequestBytes, spinMicros, regionSweepMillis, raid5CacheBytes }
    engine.start(limits, () => this.#drain())
    const components = new Components(
      this.#config,
      (id) => engine.busy(id),
      () => this.#parts?.system.storageFreed(),
    )
    const nbdPath = join(this.#where.run, 'nbd.sock')
    const links = new DeviceLinks(this.#where.dev, nbdPath, (text) => this.#log.warn(text))
    const metadevices = new Metadevices(engine, components, links)
    const system = new System({
      config: this.#config,
      where: this.#where,
      db,
      engine,
      metadevices,
      components,
      files: HOST_FILES,
      log: this.#log,
      notice: this.#notice,
    })
    const control = new ControlServer(makeHandler(system), this.#log)
    const clients = new Clients(system, this.#log)
    const nbd = this.#listener(system, clients)
    this.#parts = { db, engine, components, links, system, control, nbd, clients }

    await links.clear()
    await system.load()
    await control.listen(join(this.#where.run, 'admin.sock'))
    // Before the unix socket: a port that is taken ends metad, and by then nobody may be served.
    if (this.#config.nbdTcp !== null) await nbd.listenTcp(this.#config.nbdTcp.host, this.#config.nbdTcp.port)
    await nbd.listenUnix(nbdPath)
    system.startResyncs().catch((e: unknown) => this.#log.error(e, 'resyncs'))
  }

  /** New clients out, running commands finished, resyncs parked, clients drained, devices flushed, all closed. */
  async stop(): Promise<void> {
    const parts = this.#parts
    if (parts === undefined) return
    await parts.nbd.close()
    await parts.clients.arrived()
    await parts.control.close()
    await parts.system.stop()
    await parts.links.clear()
    await parts.engine.stop()
    parts.components.closeAll()
    await parts.db.close()
  }

  #listener(system: System, clients: Clients): NbdListener {
    const units = (): readonly ExportUnit[] =>
      system.exported().map((e) => ({
        name: e.unit.name,
        device: e.device,
        sizeBytes: toBytes(e.unit.blocks),
        readOnly: system.readOnly,
        description: KIND_TITLES[e.unit.kind],
        preferredBlockBytes: 0,
        // Zeroes that nobody wrote would have to get parity: RAID5 takes a trim for the hint that it is, and offers none.
        trims: e.unit.kind !== 'raid5',
        ...(e.refusal === undefined ? {} : { refusal: errorText(e.refusal) }),
      }))
    return new NbdListener({
      exports: makeExportTable(units, { maxRequestBytes: this.#config.maxRequestBytes }),
      handover: (socket, to, residual) => clients.take(socket, to, residual),
      active: () => clients.count(),
      limits: { maxConnections: this.#config.maxConnections },
      log: (level, message, fields) => this.#log[level](fields ?? {}, message),
    })
  }

  #drain(): void {
    const parts = this.#parts
    if (parts === undefined) return
    const events = parts.engine.drain(DRAIN_EVENTS)
    for (const e of events) this.#event(parts.system, e)
    if (events.length === DRAIN_EVENTS) setImmediate(() => this.#drain())
  }

  #event(system: System, e: NativeEvent): void {
    try {
      system.event(e)
    } catch (error) {
      this.#log.error({ err: error, event: e }, 'event failed')
    }
  }
}
