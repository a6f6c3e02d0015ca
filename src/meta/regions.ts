/**
 * Sizes of the dirty region log. A region is a power of two of blocks, at least 1 MiB, and a mirror
 * has at most 32768 of them: the bitmap of the largest mirror is 4 KiB.
 */
import { type Blocks, blocks } from '../base/units.js'

/** 1 MiB. */
export const MIN_REGION_BLOCKS = 2048
export const MAX_REGIONS = 32768

/** @param atLeast the size in use, which growth may only double. */
export const regionBlocksFor = (size: Blocks, atLeast: number = MIN_REGION_BLOCKS): Blocks => {
  let region = Math.max(atLeast, MIN_REGION_BLOCKS)
  while (Math.ceil(size / region) > MAX_REGIONS) region *= 2
  return blocks(region)
}

export const regionCount = (size: Blocks, regionBlocks: Blocks): number => Math.ceil(size / regionBlocks)

export const isRegionSize = (n: number): boolean =>
  Number.isSafeInteger(n) && n >= MIN_REGION_BLOCKS && Number.isInteger(Math.log2(n))
