/** What the handshake needs to know of exports, and what it hands to the transmission phase. */
import type { NbdTerms } from '../dataplane/types.js'

export interface ExportInfo {
  /** Canonical name, e.g. `d0`; `dsk/d0` is the same export. */
  readonly name: string
  readonly description: string
  readonly sizeBytes: bigint
  readonly readOnly: boolean
  /** 1 for dsk, 512 for rdsk. */
  readonly minBlockBytes: number
  readonly preferredBlockBytes: number
  readonly maxRequestBytes: number
  /** Engine device number. */
  readonly device: number
  /** Trim is offered. */
  readonly trims: boolean
  /** Why nobody may use it now. */
  readonly refusal?: string
}

/** Looked up at the moment a client asks, so growth is visible to new connections. */
export interface ExportTable {
  /** `d0`, `dsk/d0`, `rdsk/d0`; the empty name is the default export when exactly one metadevice exists. */
  lookup(name: string): ExportInfo | undefined
  list(): readonly ExportInfo[]
}

export interface Handover {
  readonly export: ExportInfo
  readonly terms: NbdTerms
}
