/**
 * The native boundary: one typed page, and nothing else crosses. native/addon implements it.
 * Installation, removal and drains resolve when no request uses the older plan any more.
 */
import type { Blocks } from '../base/units.js'
import type { NativeEvent } from '../plan/events.js'
import type { OpenComponent } from '../plan/types.js'

export interface DataPlaneOptions {
  /** I/O threads, 1 to 64; default: the number of cores. */
  readonly threads: number
  /** Requests in flight per connection, 1 to 1024. */
  readonly queueDepth: number
  /** Largest request in bytes, at most 64 MiB. */
  readonly maxRequestBytes: number
  /** Busy-wait before sleeping, microseconds, 0 to 1000; at most one thread spins. */
  readonly spinMicros: number
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
  /** Index of the mirror's side that is written; sources are its readable sides. */
  readonly target: number
  readonly from: Blocks
  /** 1 to 2048 blocks copied at a time (md_resync_bufsz; default 1024). */
  readonly bufferBlocks: number
  /** Upper bound in bytes per second; 0 is unlimited. */
  readonly bytesPerSecond: number
}

export interface DataPlane {
  /** `wake` is a doorbell: call drain() after it. */
  start(options: DataPlaneOptions, wake: () => void): void
  /** Makes `device` exist or swaps its plan; components named by the plan must be in `components`. Rejects with a reason when the plan is refused. */
  install(device: number, plan: Uint8Array, components: readonly OpenComponent[]): Promise<void>
  /** Gate closed, requests drained, connections of the device closed, its descriptors closed. */
  remove(device: number): Promise<void>
  /** Takes over a connected socket after the handshake: duplicates fd; `residual` was read already. */
  adopt(fd: number, device: number, terms: NbdTerms, residual: Uint8Array): number
  disconnect(connection: number, how: 'drain' | 'now'): void
  drain(max: number): readonly NativeEvent[]
  /** The device's plan must be a mirror at its root; events resyncProgress and resyncEnded follow. */
  resync(device: number, job: ResyncJob): void
  cancelResync(device: number): void
  /** Fixed order: see counters.ts. */
  counters(device: number): BigUint64Array
  /** Flushes every component of the device; rejects with the errno text. */
  flush(device: number): Promise<void>
  /** Stops accepting, drains, joins threads, closes descriptors. Idempotent. */
  stop(): Promise<void>
}
