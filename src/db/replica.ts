/**
 * One listed replica as metad sees it: where it is, what its storage was last known to hold, which flags metadb
 * shows. `head` is the head record last seen or written there; a replica is active exactly while its helper runs and
 * its head is that of the newest durable image, so active replicas take small commits and others are repaired first.
 */
import { type Result, err, ok } from '../base/result.js'
import {
  type Decoded,
  type Image,
  type Listed,
  type RawEntry,
  decodeImage,
  encodeDelta,
  encodeFull,
  HEAD_KEY,
  physicalBytes,
} from './format.js'
import { Helper, type HelperFault } from './helper-process.js'
import type { HelperAnswer, HelperRequest } from './wire.js'
import { type Version, compareVersions } from './quorum.js'

/** Positions of metadb's flag string (commands.md 5.3). */
const FLAG_ORDER = 'RSFDMaWm  pc luo tBr'
type Letter = 'R' | 'S' | 'F' | 'D' | 'M' | 'W' | 'm' | 'p' | 'c' | 'l' | 'u' | 'o' | 'a'
const BAD: readonly Letter[] = ['R', 'S', 'F', 'D', 'M', 'W']

export const flagString = (letters: ReadonlySet<string>): string =>
  FLAG_ORDER.split('')
    .map((c) => (c !== ' ' && letters.has(c) ? c : ' '))
    .join('')

const headOf = (entries: readonly RawEntry[]): Buffer =>
  Buffer.from(entries.find(([key]) => key === HEAD_KEY)?.[1] ?? [])

export interface Limits {
  readonly requestMs: number
  readonly openMs: number
  readonly createMs: number
}

export interface Loaded extends Decoded {
  /** Opened, but the file system or its mode lets nobody write. */
  readonly readOnly: boolean
  /** Other storage than the one the replica was made on. */
  readonly copied: boolean
}

export class Replica {
  listed: Listed
  readonly flags = new Set<Letter>()
  problem: string | null = null
  /** Of the storage that was opened or made in this run. */
  identity: string | null = null
  head: Buffer | null = null
  version: Version | null = null
  active = false
  /** Somebody works on it; a second repair stays away. */
  busy = false
  /** What that somebody does: whether it ends with the replica open and of this database. */
  work: Promise<boolean> = Promise.resolve(false)
  attempts = 0
  nextTry = 0
  lastFault: HelperFault | null = null
  readonly #limits: Limits
  readonly #onLost: (replica: Replica, fault: HelperFault) => void
  #helper: Helper | null = null
  #stopped = false

  constructor(listed: Listed, limits: Limits, onLost: (replica: Replica, fault: HelperFault) => void) {
    this.listed = listed
    this.#limits = limits
    this.#onLost = onLost
  }

  get id(): string {
    return this.listed.id
  }
  get pid(): number | undefined {
    return this.#helper?.pid
  }
  /** Asked again after a wait, when the answer may be another. */
  isActive(): boolean {
    return this.active
  }

  /** Through the helper, which is started if there is none; never again once stopped. */
  #ask(request: HelperRequest, limitMs: number): Promise<Result<HelperAnswer, HelperFault>> {
    if (this.#stopped)
      return Promise.resolve(
        err({ letter: 'W', problem: 'replica is closed', damaged: false, identity: null, code: 'closed' }),
      )
    return this.#start().request(request, limitMs)
  }

  #start(): Helper {
    if (this.#helper?.alive === true) return this.#helper
    const helper: Helper = new Helper((fault) => {
      if (this.#helper !== helper) return
      this.#helper = null
      this.fail(fault)
    })
    this.#helper = helper
    return helper
  }

  /** The replica falls out: flagged and repaired later. Tells the owner if it was in use. */
  fail(fault: HelperFault): void {
    const was = this.active
    this.active = false
    this.lastFault = fault
    this.flags.delete('a')
    this.flags.delete('u')
    this.flags.delete('m')
    for (const b of BAD) this.flags.delete(b)
    this.flags.add(fault.letter)
    this.problem = fault.problem
    // A helper that only found the place wanting is sound, and is asked again; any other may hold a broken mapping.
    if (fault.letter !== 'M') {
      const helper = this.#helper
      this.#helper = null
      helper?.kill()
    }
    if (was) this.#onLost(this, fault)
  }

  activate(image: Image): void {
    this.active = true
    this.attempts = 0
    this.lastFault = null
    this.problem = null
    this.version = image.version
    for (const b of BAD) this.flags.delete(b)
    this.flags.add('a')
    this.flags.add('u')
  }

  /** Starts the helper and reads everything. The contents are checked here, not there. */
  async load(): Promise<Result<Loaded, HelperFault>> {
    const { path, kind } = this.listed
    const answer = await this.#ask({ op: 'open', path, block: kind === 'block' }, this.#limits.openMs)
    if (!answer.ok) return this.#failed(answer.error)
    const { identity = null, entries = [], readOnly = false } = answer.value
    const decoded = decodeImage(entries)
    if (!decoded.ok) return this.#failed({ ...decoded.error, damaged: true, identity, code: null })
    if (decoded.value.id !== this.id)
      return this.#failed({
        letter: 'M',
        problem: 'storage holds another replica',
        damaged: false,
        identity,
        code: null,
      })
    this.identity = identity
    this.head = decoded.value.head
    this.version = decoded.value.image.version
    for (const b of BAD) this.flags.delete(b)
    this.flags.add('l')
    return ok({ ...decoded.value, readOnly, copied: false })
  }

  #failed(fault: HelperFault): Result<never, HelperFault> {
    this.fail(fault)
    return err(fault)
  }

  async create(
    image: Image,
    promise: number,
    mode: 'fresh' | 'rebuild',
    identity: string | null,
  ): Promise<Result<void, HelperFault>> {
    const { path, kind, blocks } = this.listed
    const entries = encodeFull(image, this.id, promise)
    const answer = await this.#ask(
      { op: 'create', path, block: kind === 'block', physical: physicalBytes(blocks ?? 0), mode, identity, entries },
      this.#limits.createMs,
    )
    if (!answer.ok) return this.#failed(answer.error)
    this.identity = answer.value.identity ?? null
    this.head = headOf(entries)
    this.version = image.version
    return ok(undefined)
  }

  async #write(
    full: boolean,
    puts: readonly RawEntry[],
    removes: readonly string[],
    image: Image | null,
  ): Promise<Result<void, HelperFault>> {
    const expect = this.head
    if (expect === null || this.#helper === null)
      return err(
        this.lastFault ?? { letter: 'W', problem: 'replica is not open', damaged: false, identity: null, code: null },
      )
    const answer = await this.#helper.request({ op: 'write', expect, full, puts, removes }, this.#limits.requestMs)
    if (!answer.ok) return this.#failed(answer.error)
    if (image !== null) {
      this.head = headOf(puts)
      this.version = image.version
    }
    return ok(undefined)
  }

  /** The changes between the image it holds and this one. */
  writeDelta(image: Image, names: Iterable<string>): Promise<Result<void, HelperFault>> {
    const { puts, removes } = encodeDelta(image, names, this.id)
    return this.#write(false, puts, removes, image)
  }
  writeFull(image: Image, promise: number): Promise<Result<void, HelperFault>> {
    return this.#write(true, encodeFull(image, this.id, promise), [], image)
  }
  writePromise(entry: RawEntry): Promise<Result<void, HelperFault>> {
    return this.#write(false, [entry], [], null)
  }

  /** Whether the place and the newest head are still there. */
  async check(): Promise<void> {
    if (!this.active || this.#helper === null) return
    const answer = await this.#helper.request({ op: 'check' }, this.#limits.requestMs)
    if (!answer.ok && this.isActive()) this.fail(answer.error)
  }

  /** Reads everything back and compares it with what it must hold. Commits may go by meanwhile. */
  async scrub(): Promise<void> {
    const before = this.version
    if (!this.active || this.#helper === null || before === null) return
    const answer = await this.#helper.request({ op: 'read' }, this.#limits.requestMs)
    const after = this.version
    if (!this.isActive() || after === null) return
    if (!answer.ok) return this.fail(answer.error)
    const decoded = decodeImage(answer.value.entries ?? [])
    const damage = (letter: 'F' | 'D', problem: string): void => {
      this.fail({ letter, problem, damaged: true, identity: this.identity, code: null })
    }
    if (!decoded.ok) return damage(decoded.error.letter, decoded.error.problem)
    const { id, image } = decoded.value
    const known = compareVersions(image.version, before) >= 0 && compareVersions(image.version, after) <= 0
    if (id !== this.id || !known) damage('D', 'contents are not those last written')
  }

  /** Deletes the storage, if it is still the one that was opened or made. */
  async wipe(): Promise<Result<void, HelperFault>> {
    const { path, kind } = this.listed
    // A device's number says little about which disk it is: only one that was opened in this run is known to be ours.
    const identity = this.identity ?? (kind === 'file' ? this.listed.identity : null)
    this.active = false
    if (identity === null) return ok(undefined)
    const answer = await this.#ask({ op: 'wipe', path, block: kind === 'block', identity }, this.#limits.requestMs)
    await this.stop()
    return answer.ok ? ok(undefined) : err(answer.error)
  }

  /** For good: a repair under way must not start another helper. */
  async stop(): Promise<void> {
    this.#stopped = true
    const helper = this.#helper
    this.#helper = null
    this.active = false
    await helper?.stop(this.#limits.requestMs)
  }
}
