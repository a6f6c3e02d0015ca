/**
 * Where a RAID5 device's blocks lie (driver.md 4.2, 4.3; docs/raid5.md). Volumes made by Solaris must read back,
 * so this arithmetic is a format, not a policy.
 *
 * Invariants: a column is prewrite area, then `lines` segments; every column has the same of both, wherever it
 * starts; parity is in the original columns alone and moves one to the right with each line.
 */
import { err, ok, type Result } from '../base/result.js'
import { type Blocks, blocks, roundDown, roundUp } from '../base/units.js'
import { PLAN } from '../plan/constants.js'
import { cylinder } from './geometry.js'
import { MAX_BLOCKS, type Size } from './layout.js'
import type { Geometry, Raid5Unit, Slice } from './types.js'

export const MIN_COLUMNS = PLAN.MIN_RAID_COLUMNS
export const MAX_COLUMNS = PLAN.MAX_RAID_COLUMNS
export const DEFAULT_SLOTS = 10
export const MIN_SLOTS = 10
export const MAX_SLOTS = 100

/** 1 MiB: what one transfer to any component may have. */
const MOST_TRANSFER = 2048
const ALIGN = 8
const LEAST_TRANSFER = 16

/**
 * The `maxio` of our components in blocks. Not above the interlace, and whole pages: SVM's slot of a segment and
 * its header would make the prewrite area odd, and every write into the data behind it would straddle two
 * pages of the page cache.
 */
export const transferFor = (interlace: Blocks): Blocks => {
  const most = Math.min(MOST_TRANSFER, interlace)
  return blocks(Math.max(LEAST_TRANSFER, most - (most % ALIGN)))
}

/** The smallest prewrite area the engine takes. */
export const leastPrewrite = (interlace: Blocks): number =>
  PLAN.PREWRITE_SPARE + PLAN.PREWRITE_GROUPS * (1 + Math.min(ALIGN, interlace))

/** How every column of a device is divided. */
export interface ColumnLayout {
  readonly lines: number
  readonly prewrite: Blocks
  readonly slots: number
}

const EVEN = blocks(2)

/**
 * @param smallest usable blocks of the smallest column, see usable().
 * @param slots asked for, 10 to 100; what a whole number of segments leaves over is given to more of them.
 * @param transfer `maxio`, in blocks; tests compare with volumes of other controllers.
 * @returns null when there is no space for one line.
 */
export const columnLayout = (
  smallest: number,
  interlace: Blocks,
  slots: number = DEFAULT_SLOTS,
  transfer: Blocks = transferFor(interlace),
): ColumnLayout | null => {
  const slot = Math.min(transfer, interlace + 1)
  const asked = roundUp(blocks(slots * slot), EVEN)
  const lines = Math.floor((smallest - asked) / interlace)
  if (lines < 1) return null
  // More could not be asked for with -w, so metastat -p could not say it.
  const given = Math.min(MAX_SLOTS, Math.floor(roundDown(blocks(smallest - lines * interlace), EVEN) / slot))
  return { lines, prewrite: roundUp(blocks(given * slot), EVEN), slots: given }
}

/** Blocks of a column behind its label and replicas. */
export const usable = (c: Pick<Slice, 'size' | 'start'>): number => c.size - c.start

/** Blocks that a slice must have behind its start to be a column. */
export const columnBlocks = (u: Pick<Raid5Unit, 'prewrite' | 'lines' | 'interlace'>): Blocks =>
  blocks(u.prewrite + u.lines * u.interlace)

/** Data of a column, without its prewrite area. */
export const columnData = (u: Pick<Raid5Unit, 'lines' | 'interlace'>): Blocks => blocks(u.lines * u.interlace)

export type Shape = Pick<Raid5Unit, 'originals' | 'serving' | 'interlace' | 'lines'>

/** Sizes with the first `serving` columns; one original column's worth of data is parity. The error: numbers would not be exact. */
export const raid5Size = (shape: Shape, geometry: Geometry): Result<Size, 'overflow'> => {
  const sum = BigInt(shape.interlace) * BigInt(shape.lines) * BigInt(shape.serving - 1)
  if (sum > BigInt(MAX_BLOCKS)) return err('overflow')
  const actualBlocks = blocks(Number(sum))
  return ok({ actualBlocks, blocks: roundDown(actualBlocks, cylinder(geometry)) })
}

export interface Raid5Place {
  readonly column: number
  readonly parity: number
  /** In the data of the column; its parity is at the same place of its own column. */
  readonly block: Blocks
  /** Contiguous blocks from there. */
  readonly run: Blocks
}

/** The mapping of driver.md 4.3: what the engine does for every request, written for reading and for tests. */
export const locateRaid5 = ({ originals, interlace, lines }: Shape, b: Blocks): Raid5Place => {
  const offset = b % interlace
  const segment = (b - offset) / interlace
  const place = (line: number, column: number): Raid5Place => ({
    column,
    parity: (line + originals - 1) % originals,
    block: blocks(line * interlace + offset),
    run: blocks(interlace - offset),
  })
  const striped = (originals - 1) * lines
  if (segment < striped) {
    const line = Math.floor(segment / (originals - 1))
    return place(line, ((segment % (originals - 1)) + line) % originals)
  }
  const behind = segment - striped
  return place(behind % lines, originals + Math.floor(behind / lines))
}
