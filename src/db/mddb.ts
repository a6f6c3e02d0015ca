/**
 * The state database. State lives in memory and changes only after a commit is durable on enough replicas; everything
 * that writes goes through one queue. What counts and why is in docs/commit-order.md; the arithmetic is quorum.ts.
 *
 * Health: `none` until the first replica is made; `good`; `stale` when too few replicas can be used, and then until
 * the next start, as with SVM: records are readable, only replicas may be added and deleted.
 */
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import type { ReplicaReport } from '../msg/report.js'
import { err, ok } from '../base/result.js'
import {
  type Image,
  type Listed,
  MAX_NAME_BYTES,
  emptyImage,
  imageBytes,
  listsOf,
  nextImage,
  sha256,
  usableBytes,
} from './format.js'
import type { HelperFault } from './helper-process.js'
import { readLocations, writeLocations } from './locations.js'
import { Members } from './members.js'
import { type AddOptions, isAt, planReplicas, sameStorageTwice } from './places.js'
import { type Version, commitHolds, deleteMakesStale, sameVersion, startHolds } from './quorum.js'
import { type Replica, flagString } from './replica.js'
import { type Found, findDatabase } from './start.js'
import { DEFAULT_TIMING, type Timing } from './timing.js'
import type {
  DatabaseEvents,
  DatabaseHealth,
  Durable,
  Json,
  RecordChanges,
  ReplicaPlace,
  StateDatabase,
} from './types.js'

export interface MddbOptions {
  /** Where `mddb.cf` is. */
  readonly configDir: string
  readonly events: DatabaseEvents
  readonly timing?: Partial<Timing>
}

interface Waiting {
  readonly changes: RecordChanges
  readonly resolve: (r: MetaResult<Durable>) => void
}

const valuesOf = (image: Image | null): ReadonlyMap<string, Json> =>
  new Map([...(image?.records ?? [])].map(([name, r]) => [name, r.value]))

const changesAreSane = (changes: RecordChanges): boolean =>
  [...changes.keys()].every(
    (name) => name.length > 0 && Buffer.byteLength(name) <= MAX_NAME_BYTES && !name.includes('\0'),
  )

const identified = (list: readonly Listed[], members: Members): readonly Listed[] =>
  list.map((l) => ({ ...l, identity: members.get(l.id)?.identity ?? l.identity }))

export class Mddb implements StateDatabase {
  readonly #events: DatabaseEvents
  readonly #configDir: string
  readonly #timing: Timing
  readonly #members: Members
  #image: Image | null = null
  #values: ReadonlyMap<string, Json> = new Map()
  #health: DatabaseHealth = 'none'
  /** What `metadb` lists while no replica could be read. */
  #located: readonly Listed[] = []
  #term = 0
  /** The highest version that may be on some replica. */
  #highest: Version = { term: 0, epoch: 0 }
  #waiting: Waiting[] = []
  #last: Promise<unknown> = Promise.resolve()
  #ticker: NodeJS.Timeout | undefined
  #ticks = 0
  #closing = false
  #closed = false

  private constructor(options: MddbOptions) {
    this.#events = options.events
    this.#configDir = options.configDir
    this.#timing = { ...DEFAULT_TIMING, ...options.timing }
    this.#members = new Members(this.#timing, (replica, fault) => {
      this.#lost(replica, fault)
    })
  }

  static async open(options: MddbOptions): Promise<Mddb> {
    const db = new Mddb(options)
    await db.#start()
    db.#ticker = setInterval(() => {
      db.#tick()
    }, db.#timing.tickMs)
    db.#ticker.unref()
    return db
  }

  get health(): DatabaseHealth {
    return this.#health
  }
  get epoch(): number {
    return this.#image?.version.epoch ?? 0
  }
  get records(): ReadonlyMap<string, Json> {
    return this.#values
  }
  /** Processes that hold the replicas open, for status and tests. */
  get helperPids(): readonly number[] {
    return this.#members.all.map((r) => r.pid).filter((p) => p !== undefined)
  }
  get #list(): readonly Listed[] {
    return this.#image?.list ?? this.#located
  }
  places(): readonly string[] {
    return [...new Set(this.#list.map((l) => l.path))]
  }

  #setHealth(health: DatabaseHealth): void {
    if (this.#health === health) return
    this.#health = health
    this.#events.healthChanged(health)
  }
  #adopt(image: Image | null): void {
    if (image === null || image.records !== this.#image?.records) this.#values = valuesOf(image)
    this.#image = image
    for (const l of image?.list ?? []) this.#members.ensure(l)
  }
  #enqueue<T>(work: () => Promise<T>): Promise<T> {
    const run = this.#last.then(work)
    this.#last = run.catch(() => undefined)
    return run
  }

  // ---- start

  async #start(): Promise<void> {
    const locations = await readLocations(this.#configDir)
    for (const n of locations.notices) this.#events.notice('warning', n)
    if (!locations.any) return
    this.#located = locations.list
    const found = await findDatabase(this.#members, locations.list)
    if (found !== undefined) {
      this.#highest = found.highest
      this.#adopt(found.image)
      this.#flagFound(found, locations.list)
    }
    if (found?.health === 'good' && (await this.#takeOver(found))) {
      this.#setHealth('good')
      await this.#tidy(found)
      return
    }
    this.#setHealth('stale')
    this.#events.notice('warning', 'md: state database is stale')
  }

  #flagFound(found: Found, located: readonly Listed[]): void {
    const inFile = new Set(located.map((l) => l.id))
    const listed = new Set(found.image.list.map((l) => l.id))
    for (const r of this.#members.all) {
      if (inFile.has(r.id)) r.flags.add('c')
      if (listed.has(r.id)) r.flags.add('p')
      const loaded = found.loaded.get(r.id)
      if (loaded === undefined || !listed.has(r.id)) continue
      r.flags.add('o')
      // As SVM shows a stale set: what is current is marked so, though nothing is committed to it.
      if (sameVersion(loaded.image.version, found.image.version)) r.flags.add('a').add('u')
      if (loaded.copied)
        this.#events.notice('warning', `md: state database replica ${r.listed.path}: storage is a copy`)
    }
    found.source.flags.add('m')
  }

  /** Term first, on more than half; then the chosen contents as this term's first commit. */
  async #takeOver(found: Found): Promise<boolean> {
    const { image } = found
    const term = found.highest.term + 1
    this.#term = term
    const readable = this.#members.of(image).filter((r) => found.loaded.has(r.id))
    const writable = readable.filter((r) => {
      if (found.loaded.get(r.id)?.readOnly !== true) return true
      r.fail({ letter: 'W', problem: 'read-only', damaged: false, identity: null, code: 'EROFS' })
      return false
    })
    if (!startHolds(listsOf(image), new Set(writable.map((r) => r.id)))) return false
    const promised = await this.#members.promise(writable, term)
    if (!startHolds(listsOf(image), promised)) return false
    const version = { term, epoch: found.highest.epoch + 1 }
    const next = nextImage(image, { version, list: identified(image.list, this.#members) })
    this.#highest = version
    await Promise.all(
      writable
        .filter((r) => promised.has(r.id))
        .map(async (r) => {
          const same = sameVersion(found.loaded.get(r.id)?.image.version ?? { term: 0, epoch: 0 }, image.version)
          if (same && (await r.writeDelta(next, [])).ok) r.activate(next)
          else if (!same) await this.#members.rewrite(r, next, term)
        }),
    )
    if (!this.#members.holds(next)) return false
    this.#adopt(next)
    if (next.previous === null) return true
    return this.#store(this.#next({ previous: null }), [], 0)
  }

  /** Replicas that were deleted but not wiped, and a mddb.cf that is behind. */
  async #tidy(found: Found): Promise<void> {
    const image = this.#image
    if (image === null) return
    const listed = new Set(image.list.map((l) => l.id))
    for (const r of this.#members.all) {
      if (listed.has(r.id)) continue
      if (found.loaded.has(r.id)) await r.wipe()
      await this.#members.drop(r.id)
    }
    for (const r of this.#members.all) {
      if (!r.active)
        this.#events.notice('warning', `md: state database replica ${r.listed.path}: ${r.problem ?? 'not usable'}`)
    }
    await this.#writeLocations()
  }

  async #writeLocations(): Promise<MetaError | null> {
    const e = await writeLocations(this.#configDir, this.#list)
    if (e === null) return null
    this.#events.notice('warning', `error in mddb.cf file: ${e.message}`)
    return metaError('sys', 'mddb.cf', e.message)
  }

  // ---- commit

  /** Writes mddb.cf again from the list (metadb -p). */
  writeLocations(): Promise<MetaResult<void>> {
    return this.#enqueue(async () => {
      const error = await this.#writeLocations()
      return error === null ? ok(undefined) : err(error)
    })
  }

  commit(changes: RecordChanges): Promise<MetaResult<Durable>> {
    if (!changesAreSane(changes)) throw new Error('commit: impossible record name')
    return new Promise((resolve) => {
      this.#waiting.push({ changes, resolve })
      if (this.#waiting.length === 1) void this.#enqueue(() => this.#flush())
    })
  }

  #refusal(): MetaError | null {
    if (this.#closed) return metaError('commitFailed')
    if (this.#health === 'none') return metaError('noDatabases')
    return this.#health === 'stale' ? metaError('stale') : null
  }

  #next(what: { changes?: RecordChanges; list?: readonly Listed[]; previous?: readonly Listed[] | null }): Image {
    const from = this.#image
    if (from === null) throw new Error('next: no database')
    return nextImage(from, { version: { term: this.#term, epoch: this.#highest.epoch + 1 }, ...what })
  }

  /** Everything that waited becomes one commit. What does not fit is refused alone. */
  async #flush(): Promise<void> {
    const batch = this.#waiting
    this.#waiting = []
    const refusal = this.#refusal()
    if (refusal !== null || this.#image === null) {
      for (const w of batch) w.resolve(err(refusal ?? metaError('noDatabases')))
      return
    }
    const room = this.#room()
    const merged = new Map<string, Json | null>()
    const taken: Waiting[] = []
    let next = this.#next({})
    for (const w of batch) {
      const candidate = new Map([...merged, ...w.changes])
      const image = this.#next({ changes: candidate })
      const grows = imageBytes(image) > imageBytes(next)
      if (grows && imageBytes(image) > room) w.resolve(err(metaError('databaseFull')))
      else {
        next = image
        taken.push(w)
        for (const [name, value] of w.changes) merged.set(name, value)
      }
    }
    if (taken.length === 0) return
    const held = await this.#store(next, [...merged.keys()])
    const durable = { epoch: next.version.epoch } as Durable
    for (const w of taken) w.resolve(held ? ok(durable) : err(metaError('commitFailed')))
  }

  #room(): number {
    return Math.min(...this.#list.map((l) => usableBytes(l.blocks ?? 0)))
  }

  /**
   * Writes an image until enough replicas hold it, and only then makes it the state. When it never does, nobody may
   * build on the state any more: the caller is told that it failed, and the next start decides once for all.
   */
  async #store(next: Image, names: readonly string[], retries = this.#timing.retries): Promise<boolean> {
    this.#highest = next.version
    for (let attempt = 0; attempt <= retries; attempt++) {
      if (attempt === 0) await this.#members.apply(next, names)
      else await this.#members.bring(next, this.#term)
      if (this.#members.holds(next)) {
        this.#adopt(next)
        return true
      }
      if (attempt === 0) this.#events.notice('warning', 'md: state database commit failed')
      if (this.#closing) break
      if (attempt < retries) await this.#timing.sleep(this.#timing.retryMs)
    }
    this.#setHealth('stale')
    if (!this.#closing) this.#events.notice('panic', 'md: state database problem')
    return false
  }

  // ---- replicas that go and come

  #lost(replica: Replica, fault: HelperFault): void {
    if (this.#closed) return
    this.#events.notice('warning', `md: state database replica ${replica.listed.path}: ${fault.problem}`)
    const image = this.#image
    if (this.#health !== 'good' || image === null || commitHolds(listsOf(image), this.#members.activeIds())) return
    // As SVM writes its locator blocks after a loss: too few must be found out now, not at the next change.
    void this.#enqueue(async () => {
      const now = this.#image
      if (this.#health !== 'good' || now === null || commitHolds(listsOf(now), this.#members.activeIds())) return
      await this.#store(this.#next({}), [])
    })
  }

  #tick(): void {
    if (this.#closed || this.#health !== 'good') return
    this.#ticks++
    const due = (ms: number): boolean => this.#ticks % Math.max(1, Math.round(ms / this.#timing.tickMs)) === 0
    for (const r of this.#members.all) {
      if (!r.active) void this.#repair(r)
      else if (due(this.#timing.scrubMs)) void r.scrub()
      else if (due(this.#timing.checkMs)) void r.check()
    }
  }

  /** Opening or rebuilding takes its time outside the queue; only the last transaction stands in it. */
  async #repair(replica: Replica): Promise<void> {
    const image = this.#image
    if (image === null || replica.busy || replica.active || performance.now() < replica.nextTry) return
    const wait = Math.min(this.#timing.repairMs * 2 ** replica.attempts++, this.#timing.repairMaxMs)
    const open = await this.#members.begin(replica, image, this.#term)
    replica.nextTry = performance.now() + wait
    if (!open) return
    await this.#enqueue(async () => {
      const now = this.#image
      if (this.#closed || this.#health !== 'good' || now === null || replica.active) return
      if (!now.list.some((l) => l.id === replica.id)) return
      if (await this.#members.rewrite(replica, now, this.#term))
        this.#events.notice('notice', `md: state database replica ${replica.listed.path} is up to date again`)
    })
  }

  // ---- metadb

  add(places: readonly ReplicaPlace[], options: AddOptions & { readonly force: boolean }): Promise<MetaResult<void>> {
    return this.#enqueue(() => this.#add(places, options))
  }

  async #add(
    places: readonly ReplicaPlace[],
    options: AddOptions & { readonly force: boolean },
  ): Promise<MetaResult<void>> {
    if (this.#closed) return err(metaError('commitFailed'))
    const first = this.#health === 'none'
    if (first && !options.force) return err(metaError('noDatabases'))
    if (!first && this.#image === null) return err(metaError('stale'))
    const plan = await planReplicas(places, options, this.#list)
    if (!plan.ok) return plan
    const made = plan.value.map((l) => this.#members.ensure(l))
    // Nothing to repair yet.
    for (const r of made) r.busy = true
    const next = this.#joint([...this.#list, ...plan.value], plan.value)
    if (first) this.#term = 1
    const results = await Promise.all(
      made.map(async (r) => ({ r, result: await r.create(next, this.#term, 'fresh', null) })),
    )
    const failed = results.find((x) => !x.result.ok)
    if (failed !== undefined && !failed.result.ok) {
      await this.#unmake(made)
      return err(createError(failed.r.listed.path, failed.result.error))
    }
    // Already refused by the plan, but two names may have led to one empty file.
    const twice = await sameStorageTwice(made.map((r) => r.listed.path))
    if (twice !== undefined) {
      await this.#unmake(made)
      return err(metaError('replicaExists', twice))
    }
    for (const r of made) {
      r.activate(next)
      r.busy = false
    }
    if (first) return this.#addedFirst(next, made)
    if (!(await this.#replaceList(next))) {
      // The next start may find that the list did change; then these are needed, so they are not wiped.
      for (const r of made) await this.#members.drop(r.id)
      return err(metaError('commitFailed'))
    }
    await this.#writeLocations()
    return ok(undefined)
  }

  /** The image that carries a new list: together with the old one, except where there is none to ask. */
  #joint(list: readonly Listed[], added: readonly Listed[]): Image {
    if (this.#health === 'none') return emptyImage(sha256(...added.map((l) => l.id)).toString('hex', 0, 16), list)
    if (this.#health === 'good') return this.#next({ list, previous: this.#list })
    // Stale: the administrator decides who counts; a new term puts it above everything seen so far.
    this.#term = this.#highest.term + 1
    this.#highest = { term: this.#term, epoch: this.#highest.epoch }
    return this.#next({ list, previous: null })
  }

  async #addedFirst(next: Image, made: readonly Replica[]): Promise<MetaResult<void>> {
    this.#highest = next.version
    this.#located = next.list
    const e = await this.#writeLocations()
    if (e !== null) {
      this.#located = []
      await this.#unmake(made)
      return err(e)
    }
    this.#adopt(next)
    this.#setHealth('good')
    const held = await this.#store(this.#next({ list: identified(next.list, this.#members) }), [])
    return held ? ok(undefined) : err(metaError('commitFailed'))
  }

  async #unmake(made: readonly Replica[]): Promise<void> {
    for (const r of made) {
      await r.wipe()
      await this.#members.drop(r.id)
    }
  }

  /** The joint image in both lists, then the new list alone. */
  async #replaceList(joint: Image): Promise<boolean> {
    if (this.#health === 'stale') {
      await this.#members.bring(joint, this.#term)
      this.#highest = joint.version
      if (joint.list.length > 0 && this.#members.holders(joint).size === 0) return false
      this.#adopt(joint)
      return true
    }
    if (!(await this.#store(joint, []))) return false
    if (joint.list.length === 0) return true
    return this.#store(this.#next({ list: identified(joint.list, this.#members), previous: null }), [])
  }

  delete(places: readonly ReplicaPlace[], options: { readonly force: boolean }): Promise<MetaResult<void>> {
    return this.#enqueue(() => this.#delete(places, options.force))
  }

  async #delete(places: readonly ReplicaPlace[], force: boolean): Promise<MetaResult<void>> {
    if (this.#closed) return err(metaError('commitFailed'))
    if (this.#health === 'none') return err(metaError('noDatabases'))
    for (const p of places) if (!this.#list.some((l) => isAt(l, p.path))) return err(metaError('noReplica', p.path))
    const gone = this.#list.filter((l) => places.some((p) => isAt(l, p.path)))
    const rest = this.#list.filter((l) => !gone.includes(l))
    if (!force) {
      if (rest.length === 0) return err(metaError('lastReplica'))
      const all = this.#list.map((l) => ({
        good: this.#members.get(l.id)?.flags.has('u') ?? false,
        deleted: gone.includes(l),
      }))
      if (deleteMakesStale(all)) return err(metaError('deleteMakesStale'))
    }
    if (this.#image === null) this.#located = rest
    else if (!(await this.#replaceList(this.#joint(rest, [])))) return err(metaError('commitFailed'))
    await this.#writeLocations()
    for (const l of gone) {
      await this.#members.get(l.id)?.wipe()
      await this.#members.drop(l.id)
    }
    if (rest.length === 0) {
      this.#adopt(null)
      this.#located = []
      await this.#writeLocations()
      this.#setHealth('none')
    }
    return ok(undefined)
  }

  async status(): Promise<readonly ReplicaReport[]> {
    if (this.#health === 'good') await Promise.all(this.#members.all.map((r) => r.check()))
    return this.#list.map((l) => {
      const r = this.#members.get(l.id)
      const known = r !== undefined && !(r.flags.has('M') && r.identity === null)
      return {
        path: l.path,
        flags: flagString(r?.flags ?? new Set()),
        firstBlock: known ? l.firstBlock : null,
        blocks: known ? l.blocks : null,
        problem: r?.problem ?? null,
      }
    })
  }

  async close(): Promise<void> {
    if (this.#ticker !== undefined) clearInterval(this.#ticker)
    // What was accepted is tried once more; a commit that is being retried gives up.
    this.#closing = true
    if (this.#waiting.length > 0) await this.#last
    this.#closed = true
    await this.#last
    await this.#members.stop()
  }
}

const createError = (path: string, fault: HelperFault): MetaError => {
  if (fault.problem.startsWith('data not returned')) return metaError('readBackFailed', path)
  if (fault.code === 'ENOSPC') return metaError('sys', path, 'No space left on device')
  return metaError('sys', path, fault.problem)
}

export const openMddb = (options: MddbOptions): Promise<StateDatabase> => Mddb.open(options)
