/**
 * The first block of a column's prewrite area: which column of which device it is, and how that is divided
 * (driver.md 4.4). It is the header of SVM's first journal slot, in which nothing is journaled: for -k alone.
 *
 * Invariants: what is written is the 64-bit form of little-endian machines, empty, with our mark where SVM
 * has filler; it is read in all four forms. Our own journal begins in the next block (docs/raid5.md).
 */
import { BLOCK_BYTES, type Blocks, blocks } from '../base/units.js'
import type { MetaResult } from '../msg/errors.js'
import type { Device, Raid5Unit } from './types.js'

const MAGIC = 0xbadbabe3

/** Blocks are relative to the slice. */
export interface ColumnHeader {
  readonly column: number
  /** Minor number at that time. */
  readonly unit: number
  readonly originals: number
  readonly columns: number
  readonly interlace: Blocks
  readonly lines: number
  readonly slots: number
  readonly prewrite: Blocks
  readonly dataStart: Blocks
  readonly prewriteStart: Blocks
  /**
   * Changes of column states of the device until it was written. A column with less than the others missed what they
   * have got since. 0 of Solaris.
   */
  readonly generation: number
  /** Of the journal, whose groups may have to be carried out again; 0: none of it has to be. */
  readonly journal: number
  /** Of the journal when this was written; what it has of older epochs is in place. 0: of Solaris, or not known. */
  readonly epoch: number
}

/** What was found on a device that is to be a column. */
export interface FoundHeader {
  readonly header: ColumnHeader
  /** SVM's journal holds writes that may not be in place. */
  readonly live: boolean
}
/** Looks up what -k must know of a column, gathered before; null: no such header. */
export type Headers = (d: Device) => MetaResult<FoundHeader | null>
export const NO_HEADERS: Headers = () => ({ ok: true, value: null })

/** Where the fields lie. `wide`: blkno, segsincol, devstart and pwstart have 64 bits. */
interface Form {
  readonly little: boolean
  readonly wide: boolean
  readonly column: number
  readonly unit: number
  readonly magicExt: number
  readonly originals: number
  readonly columns: number
  readonly interlace: number
  readonly lines: number
  readonly slots: number
  readonly prewrite: number
  readonly dataStart: number
  readonly prewriteStart: number
}

/** From `columnnum` on all fields but those of 64 bits follow each other. */
const form = (
  little: boolean,
  wide: boolean,
  at: { readonly column: number; readonly lines: number; readonly slots: number; readonly dataStart: number },
): Form => ({
  little,
  wide,
  column: at.column,
  unit: at.column + 4,
  magicExt: at.column + 8,
  originals: at.column + 12,
  columns: at.column + 16,
  interlace: at.column + 20,
  lines: at.lines,
  slots: at.slots,
  prewrite: at.slots + 4,
  dataStart: at.dataStart,
  prewriteStart: at.dataStart + (wide ? 8 : 4),
})

const WRITTEN = form(true, true, { column: 36, lines: 60, slots: 68, dataStart: 76 })
const FORMS: readonly Form[] = [
  WRITTEN,
  form(false, true, { column: 44, lines: 72, slots: 80, dataStart: 88 }),
  form(true, false, { column: 32, lines: 56, slots: 60, dataStart: 68 }),
  form(false, false, { column: 36, lines: 60, slots: 64, dataStart: 72 }),
]
/** `MDJ1`, as the groups of the journal begin: in what SVM leaves empty of the form that is written. */
const MARK = 0x314a444d
const MARK_AT = 92
const GENERATION_AT = 96
const JOURNAL_AT = 104
const EPOCH_AT = 112

const SLOT_MAGIC_AT = 0

export interface DecodedHeader {
  readonly header: ColumnHeader
  /** Written by metadisk: the prewrite area is no ring of SVM's slots. */
  readonly ours: boolean
  /** Of the slots behind, as isLive wants it. */
  readonly little: boolean
}

const decodeAs = (block: Uint8Array, f: Form): DecodedHeader | null => {
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength)
  const u32 = (at: number): number => view.getUint32(at, f.little)
  const long = (at: number): number => (f.wide ? Number(view.getBigUint64(at, f.little)) : u32(at))
  if (u32(f.magicExt) !== MAGIC) return null
  const ours = f === WRITTEN && u32(MARK_AT) === MARK
  const numbers = {
    column: u32(f.column),
    unit: u32(f.unit),
    originals: u32(f.originals),
    columns: u32(f.columns),
    interlace: u32(f.interlace),
    lines: long(f.lines),
    slots: u32(f.slots),
    prewrite: u32(f.prewrite),
    dataStart: long(f.dataStart),
    prewriteStart: long(f.prewriteStart),
    generation: ours ? Number(view.getBigUint64(GENERATION_AT, true)) : 0,
    journal: ours ? Number(view.getBigUint64(JOURNAL_AT, true)) : 0,
    epoch: ours ? Number(view.getBigUint64(EPOCH_AT, true)) : 0,
  }
  if (!Object.values(numbers).every((n) => Number.isSafeInteger(n))) return null
  const { interlace, prewrite, dataStart, prewriteStart, ...rest } = numbers
  return {
    header: {
      ...rest,
      interlace: blocks(interlace),
      prewrite: blocks(prewrite),
      dataStart: blocks(dataStart),
      prewriteStart: blocks(prewriteStart),
    },
    ours,
    little: f.little,
  }
}

/** @param block the first of the prewrite area, 512 bytes. No two forms fit the same block. */
export const decodeHeader = (block: Uint8Array): DecodedHeader | null => {
  if (block.byteLength < BLOCK_BYTES) return null
  for (const f of FORMS) {
    const found = decodeAs(block, f)
    if (found !== null) return found
  }
  return null
}

/** The first blocks of SVM's slots, relative to the prewrite area; the first of them is the header itself. */
export const slotBlocks = (h: ColumnHeader): readonly Blocks[] => {
  if (h.slots < 1 || h.prewrite < h.slots) return []
  const slot = Math.floor(h.prewrite / h.slots)
  return Array.from({ length: h.slots }, (_, i) => blocks(i * slot))
}

/** A slot of SVM's journal with a write in it. */
export const isLive = (block: Uint8Array, little: boolean): boolean =>
  new DataView(block.buffer, block.byteOffset, block.byteLength).getUint32(SLOT_MAGIC_AT, little) === MAGIC

/**
 * The header of a column of the device as it serves now.
 * @param inPlace nothing of its journal will have to be carried out again
 */
export const headerOf = (u: Raid5Unit, index: number, inPlace = false): ColumnHeader | null => {
  const c = u.columns[index]
  if (c === undefined) return null
  return {
    column: index,
    unit: u.minor,
    originals: u.originals,
    columns: u.serving,
    interlace: u.interlace,
    lines: u.lines,
    slots: u.slots,
    prewrite: u.prewrite,
    dataStart: blocks(c.start + u.prewrite),
    prewriteStart: c.start,
    generation: u.errors,
    journal: inPlace ? 0 : u.journal.unit,
    epoch: inPlace ? 0 : u.journal.epoch,
  }
}

/** The block to write. */
export const encodeHeader = (h: ColumnHeader): Uint8Array => {
  const block = new Uint8Array(BLOCK_BYTES)
  const view = new DataView(block.buffer)
  const f = WRITTEN
  const put = (at: number, n: number): void => view.setUint32(at, n, f.little)
  const putLong = (at: number, n: number): void => view.setBigUint64(at, BigInt(n), f.little)
  put(f.magicExt, MAGIC)
  put(f.column, h.column)
  put(f.unit, h.unit)
  put(f.originals, h.originals)
  put(f.columns, h.columns)
  put(f.interlace, h.interlace)
  putLong(f.lines, h.lines)
  put(f.slots, h.slots)
  put(f.prewrite, h.prewrite)
  putLong(f.dataStart, h.dataStart)
  putLong(f.prewriteStart, h.prewriteStart)
  put(MARK_AT, MARK)
  putLong(GENERATION_AT, h.generation)
  putLong(JOURNAL_AT, h.journal)
  putLong(EPOCH_AT, h.epoch)
  return block
}
