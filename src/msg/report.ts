/**
 * What metastat and metadb show, as data: the daemon fills it in, the commands print it in SVM's
 * layouts or as JSON. Sizes in 512-byte blocks, times in ms since the epoch (0: never).
 */
export interface ComponentReport {
  readonly device: string
  readonly startBlock: number
  readonly hasReplica: boolean
  /** `Okay`, `Maintenance`, `Last Erred`, `Resyncing`, `Unavailable`, `-` ... (commands.md 4.4). */
  readonly state: string
  readonly changed: number
  readonly relocatable: boolean
  readonly hotSpare: string | null
}
export interface RowReport {
  readonly interlace: number
  readonly components: readonly ComponentReport[]
}
export interface StripeReport {
  readonly kind: 'stripe'
  readonly name: string
  readonly parent: string | null
  readonly size: number
  readonly hotSparePool: string | null
  readonly unavailable: boolean
  readonly rows: readonly RowReport[]
  /** md.tab form, as metastat -p prints it: several lines for several rows. */
  readonly tab: string
}
export interface SubmirrorReport {
  readonly slot: number
  readonly name: string
  /** commands.md 4.4 */
  readonly state: string
  readonly changed: number
  /** The action to take, without the word Invoke; null when none is needed. */
  readonly invoke: string | null
  /** Taken out of service by metaoffline. */
  readonly offline: boolean
}
export interface ResyncReport {
  readonly state: 'running' | 'cancelled'
  readonly doneBlocks: number
  readonly totalBlocks: number
}
export interface MirrorReport {
  readonly kind: 'mirror'
  readonly name: string
  readonly parent: string | null
  readonly size: number
  readonly submirrors: readonly SubmirrorReport[]
  readonly resync: ResyncReport | null
  readonly pass: number
  readonly read: 'roundrobin' | 'geometric' | 'first'
  readonly write: 'parallel' | 'serial'
  readonly tab: string
}
export interface SpareReport {
  readonly device: string
  /** `Available`, `In use`, `Broken` (commands.md 4.7). */
  readonly state: string
  readonly changed: number
  readonly size: number
  readonly relocatable: boolean
}
/** A hot spare pool: no device, hence no size and no parent. */
export interface PoolReport {
  readonly kind: 'pool'
  readonly name: string
  readonly parent: null
  readonly size: 0
  /** In search order. */
  readonly spares: readonly SpareReport[]
  readonly tab: string
}
/** What makes a RAID5 device whole. */
export interface Raid5Work {
  readonly work: 'resync' | 'initialisation' | 'regeneration'
  /** It waits to be begun when not. */
  readonly running: boolean
  readonly doneBlocks: number
  readonly totalBlocks: number
}
export interface ColumnsReport {
  /** Of their data; not rounded to cylinders. */
  readonly size: number
  readonly columns: readonly ComponentReport[]
}
export interface Raid5Report {
  readonly kind: 'raid5'
  readonly name: string
  readonly parent: string | null
  readonly size: number
  /** commands.md 4.5 */
  readonly state: string
  readonly changed: number
  /** The action to take, without the word Invoke; null when none is needed. */
  readonly invoke: string | null
  readonly work: Raid5Work | null
  readonly hotSparePool: string | null
  readonly interlace: number
  readonly original: ColumnsReport
  /** Columns that were attached; null when there are none. */
  readonly attached: ColumnsReport | null
  readonly tab: string
}
export type UnitReport = StripeReport | MirrorReport | Raid5Report | PoolReport
export type KindWord = UnitReport['kind']
/** As metainit says it (commands.md 3.1). */
export const KIND_TITLES = {
  stripe: 'Concat/Stripe',
  mirror: 'Mirror',
  raid5: 'RAID',
  pool: 'Hotspare pool',
} as const satisfies Readonly<Record<KindWord, string>>

/** commands.md 4.10 */
export interface RelocationReport {
  readonly device: string
  readonly relocatable: boolean
  readonly id: string | null
}
export interface StatReport {
  readonly stale: boolean
  /** In metastat order: mirrors, RAID5 devices, stripes, hot spare pools, most recent first; children are here too and found by name. */
  readonly units: readonly UnitReport[]
  /** Names asked for (or every top-level unit and every pool), in print order. */
  readonly show: readonly string[]
  readonly relocation: readonly RelocationReport[]
}
export interface ReplicaReport {
  readonly path: string
  /** The 20-character flag string of metadb (commands.md 5.3). */
  readonly flags: string
  /** Null prints as `unknown`. */
  readonly firstBlock: number | null
  readonly blocks: number | null
  readonly problem: string | null
}
