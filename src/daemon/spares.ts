/**
 * Hot spares in the daemon: a spare is looked at before it is used, and the search goes on until every
 * component that waits has one, or nothing is left that works (driver.md 3.3, 3.4).
 *
 * What is on disk: looking at a spare changes no byte of it, since it writes back what it has read. Taking
 * one is one commit: the spare In use, the component the spare's slice and Resyncing. Before that commit
 * nothing reads or writes the spare for the mirror; after it a start finds the copy to be made.
 */
import { err, ok } from '../base/result.js'
import { BLOCK_BYTES } from '../base/units.js'
import { poke, type Proposal, refuse, take, type Taken } from '../meta/hotspare.js'
import type { Live } from '../meta/kind.js'
import { spareState, standingSpares } from '../meta/standing.js'
import { poolsOf } from '../meta/tree.js'
import type { Slice, Tree, UnitName } from '../meta/types.js'
import { notice as noticeOf } from '../msg/notices.js'
import { errorText, type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import type { OpenComponent } from '../plan/types.js'
import { errnoOf, sysError } from '../sys/errno.js'
import { HOST_FILES, type HostFiles } from '../sys/hostfiles.js'
import { limited, type Opener } from './limited.js'
import type { Logger, Notice } from './log.js'

export interface SpareOpener extends Opener {
  /** It cannot be opened yet, because of what it was used for before; it can be when that is over. */
  isHeld(slice: Slice): boolean
}

/** First and last whole unit of I/O between two blocks of the slice, as byte offsets of the storage. */
const ends = (slice: Slice, from: number, blocks: number, align: number): readonly number[] => {
  const first = Math.ceil(((slice.offset + from) * BLOCK_BYTES) / align) * align
  const last = Math.floor(((slice.offset + from + blocks) * BLOCK_BYTES) / align) * align - align
  return last < first ? [] : first === last ? [first] : [first, last]
}

const readEnds = async (files: HostFiles, open: OpenComponent, at: readonly number[]): Promise<readonly Buffer[]> => {
  const found: Buffer[] = []
  for (const offset of at) found.push(await files.read(open.fd, open.align, offset))
  return found
}

/** Reads, writes back, syncs, and reads again: what comes back must be what was written. */
const exercise = async (files: HostFiles, open: OpenComponent, at: readonly number[]): Promise<void> => {
  const found = await readEnds(files, open, at)
  for (const [i, buffer] of found.entries()) await files.write(open.fd, buffer, at[i] ?? 0)
  await files.sync(open.fd)
  const again = await readEnds(files, open, at)
  if (!again.every((buffer, i) => found[i]?.equals(buffer) === true))
    throw Object.assign(new Error('other data came back'), { code: 'EIO' })
}

const within = (
  opener: Opener,
  slice: Slice,
  limitSeconds: number,
  job: (open: OpenComponent) => Promise<void>,
): Promise<MetaResult<void>> =>
  limited(opener, slice, limitSeconds, async (open) => {
    try {
      await job(open)
      return ok(undefined)
    } catch (e) {
      if (errnoOf(e) === undefined) throw e
      return err(sysError(e, slice.name))
    }
  })

/** Whether the spare can be read and written where the component's data would be. Changes no data. */
export const verifySpare = (
  p: Pick<Proposal, 'by' | 'blocks'>,
  opener: Opener,
  limitSeconds: number,
  files: HostFiles = HOST_FILES,
): Promise<MetaResult<void>> =>
  within(opener, p.by, limitSeconds, (open) => exercise(files, open, ends(p.by, p.by.start, p.blocks, open.align)))

/** Names of the Available spares that cannot be opened or read (metastat -i). */
export const unreadableSpares = async (
  tree: Tree,
  opener: SpareOpener,
  limitSeconds: number,
  files: HostFiles = HOST_FILES,
): Promise<ReadonlySet<string>> => {
  const standing = standingSpares(tree)
  const spares = new Map(
    poolsOf(tree).flatMap((p) =>
      p.spares.filter((s) => spareState(s, standing) === 'Available').map((s): [string, Slice] => [s.name, s]),
    ),
  )
  const failed = new Set<string>()
  for (const s of spares.values()) {
    const read = await within(opener, s, limitSeconds, async (open) => {
      await readEnds(files, open, ends(s, s.start, s.size - s.start, open.align).slice(0, 1))
    })
    if (!read.ok && !opener.isHeld(s)) failed.add(s.name)
  }
  return failed
}

export interface SpareParts {
  readonly opener: SpareOpener
  readonly files?: HostFiles
  readonly limitSeconds: number
  readonly log: Logger
  readonly notice: Notice
  readonly tree: () => Tree
  readonly live: () => Pick<Live, 'isResyncing'>
  /** Nothing may change now: without a healthy state database no spare is taken. */
  readonly readOnly: () => boolean
  /** Decides on the tree of the moment and commits; an error leaves everything as it was. */
  readonly change: (decide: (tree: Tree) => MetaResult<Taken>) => Promise<MetaResult<unknown>>
  /** A component of this device is the spare now: the engine must see it, and the resync begin. */
  readonly taken: (device: UnitName) => Promise<void>
}

/** One search at a time; being asked during one means another after it. */
export class SpareSearch {
  readonly #parts: SpareParts
  #running: Promise<void> | null = null
  /** Names of spares that were passed over, said once. */
  readonly #said = new Set<string>()
  #again = false

  constructor(parts: SpareParts) {
    this.#parts = parts
  }

  /** Something changed that may let a component have a spare. */
  wanted(): void {
    this.#again = true
    this.#running ??= this.#run().finally(() => {
      this.#running = null
      // Asked between the last look and this line.
      if (this.#again) this.wanted()
    })
  }

  /** Resolves when nothing is being looked for. */
  async idle(): Promise<void> {
    while (this.#running !== null) await this.#running
  }

  async #run(): Promise<void> {
    while (this.#again) {
      this.#again = false
      try {
        await this.#search()
      } catch (e) {
        this.#parts.log.error(e, 'search for hot spares')
        return
      }
    }
  }

  async #search(): Promise<void> {
    const { tree, live, log } = this.#parts
    let before = ''
    // Each search asks them again; the end of what holds them asks for one.
    const held = new Set<string>()
    for (;;) {
      if (this.#parts.readOnly()) return
      const [p] = poke(tree(), live(), held)
      if (p === undefined) return
      // The tree moves on between the two, but hardly twice for the same spare.
      if (JSON.stringify(p) === before) {
        log.warn({ metadevice: p.device, spare: p.by.name }, 'hot spare not taken')
        return
      }
      before = (await this.#settle(p, held)) ? '' : JSON.stringify(p)
    }
  }

  /** @returns whether the same is not proposed again: the tree has changed, or the spare is held and one more in `held`. */
  async #settle(p: Proposal, held: Set<string>): Promise<boolean> {
    const { opener } = this.#parts
    // Kept open until the engine has it: nobody else gets it between the look and its use.
    const opened = await opener.acquire(p.by)
    if (!opened.ok && opener.isHeld(p.by)) {
      held.add(p.by.name)
      this.#passedOver(p)
      return true
    }
    this.#said.delete(p.by.name)
    try {
      const fit = opened.ok ? await verifySpare(p, opener, this.#parts.limitSeconds, this.#parts.files) : opened
      return await this.#decide(p, fit, held)
    } finally {
      if (opened.ok) opener.release(p.by)
    }
  }

  #passedOver({ unit, by }: Proposal): void {
    if (this.#said.has(by.name)) return
    this.#said.add(by.name)
    const { level, text } = noticeOf('hotSpareHeld', unit, by.name)
    this.#parts.notice(level, text)
  }

  async #decide(p: Proposal, fit: MetaResult<unknown>, held: ReadonlySet<string>): Promise<boolean> {
    const { live, log, notice } = this.#parts
    const moved: MetaError = metaError('noSuchSpare', p.by.name)
    let said: Taken['notices'] = []
    const done = await this.#parts.change((tree) => {
      const now = Date.now()
      const stillBest = take(tree, live(), p, now, held)
      if (stillBest === null) return err(moved)
      const next = fit.ok ? stillBest : refuse(tree, p, now)
      said = next.notices
      return ok(next)
    })
    if (!done.ok) {
      if (done.error !== moved) log.error({ spare: p.by.name }, `hot spare: ${errorText(done.error)}`)
      return false
    }
    for (const n of said) notice(n.level, n.text)
    if (!fit.ok) log.warn({ spare: p.by.name }, `hot spare is broken: ${errorText(fit.error)}`)
    else await this.#parts.taken(p.device)
    return true
  }
}
