/** Open components over simulated disks, with the rules of src/daemon/components.ts: an opening, a number. */
import { err, ok } from '../../../src/base/result.js'
import { blocks } from '../../../src/base/units.js'
import type { Components } from '../../../src/daemon/components.js'
import type { Slice } from '../../../src/meta/types.js'
import { type MetaError, type MetaResult, metaError } from '../../../src/msg/errors.js'
import type { ComponentId, OpenComponent } from '../../../src/plan/types.js'
import type { SimDisk } from './disks.js'

interface Opening {
  open: OpenComponent
  readonly disk: SimDisk
  readonly path: string
  users: number
}

export const identityOf = (disk: SimDisk): string => `file:1:${disk.name}.${disk.generation}`

export class SimComponents implements Pick<Components, keyof Components> {
  readonly #disks: ReadonlyMap<string, SimDisk>
  readonly #open = new Map<string, Opening>()
  readonly #byId = new Map<ComponentId, Opening>()
  readonly #closedIds = new Map<string, ComponentId>()
  readonly #readErrors = new Map<ComponentId, number>()
  readonly #cellBlocks: number
  /** By path: what could not be opened. */
  readonly #away = new Set<string>()
  #next = 1

  constructor(disks: ReadonlyMap<string, SimDisk>, cellBlocks: number) {
    this.#disks = disks
    this.#cellBlocks = cellBlocks
  }

  /** Whether metad has it open, in whatever part. */
  isOpen(name: string): boolean {
    return this.#open.has(name)
  }

  /** It could not be opened once, or not as what it is known by. */
  wasAway(c: Slice): boolean {
    return this.#away.has(c.path)
  }

  /** By the number it was opened with, as long as it is open. */
  opened(fd: number): SimDisk {
    for (const o of this.#open.values()) if (o.open.fd === fd) return o.disk
    throw new Error(`descriptor ${fd} is not open`)
  }

  /** Also of one that was closed while the engine still used it: @throws when it was never open. */
  disk(id: ComponentId): SimDisk {
    const opening = this.#byId.get(id)
    if (opening === undefined) throw new Error(`component ${id} was never open`)
    return opening.disk
  }

  acquire(c: Slice): Promise<MetaResult<OpenComponent>> {
    const have = this.#open.get(c.path)
    if (have !== undefined) {
      have.users++
      return Promise.resolve(ok(have.open))
    }
    const disk = this.#disks.get(c.path)
    const refused = (e: MetaError): Promise<MetaResult<OpenComponent>> => {
      this.#away.add(c.path)
      return Promise.resolve(err(e))
    }
    if (disk?.busy === true) return refused(metaError('sys', c.name, 'Device or resource busy'))
    if (disk?.canOpen !== true) return refused(metaError('sys', c.name, 'No such device or address'))
    if (identityOf(disk) !== c.identity) return refused(metaError('replaced', c.name))
    const open: OpenComponent = {
      component: this.#next as ComponentId,
      fd: this.#next++,
      direct: false,
      align: 512,
      blockDevice: false,
      size: blocks(disk.cells * this.#cellBlocks),
      timeoutMillis: 0,
    }
    const opening = { open, disk, path: c.path, users: 1 }
    this.#open.set(c.path, opening)
    this.#byId.set(open.component, opening)
    return Promise.resolve(ok(open))
  }

  release(c: Slice): void {
    const opening = this.#open.get(c.path)
    if (opening === undefined) throw new Error(`${c.path} is not open`)
    if (--opening.users === 0) this.#open.delete(c.path)
  }

  get(c: Slice): OpenComponent | undefined {
    return this.#open.get(c.path)?.open
  }

  isHeld(c: Slice): boolean {
    return !this.#open.has(c.path) && this.#disks.get(c.path)?.busy === true
  }

  isFree(c: Slice): Promise<boolean> {
    return Promise.resolve(!(this.#open.get(c.path)?.disk.busy ?? false))
  }

  renew(c: Slice): void {
    const opening = this.#open.get(c.path)
    if (opening === undefined) return
    // The old number still finds its disk: operations under it may be on their way.
    opening.open = { ...opening.open, component: this.#next++ as ComponentId }
    this.#byId.set(opening.open.component, opening)
  }

  numberOf(c: Slice): ComponentId {
    const open = this.get(c)
    if (open !== undefined) return open.component
    const known = this.#closedIds.get(c.path)
    if (known !== undefined) return known
    const id = this.#next++ as ComponentId
    this.#closedIds.set(c.path, id)
    return id
  }

  isOf(id: ComponentId, c: Slice): boolean {
    const opening = this.#byId.get(id)
    return opening?.path === c.path && opening.open.component === id
  }
  nameOf(id: ComponentId): string {
    return this.#byId.get(id)?.path ?? `component ${id}`
  }
  countReadError(id: ComponentId): number {
    const n = (this.#readErrors.get(id) ?? 0) + 1
    this.#readErrors.set(id, n)
    return n
  }
  closeAll(): void {
    this.#open.clear()
  }
}
