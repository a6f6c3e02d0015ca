/**
 * The control socket: line-delimited JSON, one Request then Reply lines until `done`. Lines are at
 * most 1 MiB. Commands hold no rules: they send words and print what comes back.
 */
import type { Change } from '../msg/format.js'
import type { MetaError } from '../msg/errors.js'
import type { ReplicaReport, StatReport } from '../msg/report.js'

export const PROTOCOL_VERSION = 1
export const MAX_LINE_BYTES = 1 << 20

/** Words are the operands as typed; `cwd` resolves relative component paths. */
export type Request =
  | {
      readonly op: 'init'
      readonly cwd: string
      readonly check: boolean
      readonly force: boolean
      readonly all: boolean
      readonly words: readonly string[]
    }
  | {
      readonly op: 'clear'
      readonly check: false
      readonly all: boolean
      readonly force: boolean
      readonly recursive: boolean
      readonly softPartitions: boolean
      readonly names: readonly string[]
    }
  | {
      readonly op: 'attach'
      readonly cwd: string
      readonly check: boolean
      readonly interlace: string | null
      readonly words: readonly string[]
    }
  | { readonly op: 'detach'; readonly force: boolean; readonly words: readonly string[] }
  | {
      readonly op: 'param'
      readonly name: string
      readonly read: string | null
      readonly write: string | null
      readonly pass: string | null
      readonly hotSparePool: string | null
    }
  | { readonly op: 'offline'; readonly force: boolean; readonly mirror: string; readonly submirror: string }
  | { readonly op: 'online'; readonly force: boolean; readonly mirror: string; readonly submirror: string }
  | {
      readonly op: 'replace'
      readonly cwd: string
      readonly force: boolean
      readonly unit: string
      readonly old: string
      /** null: the component is used again (-e). */
      readonly new: string | null
    }
  | {
      readonly op: 'sync'
      readonly cancel: boolean
      /** All parity of RAID5 devices is made again (-p). */
      readonly parity: boolean
      /** The boot form (-r): every mirror that needs it, by pass number; `names` is empty, `cancel` and `verify` unset. */
      readonly restart: boolean
      /** Compare the sides, or data and parity, instead of copying; answered when all are compared, with `progress` and `verified` replies. */
      readonly verify: null | 'check' | 'repair'
      /** null or 0: the setting. */
      readonly bufferBlocks: number | null
      readonly names: readonly string[]
    }
  | {
      readonly op: 'hotspare'
      readonly cwd: string
      readonly action: 'add' | 'delete' | 'replace' | 'enable'
      /** A name or `all`; null for `enable`. */
      readonly pool: string | null
      /** Slices; for `replace` the old and the new one. */
      readonly words: readonly string[]
    }
  | { readonly op: 'stat'; readonly probe: boolean; readonly names: readonly string[] }
  | {
      readonly op: 'dbAdd'
      readonly cwd: string
      readonly force: boolean
      readonly count: number
      readonly length: number | null
      readonly words: readonly string[]
    }
  | { readonly op: 'dbDelete'; readonly cwd: string; readonly force: boolean; readonly words: readonly string[] }
  | { readonly op: 'dbList' }
  | { readonly op: 'dbLocations'; readonly cwd: string; readonly file: string | null }
  | { readonly op: 'ping' }

/** What a comparison of a mirror's sides found; in blocks of the mirror. */
export interface VerifyReport {
  readonly name: string
  readonly kind: 'mirror' | 'raid5'
  /** The mode: differences were only counted, or the sides were made equal to the first readable one, parity to the data. */
  readonly repaired: boolean
  /** All differing blocks, also those whose ranges were too many to list. */
  readonly mismatchBlocks: number
  /** Ascending, adjacent ones merged, at most 1000. Of RAID5: blocks of each column's data. */
  readonly ranges: readonly { readonly block: number; readonly blocks: number }[]
}

export type Reply =
  | { readonly reply: 'change'; readonly change: Change }
  | { readonly reply: 'warning'; readonly lines: readonly string[] }
  | { readonly reply: 'error'; readonly error: MetaError }
  | { readonly reply: 'progress'; readonly name: string; readonly done: number; readonly total: number }
  | { readonly reply: 'verified'; readonly report: VerifyReport }
  | { readonly reply: 'stat'; readonly report: StatReport }
  | { readonly reply: 'replicas'; readonly replicas: readonly ReplicaReport[] }
  | { readonly reply: 'pong'; readonly version: number; readonly pid: number; readonly metad: string }
  /** Last line of every answer; `status` is the exit status (commands.md 0.4). */
  | { readonly reply: 'done'; readonly status: number }
