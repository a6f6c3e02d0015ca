/**
 * Carries dirty regions between the engine and their log: no write enters a region before the log says so on
 * stable storage, and a region is clean for the engine only after the log says that. Not in turn with changes
 * of the tree: a write must not wait for one.
 */
import type { RegionLogs } from '../db/regions.js'
import type { DataPlane } from '../dataplane/types.js'
import { errorText } from '../msg/errors.js'
import type { NativeEvent } from '../plan/events.js'
import type { Logger } from './log.js'
import type { Metadevices } from './metadevices.js'

type RegionEvent = Extract<NativeEvent, { kind: 'regionsDirty' | 'regionsIdle' }>

export class Dirt {
  readonly #logs: RegionLogs
  readonly #engine: DataPlane
  readonly #metadevices: Metadevices
  readonly #log: Logger
  readonly #under = new Set<Promise<void>>()

  constructor(parts: { logs: RegionLogs; engine: DataPlane; metadevices: Metadevices; log: Logger }) {
    this.#logs = parts.logs
    this.#engine = parts.engine
    this.#metadevices = parts.metadevices
    this.#log = parts.log
  }

  event(e: RegionEvent): void {
    const done: Promise<void> = this.#carry(e)
      .catch((error: unknown) => {
        this.#log.error(error, 'regions not recorded')
        this.#engine.marked(e.device, e.ticket, false)
      })
      .finally(() => this.#under.delete(done))
    this.#under.add(done)
  }

  async idle(): Promise<void> {
    await Promise.all(this.#under)
  }

  async #carry(e: RegionEvent): Promise<void> {
    const name = this.#metadevices.nameOf(e.device)
    if (name === undefined) return this.#engine.marked(e.device, e.ticket, false)
    const done = await (e.kind === 'regionsDirty'
      ? this.#logs.mark(name, e.regions, e.regionBlocks)
      : this.#logs.clean(name, e.regions, e.regionBlocks))
    if (!done.ok) this.#log.error({ mirror: name, kind: e.kind }, `regions not recorded: ${errorText(done.error)}`)
    this.#engine.marked(e.device, e.ticket, done.ok)
  }
}
