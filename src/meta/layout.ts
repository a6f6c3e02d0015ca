/**
 * Where data lies in a stripe or concatenation (driver.md 1.2 to 1.4). Volumes made by Solaris must
 * read back, so this arithmetic is a format, not a policy.
 *
 * Invariants: a row holds components x (smallest usable length); rows follow each other without gaps;
 * the external size is the sum rounded down to cylinders of the first component.
 */
import { err, ok, type Result } from '../base/result.js'
import { type Blocks, blocks, roundDown, roundUp } from '../base/units.js'
import { cylinder } from './geometry.js'
import type { Device, Geometry, Row, Slice } from './types.js'

export interface Start {
  readonly start: Blocks
  /** Block 0 of the volume is the disk's label. */
  readonly labelled: boolean
}

/**
 * First data block of a component. Solaris rounds the last replica block up; when that is a whole
 * number of cylinders its data overlaps the replica by a block, so here the first free block is rounded.
 */
export const startBlock = (d: Device, firstOfUnit: boolean): Start => {
  const labelled = d.labelAtStart && d.size > 0
  if (d.replicaEnd > 0) return { start: roundUp(blocks(d.replicaEnd + 1), cylinder(d.geometry)), labelled: false }
  if (!labelled) return { start: blocks(0), labelled: false }
  return firstOfUnit ? { start: blocks(0), labelled: true } : { start: cylinder(d.geometry), labelled: false }
}

/** Blocks of a component that can hold data; less than one interlace is no space, even in a concatenation. */
const usable = (c: Slice, width: number, interlace: Blocks): number => {
  const n = c.size - c.start
  if (n < interlace) return 0
  return width > 1 ? n - (n % interlace) : n
}

/** @returns the component without space as the error. */
export const rowBlocks = (components: readonly Slice[], interlace: Blocks): Result<number, Slice> => {
  let smallest = Number.MAX_SAFE_INTEGER
  for (const c of components) {
    const n = usable(c, components.length, interlace)
    if (n <= 0) return err(c)
    smallest = Math.min(smallest, n)
  }
  return ok(components.length * smallest)
}

/** Blocks that every component of a row gives to it. */
export const blocksPerComponent = (row: Row): Blocks => blocks(row.blocks / row.components.length)

/** Block numbers are exact up to this. */
export const MAX_BLOCKS = Number.MAX_SAFE_INTEGER

export interface Size {
  readonly actualBlocks: Blocks
  readonly blocks: Blocks
}

/** @returns false when block numbers would not be exact any more. */
export const stripeSize = (rows: readonly Row[], geometry: Geometry): Size | false => {
  const sum = rows.reduce((n, r) => n + BigInt(r.blocks), 0n)
  if (sum > BigInt(MAX_BLOCKS)) return false
  const actualBlocks = blocks(Number(sum))
  return { actualBlocks, blocks: roundDown(actualBlocks, cylinder(geometry)) }
}

export interface Place {
  readonly row: number
  readonly component: number
  /** Relative to the component's slice. */
  readonly block: Blocks
  /** Contiguous blocks from there. */
  readonly run: Blocks
}

/** The mapping of driver.md 1.4: what the engine does for every request, written for reading and for tests. */
export const locate = (rows: readonly Row[], b: Blocks): Place | null => {
  let base = 0
  for (const [index, row] of rows.entries()) {
    if (b >= base + row.blocks) {
      base += row.blocks
      continue
    }
    const r = b - base
    const n = row.components.length
    const frag = r % row.interlace
    const seg = (r - frag) / row.interlace
    const component = n === 1 ? 0 : seg % n
    const at = n === 1 ? r : ((seg - component) / n) * row.interlace + frag
    const start = row.components[component]?.start
    if (start === undefined) return null
    const run = n === 1 ? row.blocks - r : row.interlace - frag
    return { row: index, component, block: blocks(start + at), run: blocks(run) }
  }
  return null
}
