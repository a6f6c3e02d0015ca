/**
 * What the parts of the database share: the image in memory, who holds replicas of it, the one queue that everything
 * which writes goes through, and the rule by which an image becomes the state. Only `store` makes a commit count.
 */
import { type MetaError, metaError } from '../msg/errors.js'
import { type Image, type Listed, listsOf, nextImage } from './format.js'
import type { HelperFault } from './helper-process.js'
import { writeLocations } from './locations.js'
import { Members } from './members.js'
import { type Version, commitHolds } from './quorum.js'
import type { Replica } from './replica.js'
import { DEFAULT_TIMING, type Timing } from './timing.js'
import type { DatabaseEvents, DatabaseHealth, Json, RecordChanges } from './types.js'

export interface MddbOptions {
  /** Where `mddb.cf` is. */
  readonly configDir: string
  readonly events: DatabaseEvents
  readonly timing?: Partial<Timing>
}

const valuesOf = (image: Image | null): ReadonlyMap<string, Json> =>
  new Map([...(image?.records ?? [])].map(([name, r]) => [name, r.value]))

/** A list with the storage each replica is on now. */
export const identified = (list: readonly Listed[], members: Members): readonly Listed[] =>
  list.map((l) => ({ ...l, identity: members.get(l.id)?.identity ?? l.identity }))

export class Core {
  readonly events: DatabaseEvents
  readonly configDir: string
  readonly timing: Timing
  readonly members: Members
  image: Image | null = null
  values: ReadonlyMap<string, Json> = new Map()
  health: DatabaseHealth = 'none'
  /** What `metadb` lists while no replica could be read. */
  located: readonly Listed[] = []
  term = 0
  /** The highest version that may be on some replica. */
  highest: Version = { term: 0, epoch: 0 }
  closing = false
  closed = false
  #last: Promise<unknown> = Promise.resolve()

  constructor(options: MddbOptions) {
    this.events = options.events
    this.configDir = options.configDir
    this.timing = { ...DEFAULT_TIMING, ...options.timing }
    this.members = new Members(this.timing, (replica, fault) => {
      this.#lost(replica, fault)
    })
  }

  get list(): readonly Listed[] {
    return this.image?.list ?? this.located
  }
  setHealth(health: DatabaseHealth): void {
    if (this.health === health) return
    this.health = health
    this.events.healthChanged(health)
  }
  adopt(image: Image | null): void {
    if (image === null || image.records !== this.image?.records) this.values = valuesOf(image)
    this.image = image
    for (const l of image?.list ?? []) this.members.ensure(l)
  }
  enqueue<T>(work: () => Promise<T>): Promise<T> {
    const run = this.#last.then(work)
    this.#last = run.catch(() => undefined)
    return run
  }
  /** When everything that is queued now is done. */
  async idle(): Promise<void> {
    await this.#last
  }

  next(what: { changes?: RecordChanges; list?: readonly Listed[]; previous?: readonly Listed[] | null }): Image {
    const from = this.image
    if (from === null) throw new Error('next: no database')
    return nextImage(from, { version: { term: this.term, epoch: this.highest.epoch + 1 }, ...what })
  }

  /**
   * Writes an image until enough replicas hold it, and only then makes it the state. When it never does, nobody may
   * build on the state any more: the caller is told that it failed, and the next start decides once for all.
   */
  async store(next: Image, names: readonly string[], retries = this.timing.retries): Promise<boolean> {
    this.highest = next.version
    for (let attempt = 0; attempt <= retries; attempt++) {
      if (attempt === 0) await this.members.apply(next, names)
      else await this.members.bring(next, this.term)
      if (this.members.holds(next)) {
        this.adopt(next)
        return true
      }
      if (attempt === 0) this.events.notice('warning', 'md: state database commit failed')
      if (this.closing) break
      if (attempt < retries) await this.timing.sleep(this.timing.retryMs)
    }
    this.setHealth('stale')
    if (!this.closing) this.events.notice('panic', 'md: state database problem')
    return false
  }

  async writeLocations(): Promise<MetaError | null> {
    const e = await writeLocations(this.configDir, this.list)
    if (e === null) return null
    this.events.notice('warning', `error in mddb.cf file: ${e.message}`)
    return metaError('sys', 'mddb.cf', e.message)
  }

  #lost(replica: Replica, fault: HelperFault): void {
    if (this.closed) return
    this.events.notice('warning', `md: state database replica ${replica.listed.path}: ${fault.problem}`)
    const image = this.image
    if (this.health !== 'good' || image === null || commitHolds(listsOf(image), this.members.activeIds())) return
    // As SVM writes its locator blocks after a loss: too few must be found out now, not at the next change.
    void this.enqueue(async () => {
      const now = this.image
      if (this.health !== 'good' || now === null || commitHolds(listsOf(now), this.members.activeIds())) return
      await this.store(this.next({}), [])
    })
  }
}
