/**
 * The state database. State lives in memory and changes only after a commit is durable on enough replicas; everything
 * that writes goes through one queue. What counts and why is in docs/commit-order.md; the arithmetic is quorum.ts.
 *
 * Health: `none` until the first replica is made; `good`; `stale` when too few replicas can be used, and then until
 * the next start, as with SVM: records are readable, only replicas may be added and deleted.
 */
import { err, ok } from '../base/result.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import type { ReplicaReport } from '../msg/report.js'
import { addReplicas, deleteReplicas } from './admin.js'
import { Core, type MddbOptions } from './core.js'
import { MAX_NAME_BYTES, imageBytes, usableBytes } from './format.js'
import type { AddOptions } from './places.js'
import { type Replica, flagString } from './replica.js'
import { startDatabase } from './takeover.js'
import type { DatabaseHealth, Durable, Json, RecordChanges, ReplicaPlace, StateDatabase } from './types.js'

interface Waiting {
  readonly changes: RecordChanges
  readonly resolve: (r: MetaResult<Durable>) => void
}

const changesAreSane = (changes: RecordChanges): boolean =>
  [...changes.keys()].every(
    (name) => name.length > 0 && Buffer.byteLength(name) <= MAX_NAME_BYTES && !name.includes('\0'),
  )

export class Mddb implements StateDatabase {
  readonly #core: Core
  #waiting: Waiting[] = []
  #ticker: NodeJS.Timeout | undefined
  #ticks = 0

  private constructor(options: MddbOptions) {
    this.#core = new Core(options)
  }

  static async open(options: MddbOptions): Promise<Mddb> {
    const db = new Mddb(options)
    await startDatabase(db.#core)
    db.#ticker = setInterval(() => {
      db.#tick()
    }, db.#core.timing.tickMs)
    db.#ticker.unref()
    return db
  }

  get health(): DatabaseHealth {
    return this.#core.health
  }
  get epoch(): number {
    return this.#core.image?.version.epoch ?? 0
  }
  get records(): ReadonlyMap<string, Json> {
    return this.#core.values
  }
  /** Processes that hold the replicas open, for status and tests. */
  get helperPids(): readonly number[] {
    return this.#core.members.all.map((r) => r.pid).filter((p) => p !== undefined)
  }
  places(): readonly string[] {
    return [...new Set(this.#core.list.map((l) => l.path))]
  }

  /** Writes mddb.cf again from the list (metadb -p). */
  writeLocations(): Promise<MetaResult<void>> {
    return this.#core.enqueue(async () => {
      const error = await this.#core.writeLocations()
      return error === null ? ok(undefined) : err(error)
    })
  }

  commit(changes: RecordChanges): Promise<MetaResult<Durable>> {
    if (!changesAreSane(changes)) throw new Error('commit: impossible record name')
    return new Promise((resolve) => {
      this.#waiting.push({ changes, resolve })
      if (this.#waiting.length === 1) void this.#core.enqueue(() => this.#flush())
    })
  }

  #refusal(): MetaError | null {
    if (this.#core.closed) return metaError('commitFailed')
    if (this.#core.health === 'none') return metaError('noDatabases')
    return this.#core.health === 'stale' ? metaError('stale') : null
  }

  /** Everything that waited becomes one commit. What does not fit is refused alone. */
  async #flush(): Promise<void> {
    const batch = this.#waiting
    this.#waiting = []
    const refusal = this.#refusal()
    if (refusal !== null || this.#core.image === null) {
      for (const w of batch) w.resolve(err(refusal ?? metaError('noDatabases')))
      return
    }
    const room = this.#room()
    const merged = new Map<string, Json | null>()
    const taken: Waiting[] = []
    let next = this.#core.next({})
    for (const w of batch) {
      const candidate = new Map([...merged, ...w.changes])
      const image = this.#core.next({ changes: candidate })
      const grows = imageBytes(image) > imageBytes(next)
      if (grows && imageBytes(image) > room) w.resolve(err(metaError('databaseFull')))
      else {
        next = image
        taken.push(w)
        for (const [name, value] of w.changes) merged.set(name, value)
      }
    }
    if (taken.length === 0) return
    const held = await this.#core.store(next, [...merged.keys()])
    const durable = { epoch: next.version.epoch } as Durable
    for (const w of taken) w.resolve(held ? ok(durable) : err(metaError('commitFailed')))
  }

  #room(): number {
    return Math.min(...this.#core.list.map((l) => usableBytes(l.blocks ?? 0)))
  }

  // ---- replicas that go and come

  #tick(): void {
    if (this.#core.closed || this.#core.health !== 'good') return
    this.#ticks++
    const due = (ms: number): boolean => this.#ticks % Math.max(1, Math.round(ms / this.#core.timing.tickMs)) === 0
    for (const r of this.#core.members.all) {
      if (!r.active) void this.#repair(r)
      else if (due(this.#core.timing.scrubMs)) void r.scrub()
      else if (due(this.#core.timing.checkMs)) void r.check()
    }
  }

  /** Opening or rebuilding takes its time outside the queue; only the last transaction stands in it. */
  async #repair(replica: Replica): Promise<void> {
    const image = this.#core.image
    if (image === null || replica.busy || replica.active || performance.now() < replica.nextTry) return
    const wait = Math.min(this.#core.timing.repairMs * 2 ** replica.attempts++, this.#core.timing.repairMaxMs)
    const open = await this.#core.members.begin(replica, image, this.#core.term)
    replica.nextTry = performance.now() + wait
    if (!open) return
    await this.#core.enqueue(async () => {
      const now = this.#core.image
      if (this.#core.closed || this.#core.health !== 'good' || now === null || replica.active) return
      if (!now.list.some((l) => l.id === replica.id)) return
      if (await this.#core.members.rewrite(replica, now, this.#core.term))
        this.#core.events.notice('notice', `md: state database replica ${replica.listed.path} is up to date again`)
    })
  }

  // ---- metadb

  add(places: readonly ReplicaPlace[], options: AddOptions & { readonly force: boolean }): Promise<MetaResult<void>> {
    return this.#core.enqueue(() => addReplicas(this.#core, places, options))
  }

  delete(places: readonly ReplicaPlace[], options: { readonly force: boolean }): Promise<MetaResult<void>> {
    return this.#core.enqueue(() => deleteReplicas(this.#core, places, options.force))
  }

  async status(): Promise<readonly ReplicaReport[]> {
    if (this.#core.health === 'good') await Promise.all(this.#core.members.all.map((r) => r.check()))
    return this.#core.list.map((l) => {
      const r = this.#core.members.get(l.id)
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
    this.#core.closing = true
    if (this.#waiting.length > 0) await this.#core.idle()
    this.#core.closed = true
    await this.#core.idle()
    await this.#core.members.stop()
  }
}

export const openMddb = (options: MddbOptions): Promise<StateDatabase> => Mddb.open(options)
