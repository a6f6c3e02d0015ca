/**
 * Open components. Each storage is opened once, exclusively, and numbered: plans and events carry the number.
 * A closed component keeps a number too, so that numbers in a plan are distinct; each opening gives a new one.
 *
 * Identity is compared with the record before a byte is read. Nothing here waits longer than the time limit:
 * opening a path whose server hangs would otherwise stop whoever asked. Storage for which the kernel still
 * holds operations that the engine gave up is neither closed, which would hang, nor opened again: they could
 * land on newer data. Nor is storage of which a client has not taken all pages that it was lent: it would
 * find newer data in them. Who wants such storage waits a moment, because clients that read are soon done.
 */
import { close, constants, open } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { err, ok } from '../base/result.js'
import { lockFile } from '../dataplane/native.js'
import type { Slice } from '../meta/types.js'
import { type MetaResult, metaError } from '../msg/errors.js'
import { strerror } from '../msg/strerror.js'
import type { ComponentId, OpenComponent } from '../plan/types.js'
import { errnoOf, sysError } from '../sys/errno.js'
import { examine, sameAfterRestart } from '../sys/storage.js'
import type { Config } from './config.js'

interface Opened {
  open: OpenComponent
  readonly name: string
  readonly path: string
  readonly identity: string
  users: number
  readErrors: number
  /** Without users it was busy all the same. */
  held: boolean
}

const keyOf = (c: Slice): string => `${c.path}\0${c.identity}`

const openFile = (path: string, flags: number): Promise<number> =>
  new Promise((resolve, reject) =>
    open(path, flags, (e, fd) => {
      if (e === null) resolve(fd)
      else reject(e)
    }),
  )
/**
 * Openings that came to no end, at once. Each holds one of Node's few threads for file operations, and metad
 * needs the others.
 */
const MAX_LATE = 2
/** How long storage that is busy is waited for, and how often it is looked at then. */
const BUSY_MILLIS = 500
const BUSY_LOOK_MILLIS = 5
/** Without anybody waiting: others may want the storage. */
const RETIRED_LOOK_MILLIS = 200

/** Nobody waits for it who need not: a close may have to write. */
const closeLater = (fd: number): Promise<void> => new Promise((resolve) => close(fd, () => resolve()))

export class Components {
  readonly #config: Config
  readonly #busy: (id: ComponentId) => boolean
  readonly #freed: () => void
  readonly #open = new Map<string, Opened>()
  readonly #opening = new Map<string, Promise<MetaResult<Opened>>>()
  readonly #byId = new Map<number, Opened>()
  readonly #closedIds = new Map<string, ComponentId>()
  /** Without users; closed when the kernel holds nothing of them. */
  #retired: Opened[] = []
  /** Closes under way, by identity: until they are done the storage is still locked. */
  readonly #closing = new Map<string, Promise<void>>()
  #late = 0
  #next = 1

  #looking: NodeJS.Timeout | undefined

  /**
   * @param busy whether the kernel still holds operations of a component that were given up, or pages of it are lent
   * @param freed something can be opened that was held
   */
  constructor(config: Config, busy: (id: ComponentId) => boolean, freed: () => void = () => undefined) {
    this.#config = config
    this.#busy = busy
    this.#freed = freed
  }

  /** Opens (or shares) the storage of `c`; every success is paired with one release(). */
  async acquire(c: Slice): Promise<MetaResult<OpenComponent>> {
    const key = keyOf(c)
    const have = this.#open.get(key)
    if (have !== undefined) {
      have.users++
      return ok(have.open)
    }
    const opened = await this.#shared(key, c)
    if (!opened.ok) return opened
    opened.value.users++
    return ok(opened.value.open)
  }

  release(c: Slice): void {
    const key = keyOf(c)
    const opened = this.#open.get(key)
    if (opened === undefined) return
    opened.users--
    if (opened.users > 0) return
    this.#open.delete(key)
    this.#retired.push(opened)
    this.#closeRetired()
  }

  get(c: Slice): OpenComponent | undefined {
    return this.#open.get(keyOf(c))?.open
  }

  /** Nobody uses it, and it cannot be opened before what is busy is over. */
  isHeld(c: Slice): boolean {
    return this.#retired.some((r) => r.identity === c.identity)
  }

  /** False when it is open and stays busy: the kernel holds operations of it, or a client pages. */
  isFree(c: Slice): Promise<boolean> {
    return this.#soon(() => {
      const open = this.get(c)
      return open === undefined || !this.#busy(open.component)
    })
  }

  /** Whether `free` holds, now or in a moment. */
  async #soon(free: () => boolean): Promise<boolean> {
    const end = Date.now() + BUSY_MILLIS
    while (!free()) {
      if (Date.now() >= end) return false
      await sleep(BUSY_LOOK_MILLIS)
    }
    return true
  }

  /**
   * All of `c` will be written anew: what the engine remembers of it (a sync that failed, errors counted) is
   * about data that is gone, so it gets another number. Not for one that is busy.
   */
  renew(c: Slice): void {
    const opened = this.#open.get(keyOf(c))
    if (opened === undefined) return
    this.#byId.delete(opened.open.component)
    opened.open = { ...opened.open, component: this.#next++ as ComponentId }
    opened.readErrors = 0
    this.#byId.set(opened.open.component, opened)
  }

  /** The number a plan uses for `c`, open or not. */
  numberOf(c: Slice): ComponentId {
    const open = this.get(c)
    if (open !== undefined) return open.component
    const key = keyOf(c)
    const known = this.#closedIds.get(key)
    if (known !== undefined) return known
    const id = this.#next++ as ComponentId
    this.#closedIds.set(key, id)
    return id
  }

  /** Whether `id` is the opening that `c` has now, or had last. */
  isOf(id: ComponentId, c: Slice): boolean {
    const opened = this.#byId.get(id)
    return opened !== undefined && opened.path === c.path && opened.identity === c.identity
  }

  /** The name metastat shows for a number in an event. */
  nameOf(id: ComponentId): string {
    return this.#byId.get(id)?.name ?? `component ${id}`
  }

  /** @returns how many there were since it was opened */
  countReadError(id: ComponentId): number {
    const opened = this.#byId.get(id)
    return opened === undefined ? 1 : ++opened.readErrors
  }

  /** After the engine has stopped. What still hangs is left to the end of the process. */
  closeAll(): void {
    this.#retired.push(...this.#open.values())
    this.#open.clear()
    this.#closeRetired()
  }

  #closeRetired(): void {
    const busy = this.#retired.filter((r) => this.#busy(r.open.component))
    for (const r of this.#retired) {
      if (busy.includes(r)) continue
      const closed: Promise<void> = closeLater(r.open.fd).then(() => {
        if (this.#closing.get(r.identity) === closed) this.#closing.delete(r.identity)
        if (r.held) this.#freed()
      })
      this.#closing.set(r.identity, closed)
      this.#byId.delete(r.open.component)
    }
    for (const r of busy) r.held = true
    this.#retired = busy
    clearTimeout(this.#looking)
    if (busy.length > 0) this.#looking = setTimeout(() => this.#closeRetired(), RETIRED_LOOK_MILLIS).unref()
  }

  #shared(key: string, c: Slice): Promise<MetaResult<Opened>> {
    const under = this.#opening.get(key)
    if (under !== undefined) return under
    const opening = this.#limited(key, c).finally(() => this.#opening.delete(key))
    this.#opening.set(key, opening)
    return opening
  }

  /** What comes after the limit is closed again. */
  #limited(key: string, c: Slice): Promise<MetaResult<Opened>> {
    if (this.#late >= MAX_LATE) return Promise.resolve(err(metaError('sys', c.name, strerror('ETIMEDOUT'))))
    const opening = this.#openNow(c).then((r) => {
      if (late) {
        this.#late--
        if (r.ok) void closeLater(r.value.open.fd)
        return r
      }
      clearTimeout(timer)
      if (r.ok) {
        this.#open.set(key, r.value)
        this.#byId.set(r.value.open.component, r.value)
        this.#closedIds.delete(key)
      }
      return r
    })
    let late = false
    let timer: NodeJS.Timeout | undefined
    const seconds = this.#config.componentTimeoutSeconds
    if (seconds === 0) return opening
    const limit = new Promise<MetaResult<Opened>>((resolve) => {
      timer = setTimeout(() => {
        late = true
        this.#late++
        resolve(err(metaError('sys', c.name, strerror('ETIMEDOUT'))))
      }, seconds * 1000)
    })
    return Promise.race([opening, limit])
  }

  async #openNow(c: Slice): Promise<MetaResult<Opened>> {
    try {
      const closed = await this.#soon(() => {
        this.#closeRetired()
        return !this.isHeld(c)
      })
      if (!closed) return err(metaError('sys', c.name, strerror('EBUSY')))
      await this.#closing.get(c.identity)
      const storage = await examine(c.path)
      if (storage === undefined) return err(metaError('notADisk', c.name))
      if (!sameAfterRestart(c.identity, storage.identity)) return err(metaError('replaced', c.name))
      if (storage.size < c.offset + c.size)
        return err(metaError('shrunk', c.name, String(storage.size), String(c.offset + c.size)))
      const mode = this.#config.ioOf.get(c.path) ?? this.#config.io
      const direct = mode === 'direct' || (mode === 'auto' && storage.blockDevice)
      const flags = constants.O_RDWR | (direct ? constants.O_DIRECT : 0) | (storage.blockDevice ? constants.O_EXCL : 0)
      const fd = await openFile(c.path, flags)
      if (!lockFile(fd)) {
        void closeLater(fd)
        return err(metaError('sys', c.name, strerror('EBUSY')))
      }
      const { name, path, identity } = c
      const component: OpenComponent = {
        component: this.#next++ as ComponentId,
        fd,
        direct,
        align: direct ? Math.max(storage.logicalBlock, 512) : 512,
        blockDevice: storage.blockDevice,
        size: storage.size,
        timeoutMillis: this.#config.componentTimeoutSeconds * 1000,
      }
      return ok({ open: component, name, path, identity, users: 0, readErrors: 0, held: false })
    } catch (e) {
      if (errnoOf(e) === undefined) throw e
      return err(sysError(e, c.name))
    }
  }
}
