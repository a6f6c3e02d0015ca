/**
 * All replicas of one database: writes an image to every usable one at the same time, knows who holds it, and brings
 * the others back. Nothing here decides whether a commit happened; it reports facts for quorum.ts to judge.
 */
import { stat } from 'node:fs/promises'
import { type Image, type Listed, encodePromise, PROMISE_KEY, listsOf, membersOf } from './format.js'
import type { HelperFault } from './helper-process.js'
import { commitHolds, sameVersion } from './quorum.js'
import { Replica } from './replica.js'
import type { Timing } from './timing.js'

/** Helpers started at the same time: each costs most of a CPU for 0.2 s. */
export const STARTS_AT_ONCE = 8

/** Failed attempts to open a replica whose storage answers, after which its contents are taken for bad. */
const HOPELESS = 3

export const mapLimited = async <T>(
  items: readonly T[],
  limit: number,
  work: (item: T) => Promise<void>,
): Promise<void> => {
  const queue = [...items]
  const worker = async (): Promise<void> => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item)
  }
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker))
}

const storageIdentity = async (path: string): Promise<string | null> => {
  try {
    const s = await stat(path, { bigint: true })
    return s.isBlockDevice() ? `block:${s.rdev}` : `file:${s.ino}:${s.birthtimeNs}`
  } catch {
    return null
  }
}

const silent: HelperFault = {
  letter: 'W',
  problem: 'replica does not answer',
  damaged: false,
  identity: null,
  code: 'timeout',
}

export class Members {
  readonly #replicas = new Map<string, Replica>()
  readonly #timing: Timing
  readonly #onLost: (replica: Replica, fault: HelperFault) => void

  constructor(timing: Timing, onLost: (replica: Replica, fault: HelperFault) => void) {
    this.#timing = timing
    this.#onLost = onLost
  }

  get all(): readonly Replica[] {
    return [...this.#replicas.values()]
  }
  get(id: string): Replica | undefined {
    return this.#replicas.get(id)
  }
  /** The replica of this entry, made if it is new; an existing one keeps its state and takes the entry's words. */
  ensure(listed: Listed): Replica {
    const known = this.#replicas.get(listed.id)
    if (known !== undefined) {
      known.listed = listed
      return known
    }
    const made = new Replica(listed, this.#timing, this.#onLost)
    this.#replicas.set(listed.id, made)
    return made
  }
  async drop(id: string): Promise<void> {
    const replica = this.#replicas.get(id)
    this.#replicas.delete(id)
    await replica?.stop()
  }
  async stop(): Promise<void> {
    await Promise.all(this.all.map((r) => r.stop()))
  }

  of(image: Pick<Image, 'list' | 'previous'>): readonly Replica[] {
    return membersOf(image)
      .map((l) => this.#replicas.get(l.id))
      .filter((r) => r !== undefined)
  }
  /** Who durably holds exactly this image, as far as is known now. */
  holders(image: Image): ReadonlySet<string> {
    const holds = (r: Replica): boolean => r.active && r.version !== null && sameVersion(r.version, image.version)
    return new Set(
      this.of(image)
        .filter(holds)
        .map((r) => r.id),
    )
  }
  activeIds(): ReadonlySet<string> {
    return new Set(this.all.filter((r) => r.active).map((r) => r.id))
  }
  holds(image: Image): boolean {
    return commitHolds(listsOf(image), this.holders(image))
  }

  /** Waits for everybody, but once the image holds, a silent replica delays it only `slowMs` longer, then is out. */
  async #settle(image: Image, work: readonly Promise<unknown>[]): Promise<void> {
    await new Promise<void>((resolve) => {
      let left = work.length
      let timer: NodeJS.Timeout | undefined
      if (left === 0) resolve()
      for (const p of work) {
        void p.then(() => {
          left--
          if (left === 0) {
            clearTimeout(timer)
            resolve()
          } else if (timer === undefined && this.holds(image)) timer = setTimeout(resolve, this.#timing.slowMs)
        })
      }
    })
    const holders = this.holders(image)
    for (const r of this.of(image)) if (r.active && !holders.has(r.id)) r.fail(silent)
  }

  /** One small transaction on every active replica, in parallel. */
  async apply(image: Image, names: readonly string[]): Promise<void> {
    const work = this.of(image).filter((r) => r.active)
    await this.#settle(
      image,
      work.map((r) => r.writeDelta(image, names)),
    )
  }

  /** As `apply`, and every other replica that can be opened is written whole. */
  async bring(image: Image, term: number): Promise<void> {
    const holders = this.holders(image)
    await Promise.all(
      this.of(image)
        .filter((r) => !holders.has(r.id))
        .map(async (r) => {
          const open = r.busy ? r.work : this.begin(r, image, term)
          if (await open) await this.rewrite(r, image, term)
        }),
    )
  }

  /** `reopen`, known to whoever else wants to. */
  begin(replica: Replica, image: Image, term: number): Promise<boolean> {
    replica.busy = true
    replica.work = this.reopen(replica, image, term).finally(() => {
      replica.busy = false
    })
    return replica.work
  }

  /** Writes the term on every replica that was read. @returns who has it durably. */
  async promise(replicas: readonly Replica[], term: number): Promise<ReadonlySet<string>> {
    const holders = new Set<string>()
    await Promise.all(
      replicas.map(async (r) => {
        if ((await r.writePromise([PROMISE_KEY, encodePromise(r.id, term)])).ok) holders.add(r.id)
      }),
    )
    return holders
  }

  /**
   * Opens a replica that fell out, or writes it anew when its contents are bad and its storage is still the one it
   * was made on. Storage that vanished or was exchanged is never touched. A replica that promised a higher term than
   * ours belongs to a newer metad.
   */
  async reopen(replica: Replica, image: Image, term: number): Promise<boolean> {
    const loaded = await replica.load()
    if (loaded.ok) {
      const refuse = (letter: 'F' | 'W', problem: string): boolean => {
        replica.fail({ letter, problem, damaged: false, identity: null, code: null })
        return false
      }
      if (loaded.value.image.set !== image.set) return refuse('F', 'storage holds another database')
      if (loaded.value.promise > term) return refuse('F', 'storage was written by another metad')
      if (loaded.value.readOnly) return refuse('W', 'read-only')
      return true
    }
    const fault = loaded.error
    const ours = replica.identity ?? replica.listed.identity
    // Contents that had passed the check can still make LMDB die at once, or hang or exit time after time.
    const always = replica.attempts >= HOPELESS && (fault.code === 'timeout' || fault.code === 'exit')
    const damaged = fault.damaged || fault.code === 'signal' || always
    const there = fault.identity ?? (damaged ? await storageIdentity(replica.listed.path) : null)
    if (!damaged || there === null || there !== ours) return false
    // A device's number says little about which disk it is: only one that was opened in this run is known.
    if (replica.listed.kind === 'block' && replica.identity === null) return false
    return (await replica.create(image, term, 'rebuild', there)).ok
  }

  /** The last step of a repair: all of the image in one transaction. */
  async rewrite(replica: Replica, image: Image, term: number): Promise<boolean> {
    if (!(await replica.writeFull(image, term)).ok) return false
    replica.activate(image)
    return true
  }
}
