/**
 * The metadevices as values. A change makes a new Tree; nothing here is mutated, and everything is
 * JSON, because a unit is one record of the state database.
 */
import type { Blocks, Branded } from '../base/units.js'
import type { MetaResult } from '../msg/errors.js'

/** A checked metadevice or hot spare pool name: a letter, then letters, digits, `-`, `_`, `.` (commands.md 1.1). */
export type UnitName = Branded<string, 'UnitName'>

export interface Geometry {
  readonly heads: number
  readonly sectors: number
}

/** A piece of one storage object, in blocks. */
export interface Extent {
  readonly first: Blocks
  readonly blocks: Blocks
}

/** A slice, disk or file as it was seen when it was configured. */
export interface Slice {
  /** What metastat -p prints: an absolute path or a cXtYdZsN name. */
  readonly name: string
  /** Where it is opened. */
  readonly path: string
  /** Identity of the storage, see Inventory.identity; compared when metad starts. */
  readonly identity: string
  /** What of the identity's storage the name covered then, see Device.extent: overlap checks need it. */
  readonly extent: Extent
  /** First block of the slice inside `path` (labelled disks), 0 otherwise. */
  readonly offset: Blocks
  /** Blocks of the slice. */
  readonly size: Blocks
  /** First data block, relative to the slice (driver.md 1.2). */
  readonly start: Blocks
}

/**
 * State of a component, used while its stripe is a submirror; `okay` everywhere else. metastat calls
 * them Okay, Maintenance, Last Erred and Resyncing. `okay` and `lastErred` are read sources; all but
 * `erred` are written.
 */
export type ComponentState = 'okay' | 'erred' | 'lastErred' | 'resync'

/**
 * State of a column of a RAID5 device. `init` and `initErred` have no data yet; `okay` and `lastErred` are
 * read; all but `erred`, `initErred` are written (`lastErred` while it is the only one that is not in step).
 */
export type ColumnState = 'okay' | 'init' | 'initErred' | 'erred' | 'lastErred' | 'resync'

/** What a component's slice was before a hot spare of `pool` stood in for it. */
export interface SpareInPlace {
  readonly pool: UnitName
  readonly original: Slice
}

/** A slice that a metadevice reads and writes itself. While a hot spare stands in, the slice is the spare's. */
export interface Member extends Slice {
  readonly state: ComponentState | ColumnState
  /** The change counter of the mirror or RAID5 device when the state last changed; 0: never. */
  readonly erredOrder: number
  readonly spare: SpareInPlace | null
  /**
   * The hot spare that stood in here before metareplace: it has the data, so nobody else gets it before this
   * component is in step.
   */
  readonly relieves?: string
  /** Time of the last state change, ms since the epoch. */
  readonly changed: number
}

/** A member under a row. */
export interface Component extends Member {
  readonly state: ComponentState
}

export interface Row {
  readonly interlace: Blocks
  readonly components: readonly Component[]
  /** components x smallest usable length (driver.md 1.3). */
  readonly blocks: Blocks
}

export interface StripeUnit {
  readonly kind: 'stripe'
  readonly name: UnitName
  /** Minor number; also the order of creation. */
  readonly minor: number
  readonly rows: readonly Row[]
  readonly hotSparePool: UnitName | null
  readonly geometry: Geometry
  readonly labelled: boolean
  /** Sum of the rows. */
  readonly actualBlocks: Blocks
  /** External size: actualBlocks rounded down to cylinders. */
  readonly blocks: Blocks
}

export type ReadPolicy = 'roundrobin' | 'geometric' | 'first'
export type WritePolicy = 'parallel' | 'serial'

/**
 * Whether a side is in step; what its components are is theirs, and the two together make the state
 * that metastat shows (mirrorstate.ts).
 * - `okay`: in step.
 * - `attached`: no valid data, not written; what a failed full resync leaves.
 * - `resync`: a full resync is wanted or runs; written, never read.
 * - `offline`: by the administrator; neither read nor written.
 * - `offlineResync`: coming online: what was written meanwhile is copied; written, never read.
 * - `optimized`: was in step when metad ended without notice: regions that were dirty are copied.
 */
export type SubmirrorState = 'okay' | 'attached' | 'resync' | 'offline' | 'offlineResync' | 'optimized'
export type Slot = 0 | 1 | 2 | 3

export interface Submirror {
  readonly slot: Slot
  readonly unit: UnitName
  readonly state: SubmirrorState
  /** An `offline` side that was not in step before: it comes back by a full resync. */
  readonly unsynced?: true
  readonly changed: number
}

/** How far a copy has come; it goes on from there only while its target is still the same storage. */
export interface Checkpoint {
  readonly slot: Slot
  /** Index of the component over all rows; null: the whole side. */
  readonly component: number | null
  /** Identities of everything that was being written. */
  readonly identity: string
  /** Everything below this block of the mirror is copied. */
  readonly done: Blocks
}

export interface MirrorUnit {
  readonly kind: 'mirror'
  readonly name: UnitName
  readonly minor: number
  /** In slot order; slots may have gaps. */
  readonly submirrors: readonly Submirror[]
  readonly read: ReadPolicy
  readonly write: WritePolicy
  /** Resync pass 0-9; 0 is never resynced at start. */
  readonly pass: number
  readonly geometry: Geometry
  readonly labelled: boolean
  readonly blocks: Blocks
  /** Counts changes of component states; see Component.erredOrder. */
  readonly errors: number
  /** Blocks of a dirty region: a power of two (regions.ts). */
  readonly regionBlocks: Blocks
  /** metasync -c stopped the resync; the next start of one takes this away. */
  readonly cancelled: boolean
  readonly checkpoint: Checkpoint | null
  /** Every submirror has grown, and a resync ran or nothing held the new blocks: the mirror grows when a resync ends. */
  readonly growPending?: true
}

/** A member of a RAID5 device: from `start` on its prewrite area, then its data. */
export interface Column extends Member {
  readonly state: ColumnState
}

/** How far the resync of a column has come; it goes on from there only while the column is the same storage. */
export interface ColumnCheckpoint {
  readonly column: number
  readonly identity: string
  /** Everything below this block of the column's data is in step. */
  readonly done: Blocks
}

/**
 * A column that works is becoming another slice: that one gets what is written to the column, and is never read before
 * the commit that puts it in its place.
 */
export interface ColumnCopy {
  /** Which one; it is Okay. */
  readonly of: number
  /** In resync. */
  readonly to: Column
  /** Everything below this block of the column's data is the same on both, and durable. */
  readonly done: Blocks
}

/** Where the blocks are: raid5geometry.ts and docs/raid5.md. */
export interface Raid5Unit {
  readonly kind: 'raid5'
  readonly name: UnitName
  readonly minor: number
  /** The original ones, then those that were attached. */
  readonly columns: readonly Column[]
  /** The first so many columns hold parity in turn. */
  readonly originals: number
  /** The first so many columns hold data; those behind them are being initialised to join. */
  readonly serving: number
  /** Of a segment. */
  readonly interlace: Blocks
  /** Segments of a column. */
  readonly lines: number
  /** Of the area before the data of every column. */
  readonly prewrite: Blocks
  /** How many slots SVM would make of it: `-w`. */
  readonly slots: number
  readonly hotSparePool: UnitName | null
  readonly geometry: Geometry
  /** Of the data of the columns that serve. */
  readonly actualBlocks: Blocks
  /** External size: actualBlocks rounded down to cylinders. */
  readonly blocks: Blocks
  /** Counts changes of column states; see Member.erredOrder. */
  readonly errors: number
  readonly journal: {
    /** Random, from 1: what the journal's headers are known by. */
    readonly unit: number
    /** From 1; one more at every start. */
    readonly epoch: number
  }
  readonly checkpoint: ColumnCheckpoint | null
  /** Parity is to be made again, or that runs. */
  readonly regen: boolean
  readonly copy: ColumnCopy | null
}

/** `start` is where a component that needs no label area begins. */
export interface Spare extends Slice {
  /** The slice begins with the disk's label: a component that holds one too may begin at block 0. */
  readonly labelled: boolean
  /** It failed, and nothing takes it before metahs -e. */
  readonly broken: boolean
  /** Time of the last state change, ms since the epoch. */
  readonly changed: number
}

/**
 * A hot spare pool. A spare may be in several pools and is equal in all of them. That it is in use is
 * not written here: it is, exactly while it stands in for some component (hotspare.ts).
 */
export interface PoolUnit {
  readonly kind: 'pool'
  readonly name: UnitName
  /** Order of creation among the pools; no device, hence no minor number of one. */
  readonly minor: number
  /** In search order. */
  readonly spares: readonly Spare[]
}

export type Metadevice = StripeUnit | MirrorUnit | Raid5Unit
/** Metadevices and hot spare pools share one name space. */
export type Unit = Metadevice | PoolUnit
export type Kind = Unit['kind']

/** Everything configured in the local set, by name. */
export type Tree = ReadonlyMap<UnitName, Unit>

/**
 * What the host knows of one storage object, gathered before a decision so that decisions stay pure.
 * `identity` is equal for two names exactly when they are the same storage.
 */
export interface Device {
  readonly name: string
  readonly path: string
  /** `file:DEV:INO`, or `block:MAJ:MIN` of the innermost device; a loop device has its backing file's identity. */
  readonly identity: string
  /** Byte extents of the identity's storage that this name covers, in blocks: for overlap checks of partitions and loops. */
  readonly extent: Extent
  readonly offset: Blocks
  readonly size: Blocks
  readonly geometry: Geometry
  /** The slice begins at disk block 0 of a labelled disk. */
  readonly labelAtStart: boolean
  /** Last block used by a state database replica, 0 when there is none (driver.md 1.2). */
  readonly replicaEnd: Blocks
  /** Whether the storage is a state database replica itself. */
  readonly isReplica: boolean
  /**
   * Mount points (`/mnt`), swap, other kernel users, a replica on a part of it; null when free. `device` is who is
   * used when that only overlaps this one.
   */
  readonly usedBy: {
    readonly how: 'mounted' | 'swap' | 'busy' | 'replica'
    readonly where: string
    readonly device?: string
  } | null
}

/** Looks a component word up among the devices gathered for this command. */
export type Inventory = (word: string) => MetaResult<Device>
