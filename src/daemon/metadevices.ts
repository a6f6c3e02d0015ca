/**
 * The metadevices the engine serves: a plan, its open components and its clients, by name.
 *
 * A metadevice is `open` while it has clients, and from the moment one is let in: nothing that needs a closed
 * metadevice may begin between a client's admission and its first request.
 */
import { setTimeout } from 'node:timers/promises'
import { err, ok } from '../base/result.js'
import type { DataPlane, NbdTerms } from '../dataplane/types.js'
import { compilePlan } from '../meta/compile.js'
import type { Member, Metadevice, Tree, UnitName } from '../meta/types.js'
import { type MetaResult, metaError } from '../msg/errors.js'
import { encodePlan } from '../plan/encode.js'
import type { OpenComponent } from '../plan/types.js'
import type { DeviceLinks } from '../sys/links.js'
import type { Components } from './components.js'

interface Served {
  readonly device: number
  readonly unit: UnitName
  components: readonly Member[]
  readonly clients: Set<number>
  /** Let in, not yet in the engine. */
  arriving: number
  /** The plan in use, as if it were of generation 0. */
  plan: Uint8Array
  /** Its real generation; 0: the engine does not know it yet. */
  generation: number
}

export interface InstallOptions {
  readonly readOnly: boolean
  /** Of the log, when the engine does not know the mirror yet. */
  readonly dirty: Uint8Array | null
  /** A RAID5 journal is to be replayed, once more if it was before, and nothing else. */
  readonly replay?: boolean
}

const NO_PLAN = new Uint8Array(0)

export class Metadevices {
  readonly #engine: DataPlane
  readonly #components: Components
  readonly #links: DeviceLinks
  readonly #byName = new Map<UnitName, Served>()
  readonly #byDevice = new Map<number, Served>()
  #nextDevice = 1
  #generation = 1

  constructor(engine: DataPlane, components: Components, links: DeviceLinks) {
    this.#engine = engine
    this.#components = components
    this.#links = links
  }

  release(components: readonly Member[]): void {
    for (const c of components) this.#components.release(c)
  }

  /**
   * `name` is exported under a number, without the engine: it is given a plan when the first client comes.
   */
  async reserve(name: UnitName): Promise<number> {
    const known = this.#byName.get(name)
    if (known !== undefined) return known.device
    const { device } = this.#served(name, this.#nextDevice++)
    await this.#links.add(name)
    return device
  }

  /**
   * Makes `unit` exist in the engine or swaps its plan; resolves when no request runs on the old one. Takes
   * over the references of `acquired`: the components that are open, the others are out of service in `tree`.
   * @returns whether the plan is another one now
   */
  async install(
    unit: Metadevice,
    tree: Tree,
    acquired: readonly Member[],
    options: InstallOptions,
  ): Promise<MetaResult<boolean>> {
    const known = this.#byName.get(unit.name)
    const replay = options.replay === true
    const plan = compilePlan(unit, tree, {
      generation: 0,
      readOnly: options.readOnly,
      replay,
      component: (c) => this.#components.numberOf(c),
    })
    const bytes = encodePlan(plan)
    if (known !== undefined && !replay && Buffer.compare(known.plan, bytes) === 0) {
      this.release(acquired)
      return ok(false)
    }
    const open = new Map<number, OpenComponent>()
    for (const c of acquired) {
      const o = this.#components.get(c)
      if (o !== undefined) open.set(o.component, o)
    }
    const device = known?.device ?? this.#nextDevice++
    const generation = this.#generation++
    try {
      await this.#engine.install(device, encodePlan({ ...plan, generation }), [...open.values()], options.dirty)
    } catch (e) {
      this.release(acquired)
      return err(metaError('refusedByEngine', unit.name, (e as Error).message))
    }
    if (known !== undefined) this.release(known.components)
    const served = known ?? this.#served(unit.name, device)
    Object.assign(served, { components: acquired, plan: bytes, generation })
    if (known === undefined) await this.#links.add(unit.name)
    return ok(true)
  }

  async remove(name: UnitName): Promise<void> {
    const served = this.#byName.get(name)
    if (served === undefined) return
    this.#byName.delete(name)
    await this.#links.remove(name)
    if (served.generation > 0) await this.#engine.remove(served.device)
    this.#byDevice.delete(served.device)
    this.release(served.components)
  }

  /** Of what the engine has. */
  deviceOf(name: UnitName): number | undefined {
    const served = this.#byName.get(name)
    return served !== undefined && served.generation > 0 ? served.device : undefined
  }
  /** Clients ask for it; the engine need not have it yet. */
  exportOf(name: UnitName): number | undefined {
    return this.#byName.get(name)?.device
  }
  nameOf(device: number): UnitName | undefined {
    return this.#byDevice.get(device)?.unit
  }
  names(): readonly UnitName[] {
    return [...this.#byName.keys()]
  }
  /** Connections in the engine, those of a metadevice that is just being removed included. */
  clients(): number {
    let count = 0
    for (const served of this.#byDevice.values()) count += served.clients.size
    return count
  }
  generationOf(name: UnitName): number | undefined {
    return this.#byName.get(name)?.generation
  }
  isOpen(name: UnitName): boolean {
    const served = this.#byName.get(name)
    return served !== undefined && served.clients.size + served.arriving > 0
  }

  /** A client is on its way in; the function takes that back, however it ends. */
  arrive(device: number): (() => void) | undefined {
    const served = this.#byDevice.get(device)
    if (served === undefined) return undefined
    served.arriving++
    return () => {
      served.arriving--
    }
  }

  /** Gives a connection to the engine. The descriptor is duplicated; the caller closes its own. */
  adopt(name: UnitName, fd: number, terms: NbdTerms, residual: Uint8Array): void {
    const served = this.#byName.get(name)
    if (served === undefined) return
    served.clients.add(this.#engine.adopt(fd, served.device, terms, residual))
  }

  /** Lets requests in flight finish, then hangs up; those that do not finish in time are cut off. */
  async disconnectAll(patienceMs = 10_000): Promise<void> {
    const clients = (): readonly number[] => [...this.#byName.values()].flatMap((s) => [...s.clients])
    for (const c of clients()) this.#engine.disconnect(c, 'drain')
    const end = Date.now() + patienceMs
    while (clients().length > 0 && Date.now() < end) await setTimeout(5)
    for (const c of clients()) this.#engine.disconnect(c, 'now')
    const grace = Date.now() + 1000
    while (clients().length > 0 && Date.now() < grace) await setTimeout(5)
  }

  #served(unit: UnitName, device: number): Served {
    const served: Served = {
      device,
      unit,
      components: [],
      clients: new Set<number>(),
      arriving: 0,
      plan: NO_PLAN,
      generation: 0,
    }
    this.#byName.set(unit, served)
    this.#byDevice.set(device, served)
    return served
  }

  /** @returns the metadevice whose last client this was. */
  closed(device: number, connection: number): UnitName | undefined {
    const served = this.#byDevice.get(device)
    if (served === undefined || !served.clients.delete(connection)) return undefined
    return served.clients.size === 0 ? served.unit : undefined
  }
}
