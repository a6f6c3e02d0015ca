/**
 * Finds the replicas, reads them and picks the version to go on from. Changes nothing anywhere: whether and how the
 * set may be written is decided afterwards (mddb.ts), from what is returned here.
 */
import type { Image, Listed } from './format.js'
import { listsOf, membersOf } from './format.js'
import { type Members, STARTS_AT_ONCE, mapLimited } from './members.js'
import { type Version, choose } from './quorum.js'
import type { Loaded, Replica } from './replica.js'

export interface Found {
  readonly image: Image
  readonly health: 'good' | 'stale'
  /** The replica whose contents were chosen (metadb's m). */
  readonly source: Replica
  /** Read, and of this set. */
  readonly loaded: ReadonlyMap<string, Loaded>
  /** The highest of everything seen, also of what was not chosen. */
  readonly highest: Version
  readonly discarded: readonly Version[]
}

interface Read {
  readonly replica: Replica
  readonly loaded: Loaded
}

/** Replicas list each other, so a damaged mddb.cf still leads to all of them. */
const readAll = async (members: Members, first: readonly Listed[]): Promise<readonly Read[]> => {
  const reads: Read[] = []
  let next = first
  while (next.length > 0) {
    const round = next.map((l) => members.ensure(l))
    await mapLimited(round, STARTS_AT_ONCE, async (replica) => {
      const loaded = await replica.load()
      if (loaded.ok) reads.push({ replica, loaded: loaded.value })
    })
    const found = reads.flatMap((r) => membersOf(r.loaded.image))
    next = found.filter((l, i) => members.get(l.id) === undefined && found.findIndex((x) => x.id === l.id) === i)
  }
  return reads
}

/** The set most replicas belong to; the rest are not ours to judge or to write. */
const ownSet = (reads: readonly Read[]): string | undefined => {
  const votes = new Map<string, number>()
  for (const r of reads) votes.set(r.loaded.image.set, (votes.get(r.loaded.image.set) ?? 0) + 1)
  return [...votes].sort((a, b) => b[1] - a[1])[0]?.[0]
}

const isCopied = (read: Read): boolean => {
  const own = membersOf(read.loaded.image).find((l) => l.id === read.replica.id)?.identity ?? null
  return read.replica.listed.kind === 'file' && own !== null && own !== read.replica.identity
}

export const findDatabase = async (members: Members, locations: readonly Listed[]): Promise<Found | undefined> => {
  const all = await readAll(members, locations)
  const set = ownSet(all)
  const reads: Read[] = []
  for (const r of all) {
    if (r.loaded.image.set === set) reads.push(r)
    else
      r.replica.fail({
        letter: 'F',
        problem: 'storage holds another database',
        damaged: false,
        identity: null,
        code: null,
      })
  }
  const choice = choose(
    reads.map((r) => ({
      id: r.replica.id,
      version: r.loaded.image.version,
      ...listsOf(r.loaded.image),
      copied: isCopied(r),
    })),
  )
  if (choice === undefined) return undefined
  const { version, reverted, health, discarded } = choice
  const source = reads.find(
    (r) => r.loaded.image.version.term === version.term && r.loaded.image.version.epoch === version.epoch,
  )
  if (source === undefined) return undefined
  const highest = {
    term: Math.max(...reads.flatMap((r) => [r.loaded.promise, r.loaded.image.version.term])),
    epoch: Math.max(...reads.map((r) => r.loaded.image.version.epoch)),
  }
  const loaded = new Map(reads.map((r) => [r.replica.id, { ...r.loaded, copied: isCopied(r) }]))
  const read = source.loaded.image
  const image = reverted ? { ...read, list: read.previous ?? read.list, previous: null } : read
  return { image, health, source: source.replica, loaded, highest, discarded }
}
