/**
 * A plan as data: what one open metadevice is made of, children before parents, sizes in 512-byte
 * blocks. It knows nodes and numbers, never kinds, sets or names. encode.ts turns it into the bytes
 * that native/plan/decode.cc checks again and refuses when anything is wrong.
 */
import type { Blocks, Branded } from '../base/units.js'

/** Index into Plan.nodes. */
export type NodeId = Branded<number, 'NodeId'>
/** Numbers an open component across plans; chosen by metad, reported back in events. */
export type ComponentId = Branded<number, 'ComponentId'>

/**
 * What may be done with a component. Okay: readable and writable. Resyncing (hot spare, metareplace):
 * writable only. Maintenance: neither, so it need not be open and its number means nothing. Outside a
 * mirror or RAID5 a component is always in service.
 */
export interface ComponentService {
  /** May be a read source. Implies writable. */
  readonly readable: boolean
  readonly writable: boolean
  /**
   * 0, or the component is Last Erred: the mirror's change counter when it erred, so that of two the
   * greater one erred later. Implies readable.
   */
  readonly lastErred: number
}

export interface ComponentNode extends ComponentService {
  readonly kind: 'component'
  readonly component: ComponentId
  /** Block of the file or device at which the node's block 0 lies. */
  readonly start: Blocks
  readonly blocks: Blocks
}

export interface PlanRow {
  readonly interlace: Blocks
  /** Of the whole row. */
  readonly blocks: Blocks
  /** Component nodes, each at least blocks / children.length long. */
  readonly children: readonly NodeId[]
}

export interface StripeNode {
  readonly kind: 'stripe'
  /** External size; at most the sum of the rows. */
  readonly blocks: Blocks
  readonly rows: readonly PlanRow[]
}

export interface MirrorSide {
  readonly child: NodeId
  /** 0 to 3, ascending; names the side across plans. */
  readonly slot: number
  /** Whether reads may be answered from this side: not while attached, in a full resync, offline or coming online. Implies writable. */
  readonly readable: boolean
  /** Whether writes go to this side: not while attached or offline. */
  readonly writable: boolean
  /**
   * An optimized resync is outstanding in the regions that were dirty when a plan first said so. Of a
   * readable side (in step before a crash) these are the last source of a read, when there is no other;
   * elsewhere it is a full one. Implies writable.
   */
  readonly stale: boolean
}

export interface MirrorNode {
  readonly kind: 'mirror'
  readonly blocks: Blocks
  readonly read: 'roundrobin' | 'geometric' | 'first'
  readonly write: 'parallel' | 'serial'
  /** Blocks of a dirty region, a power of two; 0: no log (one side, or a stale state database). */
  readonly regionBlocks: Blocks
  /** 1 to 4. A range without any readable component answers EIO. */
  readonly sides: readonly MirrorSide[]
}

/** A RAID5 device (docs/raid5.md); always the root. */
export interface Raid5Node {
  readonly kind: 'raid5'
  /** External size; at most lines x interlace x (serving - 1). */
  readonly blocks: Blocks
  /** Of a segment: 2 blocks to 100 MiB. */
  readonly interlace: Blocks
  /** Segments in a column. */
  readonly lines: number
  /** The first so many columns hold parity in turn; 3 to 64. Attached ones follow. */
  readonly originals: number
  /**
   * The first so many columns are part of the device; originals to columns.length. Those behind are there to be
   * initialised alone: never readable, and nothing else touches them.
   */
  readonly serving: number
  /** At the beginning of every column, before its data. */
  readonly prewrite: Blocks
  /** Random, from 1: what the journal's headers are known by. */
  readonly unit: number
  /** From 1, and one more for every start: entries of another epoch are never replayed. */
  readonly epoch: number
  /** The journal of `epoch` is replayed; requests wait. The next plan has a new epoch and no replay. */
  readonly replay: boolean
  /**
   * The last one in `columns`, alone behind those that serve, is becoming a copy of this column: what is written to this
   * one is written to it as well.
   */
  readonly copied: number | null
  /** Component nodes, each at least prewrite + lines x interlace long. */
  readonly columns: readonly NodeId[]
}

export type PlanNode = ComponentNode | StripeNode | MirrorNode | Raid5Node

export interface Plan {
  readonly generation: number
  /** The last node is the root. */
  readonly nodes: readonly PlanNode[]
  /** Block 0 holds a disk label: writes to it are refused with EINVAL. */
  readonly labelled: boolean
  /** Every write is refused with EROFS (stale state database). */
  readonly readOnly: boolean
}

export interface OpenComponent {
  readonly component: ComponentId
  /** Opened by TypeScript (O_DIRECT included); native duplicates it and never closes the original. */
  readonly fd: number
  /** Opened with O_DIRECT: buffers, offsets and lengths are aligned to `align` bytes. */
  readonly direct: boolean
  /** Logical block size in bytes, 512 to 4096; only meaningful with direct. */
  readonly align: number
  readonly blockDevice: boolean
  /** Capacity in blocks; a short read inside it is an error. */
  readonly size: Blocks
  /** An operation older than this counts as failed with ETIMEDOUT; 0: never. */
  readonly timeoutMillis: number
}
