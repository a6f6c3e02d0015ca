/** Interlace words: number with `b`, `k` or `m`; a bare number is bytes (commands.md 2.2). */
import { err, ok } from '../base/result.js'
import { BLOCK_BYTES, type Blocks, blocks } from '../base/units.js'
import { type MetaResult, metaError } from '../msg/errors.js'

export const DEFAULT_INTERLACE = blocks(1024)
/** Of rows. */
export const MIN_INTERLACE = blocks(16)
/** Of RAID5 devices. */
export const MIN_RAID5_INTERLACE = blocks(2)
/** 100 MiB. */
export const MAX_INTERLACE = blocks(204800)

const BLOCKS_PER: Readonly<Record<string, number>> = { b: 1, k: 2, m: 2048 }

/**
 * An unknown suffix is reported without the name of the unit, as Solaris does.
 * @param min of the kind
 */
export const parseInterlace = (word: string, unit: string, min: Blocks = MIN_INTERLACE): MetaResult<Blocks> => {
  const m = /^(\d{1,15})([A-Za-z]?)$/.exec(word)
  const suffix = m?.[2]?.toLowerCase()
  if (m === null || suffix === undefined) return err(metaError('invalidInterlace', `${unit}: "${word}"`))
  const scale = suffix === '' ? 1 / BLOCK_BYTES : BLOCKS_PER[suffix]
  if (scale === undefined) return err(metaError('invalidInterlace', `"${word}"`))
  const n = Number(m[1]) * scale
  if (!Number.isInteger(n) || n < min || n > MAX_INTERLACE)
    return err(metaError('invalidInterlace', `${unit}: "${word}"`))
  return ok(blocks(n))
}

export const printInterlace = (n: Blocks): string => `${n}b`
