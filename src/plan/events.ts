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
      /** On the component's storage, in blocks. */
      readonly block: Blocks
      readonly errno: number
    }
  | {
      readonly kind: 'resyncProgress'
      readonly device: number
      readonly job: number
      readonly done: Blocks
      readonly total: Blocks
    }
  | {
      readonly kind: 'resyncEnded'
      readonly device: number
      readonly job: number
      readonly outcome: 'done' | 'cancelled' | 'failed'
      readonly errno: number
      /** Everything below this block is copied. */
      readonly done: Blocks
    }
  | { readonly kind: 'connectionClosed'; readonly connection: number; readonly device: number; readonly reason: string }
