/**
 * The export table: a view of the metadevices of the moment. Nothing is cached, so a grown, new or
 * cleared metadevice is what the next client sees.
 */
import type { ExportInfo, ExportTable } from './types.js'

/** One metadevice as the control plane knows it. */
export interface ExportUnit {
  /** `d0`, or `SET/d0`. */
  readonly name: string
  /** Engine device number. */
  readonly device: number
  readonly sizeBytes: bigint
  readonly readOnly: boolean
  readonly description: string
  /** What a client should use for best speed: interlace of a stripe, or 0 for the default. */
  readonly preferredBlockBytes: number
  /** What is trimmed is given back to its storage. */
  readonly trims: boolean
  /** Why nobody may use it now: it is listed and not available. */
  readonly refusal?: string
}

export interface ExportTableOptions {
  /** Largest request the engine accepts in bytes; told to clients. */
  readonly maxRequestBytes: number
}

export const DSK_BLOCK_BYTES = 1
export const RDSK_BLOCK_BYTES = 512
const DEFAULT_PREFERRED_BYTES = 4096

export interface ExportName {
  readonly unit: string
  readonly raw: boolean
}

/**
 * `d0`, `dsk/d0`, `rdsk/d0`, `SET/d0`, `SET/dsk/d0`, `SET/rdsk/d0`, each also behind `/dev/md/`.
 * A set cannot be called dsk or rdsk, so the reading is unique.
 */
export const parseExportName = (name: string): ExportName | undefined => {
  const parts = (name.startsWith('/dev/md/') ? name.slice('/dev/md/'.length) : name).split('/')
  const unit = parts.pop()
  if (unit === undefined || unit === '') return undefined
  const last = parts.at(-1)
  const kind = last === 'dsk' || last === 'rdsk' ? last : undefined
  if (kind !== undefined) parts.pop()
  if (parts.length > 1 || parts.some((p) => p === '' || p === 'dsk' || p === 'rdsk')) return undefined
  return { unit: [...parts, unit].join('/'), raw: kind === 'rdsk' }
}

/** `rdsk/d0`, `SET/rdsk/d0`. */
const rawName = (unit: string): string => {
  const cut = unit.lastIndexOf('/') + 1
  return `${unit.slice(0, cut)}rdsk/${unit.slice(cut)}`
}

/** The protocol wants a power of two between 512 bytes and 32 MiB. */
const preferred = (bytes: number, maxRequestBytes: number): number => {
  const wanted = Math.min(Math.max(bytes || DEFAULT_PREFERRED_BYTES, 512), 32 << 20, Math.max(maxRequestBytes, 512))
  return 2 ** Math.floor(Math.log2(wanted))
}

export const makeExportTable = (units: () => readonly ExportUnit[], options: ExportTableOptions): ExportTable => {
  const info = (unit: ExportUnit, raw: boolean): ExportInfo => ({
    name: raw ? rawName(unit.name) : unit.name,
    description: unit.description,
    sizeBytes: unit.sizeBytes,
    readOnly: unit.readOnly,
    minBlockBytes: raw ? RDSK_BLOCK_BYTES : DSK_BLOCK_BYTES,
    preferredBlockBytes: preferred(unit.preferredBlockBytes, options.maxRequestBytes),
    // A multiple of the minimum block, as the protocol wants.
    maxRequestBytes: options.maxRequestBytes - (options.maxRequestBytes % RDSK_BLOCK_BYTES),
    device: unit.device,
    trims: unit.trims,
    ...(unit.refusal === undefined ? {} : { refusal: unit.refusal }),
  })
  return {
    lookup: (name) => {
      const all = units()
      if (name === '') {
        const only = all[0]
        return only !== undefined && all.length === 1 ? info(only, false) : undefined
      }
      const parsed = parseExportName(name)
      if (parsed === undefined) return undefined
      const unit = all.find((u) => u.name === parsed.unit)
      return unit === undefined ? undefined : info(unit, parsed.raw)
    },
    list: () => units().map((u) => info(u, false)),
  }
}
