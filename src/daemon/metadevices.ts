/**
 * The metadevices the engine serves: a plan, its open components and its clients, by name.
 *
 * A metadevice is `open` exactly while it has clients. A mirror's first client is let in only after
 * the state database says the mirror may have unequal sides (docs/commit-order.md, "mirror opened").
 */
import { setTimeout } from 'node:timers/promises'
import { err, ok } from '../base/result.js'
import type { DataPlane, NbdTerms } from '../dataplane/types.js'
import { compilePlan } from '../meta/compile.js'
import { componentsOf } from '../meta/tree.js'
import type { Component, Metadevice, Tree, UnitName } from '../meta/types.js'
import { type MetaResult, metaError } from '../msg/errors.js'
import { encodePlan } from '../plan/encode.js'
import type { OpenComponent } from '../plan/types.js'
import type { DeviceLinks } from '../sys/links.js'
import type { Components } from './components.js'

interface Served {
  readonly device: number
  readonly unit: UnitName
  components: readonly Component[]
  readonly clients: Set<number>
}

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

  /** Opens what `unit` stands on, all or nothing. Call release() with the same list when it is not kept. */
  async acquire(unit: Metadevice, tree: Tree): Promise<MetaResult<readonly Component[]>> {
    const wanted = componentsOf(unit, tree)
    const got: Component[] = []
    for (const c of wanted) {
      const opened = await this.#components.acquire(c)
      if (!opened.ok) {
        this.release(got)
        return err({ ...opened.error, object: `${unit.name}: ${c.name}` })
      }
      got.push(c)
    }
    return ok(got)
  }

  release(components: readonly Component[]): void {
    for (const c of components) this.#components.release(c)
  }

  /**
   * Makes `unit` exist in the engine or swaps its plan; resolves when no request runs on the old one.
   * Takes over the references of `acquired`.
   */
  async install(
    unit: Metadevice,
    tree: Tree,
    acquired: readonly Component[],
    readOnly: boolean,
  ): Promise<MetaResult<void>> {
    const served = this.#byName.get(unit.name) ?? {
      device: this.#nextDevice++,
      unit: unit.name,
      components: [],
      clients: new Set<number>(),
    }
    const open = new Map<number, OpenComponent>()
    const plan = compilePlan(unit, tree, {
      generation: this.#generation++,
      readOnly,
      component: (c) => {
        const o = this.#components.get(c)
        if (o === undefined) throw new Error(`component ${c.path} is not open`)
        open.set(o.component, o)
        return o.component
      },
    })
    try {
      await this.#engine.install(served.device, encodePlan(plan), [...open.values()], null)
    } catch (e) {
      this.release(acquired)
      return err(metaError('refusedByEngine', unit.name, (e as Error).message))
    }
    this.release(served.components)
    served.components = acquired
    const fresh = !this.#byName.has(unit.name)
    this.#byName.set(unit.name, served)
    this.#byDevice.set(served.device, served)
    if (fresh) await this.#links.add(unit.name)
    return ok(undefined)
  }

  async remove(name: UnitName): Promise<void> {
    const served = this.#byName.get(name)
    if (served === undefined) return
    this.#byName.delete(name)
    await this.#links.remove(name)
    await this.#engine.remove(served.device)
    this.#byDevice.delete(served.device)
    this.release(served.components)
  }

  deviceOf(name: UnitName): number | undefined {
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
  isOpen(name: UnitName): boolean {
    return (this.#byName.get(name)?.clients.size ?? 0) > 0
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

  /** @returns the metadevice whose last client this was. */
  closed(device: number, connection: number): UnitName | undefined {
    const served = this.#byDevice.get(device)
    if (served === undefined || !served.clients.delete(connection)) return undefined
    return served.clients.size === 0 ? served.unit : undefined
  }
}
