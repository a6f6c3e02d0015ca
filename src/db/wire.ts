/** What is said between metad and the helper process of one replica (IPC channel, structured clone). */
import type { RawEntry } from './format.js'

/**
 * Why a replica cannot be used, with metadb's letter (commands.md 5.3). `damaged`: the storage is there and opens,
 * its contents are bad; `identity` is then whose storage that is, so that metad can decide whether to write it anew.
 */
export interface Fault {
  readonly letter: 'R' | 'S' | 'F' | 'D' | 'M' | 'W'
  readonly problem: string
  readonly damaged: boolean
  readonly identity: string | null
}

export type HelperRequest =
  | { readonly op: 'open'; readonly path: string; readonly block: boolean }
  /** `fresh`: path is absent or an empty file. `rebuild`: the storage of that identity is emptied first. */
  | {
      readonly op: 'create'
      readonly path: string
      readonly block: boolean
      readonly physical: number
      readonly mode: 'fresh' | 'rebuild'
      readonly identity: string | null
      readonly entries: readonly RawEntry[]
    }
  /** One transaction. Refused unless the head is byte for byte `expect`. `full` removes what is not put. */
  | {
      readonly op: 'write'
      readonly expect: Uint8Array
      readonly full: boolean
      readonly puts: readonly RawEntry[]
      readonly removes: readonly string[]
    }
  /** Compares path, open file and head with what was last seen or written through this helper. */
  | { readonly op: 'check' }
  | { readonly op: 'read' }
  /** The replica is deleted: a file is unlinked, a device loses its first pages. Only if `identity` is still there. */
  | { readonly op: 'wipe'; readonly path: string; readonly block: boolean; readonly identity: string }
  | { readonly op: 'close' }

export interface HelperAnswer {
  readonly identity?: string
  readonly entries?: readonly RawEntry[]
  readonly readOnly?: boolean
}
export type HelperReply =
  | { readonly seq: number; readonly ok: true; readonly value: HelperAnswer }
  | { readonly seq: number; readonly ok: false; readonly fault: Fault; readonly code: string | null }
