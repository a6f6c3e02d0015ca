/**
 * The counting rules of the state database, as pure functions.
 *
 * A commit counts when at least half of the listed replicas hold it; a start needs more than half.
 * The two always overlap in at least one replica, so a start that is allowed sees every commit that
 * was ever acknowledged. While a list is being replaced both rules hold in the old and the new list.
 * Versions are ordered by term, then epoch; a term belongs to one start, because a start writes its
 * term to more than half of the replicas before it writes anything else (docs/commit-order.md).
 */
export interface Version {
  readonly term: number
  readonly epoch: number
}

export const compareVersions = (a: Version, b: Version): number => a.term - b.term || a.epoch - b.epoch
export const sameVersion = (a: Version, b: Version): boolean => compareVersions(a, b) === 0

/** Members are replica ids. `previous` is the list being replaced, null when none is. */
export interface Lists {
  readonly list: readonly string[]
  readonly previous: readonly string[] | null
}

const both = (lists: Lists): readonly (readonly string[])[] =>
  lists.previous === null ? [lists.list] : [lists.list, lists.previous]
const count = (members: readonly string[], ids: ReadonlySet<string>): number => members.filter((m) => ids.has(m)).length

/** The least number of replicas that is at least half of n. */
export const half = (n: number): number => Math.ceil(n / 2)
/** The least number of replicas that is more than half of n. */
export const majority = (n: number): number => Math.floor(n / 2) + 1

/** Whether a commit held by `holders` is acknowledged. */
export const commitHolds = (lists: Lists, holders: ReadonlySet<string>): boolean =>
  both(lists).every((members) => count(members, holders) >= half(members.length))

/** Whether a start that can use `seen` may change anything. */
export const startHolds = (lists: Lists, seen: ReadonlySet<string>): boolean =>
  both(lists).every((members) => members.length > 0 && count(members, seen) >= majority(members.length))

/** What one readable replica says. */
export interface Reading extends Lists {
  readonly id: string
  readonly version: Version
  /**
   * The storage is another than the replica was made on (restored, copied): its contents may be used, but
   * that it lacks a commit proves nothing.
   */
  readonly copied: boolean
}

export interface Choice {
  readonly version: Version
  /** The version began a change of the list that certainly did not happen: its records count, with the list before. */
  readonly reverted: boolean
  /** `good`: may change. `stale`: may only be read. */
  readonly health: 'good' | 'stale'
  /** Newer versions that were certainly never acknowledged; what was told about them is that they failed. */
  readonly discarded: readonly Version[]
}

/** Whether enough listed replicas hold `version`, or may hold it because nobody could ask them. */
const mayBeAcknowledged = (lists: Lists, version: Version, readings: readonly Reading[]): boolean =>
  both(lists).every((members) => {
    const lack = new Set(readings.filter((r) => !r.copied && compareVersions(r.version, version) < 0).map((r) => r.id))
    return members.length - count(members, lack) >= half(members.length)
  })

/**
 * The newest version that can have been acknowledged, and whether a start from it may change anything.
 * @returns undefined when nothing was read.
 */
export const choose = (readings: readonly Reading[]): Choice | undefined => {
  const newestFirst = [...readings].sort((a, b) => compareVersions(b.version, a.version))
  const discarded: Version[] = []
  for (const r of newestFirst) {
    if (discarded.some((d) => sameVersion(d, r.version))) continue
    // A version that begins a change of the list changes no record, and may have replaced every copy of the one
    // before; so it is never dropped without asking whether it stands for that one.
    const before: Lists | null = r.previous === null ? null : { list: r.previous, previous: null }
    const lists = [r, before].find((l) => l !== null && mayBeAcknowledged(l, r.version, readings))
    if (lists === undefined || lists === null) {
      discarded.push(r.version)
      continue
    }
    const members = new Set([...lists.list, ...(lists.previous ?? [])])
    const all = new Set(readings.map((x) => x.id))
    const trusted = new Set(readings.filter((x) => !x.copied).map((x) => x.id))
    // A set that was copied or restored as a whole is complete: nobody is left who could know more.
    const complete = [...members].every((m) => all.has(m))
    const good = startHolds(lists, complete ? all : trusted)
    return { version: r.version, reverted: lists === before, health: good ? 'good' : 'stale', discarded }
  }
  return undefined
}

/**
 * SVM's rule for `metadb -d` without force (driver.md 7.10): refused when a good replica is among the deleted
 * and bad ones would outnumber good ones among the rest.
 */
export const deleteMakesStale = (all: readonly { readonly good: boolean; readonly deleted: boolean }[]): boolean => {
  const rest = all.filter((r) => !r.deleted)
  const good = rest.filter((r) => r.good).length
  return all.some((r) => r.deleted && r.good) && rest.length - good > good
}
