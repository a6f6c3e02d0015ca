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

/** One slice, disk or file under a row. Sizes are those seen when it was added. */
export interface Component {
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
  /** Time of the last state change, ms since the epoch. */
  readonly changed: number
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
 * `okay` is the only state that may be a read source. `attached` waits for its first resync,
 * `resync` has one running (or interrupted by a restart), `cancelled` had one cancelled.
 */
export type SubmirrorState = 'okay' | 'attached' | 'resync' | 'cancelled'

export interface Submirror {
  readonly slot: 0 | 1 | 2 | 3
  readonly unit: UnitName
  readonly state: SubmirrorState
  readonly changed: number
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
  /** Every submirror has grown while a resync ran: the mirror grows when the resync ends. */
  readonly growPending?: true
}

export type Unit = StripeUnit | MirrorUnit
export type Kind = Unit['kind']

/** Every metadevice of the local set, by name. */
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
  /** Mount points (`/mnt`), `swap`, or other kernel users; null when free. */
  readonly usedBy: { readonly how: 'mounted' | 'swap' | 'busy'; readonly where: string } | null
}

/** Looks a component word up among the devices gathered for this command. */
export type Inventory = (word: string) => MetaResult<Device>
