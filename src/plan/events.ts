import type { Blocks } from '../base/units.js'
import type { ComponentId } from './types.js'

/** What the engine reports upward; drained in order after a doorbell. */
export type NativeEvent =
  | {
      readonly kind: 'componentError'
      readonly device: number
      readonly generation: number
      readonly component: ComponentId
      readonly op: 'read' | 'write' | 'flush'
      /** On the component's storage, in blocks; 0 for a flush. */
      readonly block: Blocks
      /** ETIMEDOUT: the component's time limit passed. */
      readonly errno: number
      /** No client has seen it: another side answered, a hold keeps the request, or it was the engine's own copying. */
      readonly masked: boolean
      /** op read: the bad block could not be rewritten, or reads back wrong. */
      readonly repairFailed: boolean
    }
  /** A block that could not be read was rewritten from another side, synced and read back. */
  | {
      readonly kind: 'componentRepaired'
      readonly device: number
      readonly generation: number
      readonly component: ComponentId
      /** On the component's storage. */
      readonly block: Blocks
      readonly blocks: Blocks
    }
  /**
   * Requests wait because a component failed them; the componentErrors that say which come before.
   * The device takes no request until settle(device, hold, ...).
   */
  | { readonly kind: 'held'; readonly device: number; readonly generation: number; readonly hold: number }
  /** Writes wait for these regions; none goes on before marked(device, ticket, ...). */
  | {
      readonly kind: 'regionsDirty'
      readonly device: number
      readonly ticket: number
      /** The size by which the regions are numbered. */
      readonly regionBlocks: Blocks
      readonly regions: readonly number[]
    }
  /** Nothing was written there for two sweeps and the sides are flushed: clean after marked(device, ticket, true). */
  | {
      readonly kind: 'regionsIdle'
      readonly device: number
      readonly ticket: number
      readonly regionBlocks: Blocks
      readonly regions: readonly number[]
    }
  | {
      readonly kind: 'resyncProgress'
      readonly device: number
      readonly job: number
      readonly done: Blocks
      readonly total: Blocks
    }
  /** Everything below `done` is copied and on the target's stable storage. */
  | { readonly kind: 'resyncCheckpoint'; readonly device: number; readonly job: number; readonly done: Blocks }
  /** The readable sides differ in these blocks of the mirror; RAID5: parity is wrong in these of the columns' data. */
  | {
      readonly kind: 'verifyMismatch'
      readonly device: number
      readonly job: number
      readonly block: Blocks
      readonly blocks: Blocks
    }
  | {
      readonly kind: 'resyncEnded'
      readonly device: number
      readonly job: number
      readonly outcome: 'done' | 'cancelled' | 'failed'
      readonly errno: number
      /** Everything below this block is copied; of a RAID5 job in blocks of a column's data. */
      readonly done: Blocks
      /** failed: the component that could not be read or written; null when it was none. */
      readonly component: ComponentId | null
      /** Blocks in which a verify found the sides different, or parity wrong; 0 for a resync. */
      readonly mismatches: number
    }
  | { readonly kind: 'connectionClosed'; readonly connection: number; readonly device: number; readonly reason: string }
  /**
   * The plan's RAID5 journal was replayed and the columns are synced: the next epoch may be committed. With an errno it
   * was not, and what failed was told of before; it can be made again with another plan.
   */
  | {
      readonly kind: 'replayed'
      readonly device: number
      readonly generation: number
      readonly errno: number
      /** Carried out again, and the blocks written by that. */
      readonly groups: number
      readonly blocks: Blocks
      /** Parts of groups that were once whole and are not: parity may be wrong there. */
      readonly damaged: number
      /** Of what was carried out: the plan's, or a later one, and then the record is out of date. */
      readonly epoch: number
    }
