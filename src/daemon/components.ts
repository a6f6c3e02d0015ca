/**
 * Open components. Each storage is opened once, exclusively, and numbered for as long as metad runs:
 * the number is what plans and events carry. Identity is compared with the record before a byte is read.
 */
import { closeSync, constants, openSync } from 'node:fs'
import { err, ok } from '../base/result.js'
import { lockFile } from '../dataplane/native.js'
import type { Component } from '../meta/types.js'
import { type MetaResult, metaError } from '../msg/errors.js'
import type { ComponentId, OpenComponent } from '../plan/types.js'
import { errnoOf, sysError } from '../sys/errno.js'
import { examine, sameAfterRestart } from '../sys/storage.js'
import type { Config } from './config.js'

interface Opened {
  readonly open: OpenComponent
  readonly name: string
  users: number
}

export class Components {
  readonly #config: Config
  readonly #byPath = new Map<string, Opened>()
  readonly #byId = new Map<number, Opened>()
  #next = 1

  constructor(config: Config) {
    this.#config = config
  }

  /** Opens (or shares) the storage of `c`; every success is paired with one release(). */
  async acquire(c: Component): Promise<MetaResult<OpenComponent>> {
    const have = this.#byPath.get(c.path)
    if (have !== undefined) {
      have.users++
      return ok(have.open)
    }
    try {
      const storage = await examine(c.path)
      if (storage === undefined) return err(metaError('notADisk', c.name))
      if (!sameAfterRestart(c.identity, storage.identity)) return err(metaError('replaced', c.name))
      if (storage.size < c.offset + c.size)
        return err(metaError('shrunk', c.name, String(storage.size), String(c.offset + c.size)))
      const mode = this.#config.ioOf.get(c.path) ?? this.#config.io
      const direct = mode === 'direct' || (mode === 'auto' && storage.blockDevice)
      const flags = constants.O_RDWR | (direct ? constants.O_DIRECT : 0) | (storage.blockDevice ? constants.O_EXCL : 0)
      const fd = openSync(c.path, flags)
      if (!lockFile(fd)) {
        closeSync(fd)
        return err(metaError('sys', c.name, 'Device or resource busy'))
      }
      const open: OpenComponent = {
        component: this.#next++ as ComponentId,
        fd,
        direct,
        align: direct ? Math.max(storage.logicalBlock, 512) : 512,
        blockDevice: storage.blockDevice,
        size: storage.size,
        timeoutMillis: 0,
      }
      const opened: Opened = { open, name: c.name, users: 1 }
      this.#byPath.set(c.path, opened)
      this.#byId.set(open.component, opened)
      return ok(open)
    } catch (e) {
      if (errnoOf(e) === undefined) throw e
      return err(sysError(e, c.name))
    }
  }

  release(c: Component): void {
    const opened = this.#byPath.get(c.path)
    if (opened === undefined) return
    opened.users--
    if (opened.users > 0) return
    this.#byPath.delete(c.path)
    this.#byId.delete(opened.open.component)
    closeSync(opened.open.fd)
  }

  get(c: Component): OpenComponent | undefined {
    return this.#byPath.get(c.path)?.open
  }

  /** The name metastat shows for a number in an event. */
  nameOf(id: ComponentId): string {
    return this.#byId.get(id)?.name ?? `component ${id}`
  }

  closeAll(): void {
    for (const { open } of this.#byId.values()) closeSync(open.fd)
    this.#byId.clear()
    this.#byPath.clear()
  }
}
