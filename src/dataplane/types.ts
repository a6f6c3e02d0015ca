/**
 * The native boundary: one typed page, and nothing else crosses. native/addon implements it.
 * Installation, removal and drains resolve when no request uses the older plan any more.
 */
import type { Blocks } from '../base/units.js'
import type { NativeEvent } from '../plan/events.js'
import type { ComponentId, OpenComponent } from '../plan/types.js'

export interface DataPlaneOptions {
  /** I/O threads, 1 to 64; default: the number of cores. */
  readonly threads: number
  /** Requests in flight per connection, 1 to 1024. */
  readonly queueDepth: number
  /** Largest request in bytes, at most 64 MiB. */
  readonly maxRequestBytes: number
  /** Busy-wait before sleeping, microseconds, 0 to 1000; at most one thread spins. */
  readonly spinMicros: number
  /** How often idle dirty regions are looked for, milliseconds, 10 to 3 600 000 (md_mdelay: 10 000). */
  readonly regionSweepMillis: number
  /** Memory for the stripes of each RAID5 device, 8 MiB to 64 GiB; a quarter of it more for what is being journaled. */
  readonly raid5CacheBytes: number
  /** For bench alone: false leaves the journal of RAID5 devices out, and nothing survives a crash. */
  readonly raid5Journal?: boolean
}

/** What the handshake agreed on; the transmission phase obeys it. */
export interface NbdTerms {
  readonly structuredReplies: boolean
  readonly extendedHeaders: boolean
  /** Negotiated metadata contexts with the ids given to the client. */
  readonly contexts: readonly { readonly id: number; readonly name: 'base:allocation' | 'metadisk:state' }[]
  readonly readOnly: boolean
  /** rdsk exports: 512, others 1. Unaligned requests are answered with EINVAL. */
  readonly minBlockBytes: number
}

export interface ResyncJob {
  readonly job: number
  /** Slot of the mirror's side that is written; sources follow the rules of reads. */
  readonly target: number
  /**
   * full: everything from `from` on, below it only what the dirty bitmap given to install() holds.
   * optimized: the regions in which the target is stale; each is readable once it is copied.
   * component: what lies on `component`.
   */
  readonly kind: 'full' | 'optimized' | 'component'
  /** Of the target's side; null unless kind is component. */
  readonly component: ComponentId | null
  readonly from: Blocks
  /** 1 to 2048 blocks copied at a time (md_resync_bufsz; default 1024). */
  readonly bufferBlocks: number
  /** Upper bound in bytes per second; 0 is unlimited. */
  readonly bytesPerSecond: number
  /** How often resyncCheckpoint is reported; 0: never. */
  readonly checkpointMillis: number
}

export interface VerifyJob {
  readonly job: number
  readonly from: Blocks
  /** Whether blocks that differ are copied from the first readable side, in slot order, to the others. */
  readonly repair: boolean
  /** 1 to 2048 blocks compared at a time. */
  readonly bufferBlocks: number
  /** Upper bound in bytes per second and side; 0 is unlimited. */
  readonly bytesPerSecond: number
}

export interface Raid5Job {
  readonly job: number
  /**
   * initialise: the columns are zeroed, prewrite area and data; joining ones, or any while none is readable.
   * regenerate: the column, writable and not readable, gets what the others say, while clients go
   * on. copy: what the plan is to copy the column to gets what the column has, or what the others say where it cannot be
   * read; the column and it are both written by clients meanwhile. parity: of every line it is compared with the data, and made right when `repair` says so; every column readable.
   */
  readonly kind: 'initialise' | 'regenerate' | 'copy' | 'parity'
  /** Places in the plan. initialise: any number; regenerate, copy: one; parity: none. */
  readonly columns: readonly number[]
  /** Of parity. */
  readonly repair: boolean
  /** Of a column's data, as `done` and all progress of these jobs; what lies before is done. */
  readonly from: Blocks
  /** 1 to 2048 blocks of each column at a time. */
  readonly bufferBlocks: number
  /** Upper bound in bytes per second and column; 0 is unlimited. */
  readonly bytesPerSecond: number
  /** How often resyncCheckpoint is reported; 0: never. */
  readonly checkpointMillis: number
}

export interface DataPlane {
  /** `wake` is a doorbell: call drain() after it. */
  start(options: DataPlaneOptions, wake: () => void): void
  /**
   * Makes `device` exist or swaps its plan; components named by the plan must be in `components`. Rejects
   * with a reason when the plan is refused. `dirty` is the bitmap of dirty regions (region i: byte i>>3,
   * bit i&7), looked at only when the device does not exist yet; null: all clean. A plan with larger
   * regions (times a power of two) folds the bitmaps the device has.
   */
  install(
    device: number,
    plan: Uint8Array,
    components: readonly OpenComponent[],
    dirty: Uint8Array | null,
  ): Promise<void>
  /** Gate closed, requests drained, connections of the device closed, its descriptors closed. */
  remove(device: number): Promise<void>
  /** Takes over a connected socket after the handshake: duplicates fd; `residual` was read already. */
  adopt(fd: number, device: number, terms: NbdTerms, residual: Uint8Array): number
  disconnect(connection: number, how: 'drain' | 'now'): void
  drain(max: number): readonly NativeEvent[]
  /**
   * Answers a `held` after its decision is durable and the plan that follows from it is installed. resume:
   * the requests go through the plan now installed, in their order. fail: those that had failed are
   * answered with EIO, those that only waited go on. An unknown or settled hold is ignored.
   */
  settle(device: number, hold: number, verdict: 'resume' | 'fail'): void
  /**
   * Answers regionsDirty and regionsIdle after the regions are durable, or with false when they cannot
   * be: then the waiting writes fail with EIO, and idle regions stay dirty. An unknown ticket is ignored.
   */
  marked(device: number, ticket: number, ok: boolean): void
  /** The device's plan must be a mirror at its root; ends in resyncEnded, resyncProgress and resyncCheckpoint before. */
  resync(device: number, job: ResyncJob): void
  /** Like resync(); verifyMismatch names the first 1000 places. */
  verify(device: number, job: VerifyJob): void
  /**
   * The device's plan must be RAID5, and no replay. Ends and reports as resync() does; another plan ends it as
   * cancelled. verifyMismatch counts and names blocks of a column's data in which parity is not the sum of the others.
   */
  raid5Job(device: number, job: Raid5Job): void
  /** Ends a resync, verify or job. */
  cancelResync(device: number): void
  /**
   * Whether the kernel still holds operations of this component that the engine gave up, or pages of it that were lent
   * to a client which has not taken them: it must not be used again.
   */
  busy(component: ComponentId): boolean
  /** Fixed order: see counters.ts. */
  counters(device: number): BigUint64Array
  /** Flushes every component of the device; rejects with the errno text. */
  flush(device: number): Promise<void>
  /** Stops accepting, drains, joins threads, closes descriptors. Idempotent. */
  stop(): Promise<void>
}
