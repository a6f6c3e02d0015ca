/**
 * The dirty region log: per mirror a bitmap of the regions in which its sides may differ, in chunks of 2048
 * regions, each a record of the state database. Invariants:
 * - a bit in memory is the bit of the last durable commit of its chunk;
 * - a mirror's commits run one after another, so a chunk is never written from an older bitmap;
 * - all chunks of a mirror exist and keep their size as long as the log does: setting a bit never needs room.
 * Bit i of the bitmap is byte i >> 3, bit i & 7.
 */
import { ok } from '../base/result.js'
import type { UnitName } from '../meta/types.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import type { Json, RecordChanges, StateDatabase } from './types.js'

export const CHUNK_REGIONS = 2048
const CHUNK_BYTES = CHUNK_REGIONS / 8
const VERSION = 1
const PREFIX = 'dirty/'

export interface LogShape {
  /** Blocks of a region, a power of two. */
  readonly regionBlocks: number
  readonly regions: number
}
export type LogShapes = ReadonlyMap<UnitName, LogShape>

/** A change of which logs there are; commit() takes `changes`, settle() says what became of it. */
export interface Reshape {
  readonly changes: RecordChanges
  settle(durable: boolean): void
}

interface Log {
  readonly shape: LogShape
  /** Whole chunks; bits of regions that do not exist are 0. */
  readonly bits: Uint8Array
}

export const chunkKey = (mirror: UnitName, chunk: number): string => `${PREFIX}${mirror}/${chunk}`
const chunkCount = (shape: LogShape): number => Math.ceil(shape.regions / CHUNK_REGIONS)

const encodeChunk = ({ shape, bits }: Log, chunk: number): Json => ({
  version: VERSION,
  regionBlocks: shape.regionBlocks,
  bits: Buffer.from(bits.subarray(chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES)).toString('base64'),
})

const decodeChunk = (value: Json | undefined, shape: LogShape): Uint8Array | null => {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return null
  const { version, regionBlocks, bits } = value as { readonly [key: string]: Json }
  if (version !== VERSION || regionBlocks !== shape.regionBlocks || typeof bits !== 'string') return null
  const bytes = Buffer.from(bits, 'base64')
  return bytes.length === CHUNK_BYTES && bytes.toString('base64') === bits ? bytes : null
}

const emptyLog = (shape: LogShape): Log => ({ shape, bits: new Uint8Array(chunkCount(shape) * CHUNK_BYTES) })

const setBit = (bits: Uint8Array, region: number): void => {
  bits[region >> 3] = (bits[region >> 3] ?? 0) | (1 << (region & 7))
}
const clearBit = (bits: Uint8Array, region: number): void => {
  bits[region >> 3] = (bits[region >> 3] ?? 0) & ~(1 << (region & 7))
}
const hasBit = (bits: Uint8Array, region: number): boolean => ((bits[region >> 3] ?? 0) & (1 << (region & 7))) !== 0

const fullLog = (shape: LogShape): Log => {
  const log = emptyLog(shape)
  for (let region = 0; region < shape.regions; region++) setBit(log.bits, region)
  return log
}

/** The same dirt in another shape: regions only grow, so several old ones fall into one. */
const reshaped = (log: Log, shape: LogShape): Log => {
  const factor = shape.regionBlocks / log.shape.regionBlocks
  if (!Number.isInteger(factor))
    throw new Error(`regions of ${log.shape.regionBlocks} cannot become ${shape.regionBlocks}`)
  const next = emptyLog(shape)
  for (let region = 0; region < log.shape.regions; region++)
    if (hasBit(log.bits, region)) setBit(next.bits, Math.min(Math.floor(region / factor), shape.regions - 1))
  return next
}

const sameShape = (a: LogShape, b: LogShape): boolean => a.regionBlocks === b.regionBlocks && a.regions === b.regions

const allChunks = (mirror: UnitName, log: Log): readonly [string, Json][] =>
  Array.from({ length: chunkCount(log.shape) }, (_, chunk) => [chunkKey(mirror, chunk), encodeChunk(log, chunk)])

export class RegionLogs {
  readonly #db: Pick<StateDatabase, 'commit' | 'records'>
  readonly #logs = new Map<UnitName, Log>()
  readonly #tails = new Map<UnitName, Promise<void>>()

  constructor(db: Pick<StateDatabase, 'commit' | 'records'>) {
    this.#db = db
  }

  /**
   * Takes over what the database remembers. A chunk that is missing or damaged counts as dirty; a mirror
   * without any chunk has no log yet (follow() makes it).
   */
  load(shapes: LogShapes): readonly MetaError[] {
    const problems: MetaError[] = []
    for (const [mirror, shape] of shapes) {
      const keys = Array.from({ length: chunkCount(shape) }, (_, chunk) => chunkKey(mirror, chunk))
      if (!keys.some((key) => this.#db.records.has(key))) continue
      const log = emptyLog(shape)
      const full = fullLog(shape)
      for (const [chunk, key] of keys.entries()) {
        const bytes = decodeChunk(this.#db.records.get(key), shape)
        if (bytes === null) problems.push(metaError('damagedRecord', key, 'all its regions count as dirty'))
        log.bits.set(bytes ?? full.bits.subarray(chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES), chunk * CHUNK_BYTES)
      }
      this.#logs.set(mirror, log)
    }
    return problems
  }

  has(mirror: UnitName): boolean {
    return this.#logs.has(mirror)
  }

  /** A copy, in whole chunks; null: no log. */
  bitmap(mirror: UnitName): Uint8Array | null {
    const log = this.#logs.get(mirror)
    return log === undefined ? null : log.bits.slice()
  }

  /** How many regions are dirty. */
  dirty(mirror: UnitName): number {
    let count = 0
    for (let byte of this.#logs.get(mirror)?.bits ?? []) for (; byte !== 0; byte &= byte - 1) count++
    return count
  }

  /** Resolves when writes into `regions` may be issued. Numbers count regions of `regionBlocks`. */
  mark(mirror: UnitName, regions: readonly number[], regionBlocks: number): Promise<MetaResult<void>> {
    return this.#change(mirror, (log, bits) => {
      const factor = log.shape.regionBlocks / regionBlocks
      for (const region of regions) {
        const at = Math.floor(region / factor)
        if (!(at >= 0 && at < log.shape.regions)) throw new RangeError(`${mirror} has no region ${at}`)
        setBit(bits, at)
      }
    })
  }

  /** Resolves when `regions` need no copy after a crash. Old numbers are left dirty: their neighbours may be. */
  clean(mirror: UnitName, regions: readonly number[], regionBlocks: number): Promise<MetaResult<void>> {
    return this.#change(mirror, (log, bits) => {
      if (log.shape.regionBlocks === regionBlocks) for (const region of regions) clearBit(bits, region)
    })
  }

  /**
   * The logs there shall be: missing ones are made (all dirty when in `suspect`), others keep their dirt,
   * those of no mirror go. Marks of a log that changes wait until settle().
   */
  async follow(shapes: LogShapes, suspect: ReadonlySet<UnitName> = new Set()): Promise<Reshape> {
    const names = new Set([...shapes.keys(), ...this.#logs.keys()])
    const changing = [...names].filter((mirror) => {
      const have = this.#logs.get(mirror)?.shape
      const want = shapes.get(mirror)
      return have === undefined || want === undefined || !sameShape(have, want)
    })
    const locks = await Promise.all(changing.map((mirror) => this.#lock(mirror)))
    const changes = new Map<string, Json | null>()
    const next = new Map<UnitName, Log | null>()
    for (const mirror of changing) {
      for (const key of this.#db.records.keys()) if (key.startsWith(`${PREFIX}${mirror}/`)) changes.set(key, null)
      const have = this.#logs.get(mirror)
      const shape = shapes.get(mirror)
      const make = suspect.has(mirror) ? fullLog : emptyLog
      const log = shape === undefined ? null : have === undefined ? make(shape) : reshaped(have, shape)
      next.set(mirror, log)
      if (log !== null) for (const [key, value] of allChunks(mirror, log)) changes.set(key, value)
    }
    return {
      changes,
      settle: (durable) => {
        if (durable)
          for (const [mirror, log] of next) {
            if (log === null) this.#logs.delete(mirror)
            else this.#logs.set(mirror, log)
          }
        for (const unlock of locks) unlock()
      },
    }
  }

  async #change(mirror: UnitName, edit: (log: Log, bits: Uint8Array) => void): Promise<MetaResult<void>> {
    const unlock = await this.#lock(mirror)
    try {
      const log = this.#logs.get(mirror)
      // The other side went while the engine still had the plan with it: there is nothing to differ from any more.
      if (log === undefined) return ok(undefined)
      const next: Log = { shape: log.shape, bits: log.bits.slice() }
      edit(log, next.bits)
      const changes = new Map<string, Json>()
      for (let chunk = 0; chunk < chunkCount(log.shape); chunk++) {
        const [from, to] = [chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES]
        if (Buffer.compare(log.bits.subarray(from, to), next.bits.subarray(from, to)) !== 0)
          changes.set(chunkKey(mirror, chunk), encodeChunk(next, chunk))
      }
      if (changes.size === 0) return ok(undefined)
      const committed = await this.#db.commit(changes)
      if (!committed.ok) return committed
      this.#logs.set(mirror, next)
      return ok(undefined)
    } finally {
      unlock()
    }
  }

  /** One at a time per mirror, in order of arrival. */
  async #lock(mirror: UnitName): Promise<() => void> {
    const before = this.#tails.get(mirror)
    let unlock: () => void = () => undefined
    const tail = new Promise<void>((resolve) => (unlock = resolve))
    this.#tails.set(mirror, tail)
    await before
    return () => {
      if (this.#tails.get(mirror) === tail) this.#tails.delete(mirror)
      unlock()
    }
  }
}
