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

export interface ComponentNode {
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
  /** Whether reads may be answered from this side; writes always go to every side. */
  readonly readable: boolean
}

export interface MirrorNode {
  readonly kind: 'mirror'
  readonly blocks: Blocks
  readonly read: 'roundrobin' | 'geometric' | 'first'
  readonly write: 'parallel' | 'serial'
  /** 1 to 4, at least one readable. */
  readonly sides: readonly MirrorSide[]
}

export type PlanNode = ComponentNode | StripeNode | MirrorNode

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
}
