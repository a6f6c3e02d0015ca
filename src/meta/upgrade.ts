/**
 * Records of earlier releases as this one writes them. Each step knows two versions; what does not
 * look as that version wrote it is left as it is, for the decoder to complain about.
 */
import { blocks } from '../base/units.js'
import type { Json } from './reader.js'
import { regionBlocksFor } from './regions.js'

type Fields = { readonly [key: string]: Json }
const isFields = (j: Json | undefined): j is Fields => typeof j === 'object' && j !== null && !Array.isArray(j)

/** `change` of every object in the list under `key`. */
const each = (of: Fields, key: string, change: (item: Fields) => Fields): Fields => {
  const list = of[key]
  if (!Array.isArray(list)) return of
  return { ...of, [key]: list.map((item: Json) => (isFields(item) ? change(item) : item)) }
}

/** Version 1 had no component states, and kept that a resync was cancelled with the submirror. */
const toVersion2 = (r: Fields): Fields => {
  if (r['kind'] === 'stripe')
    return each(r, 'rows', (row) =>
      each(row, 'components', (c) => ({ ...c, state: 'okay', erredOrder: 0, spare: null })),
    )
  if (r['kind'] !== 'mirror') return r
  const submirrors = r['submirrors']
  const wasCancelled = (s: Json): boolean => isFields(s) && s['state'] === 'cancelled'
  const size = r['blocks']
  return {
    ...each(r, 'submirrors', (s) => (wasCancelled(s) ? { ...s, state: 'resync' } : s)),
    errors: 0,
    regionBlocks: regionBlocksFor(blocks(Number.isSafeInteger(size) && Number(size) > 0 ? Number(size) : 0)),
    cancelled: Array.isArray(submirrors) && submirrors.some(wasCancelled),
    checkpoint: null,
  }
}

/** Version 2 knew no RAID5 devices; nothing else is different. */
const toVersion3 = (r: Fields): Fields => r

/** From the version a record was written in to the next. */
const STEPS: readonly ((r: Fields) => Fields)[] = [toVersion2, toVersion3]

export const RECORD_VERSION = STEPS.length + 1

/** @param version of `value`, 1 to RECORD_VERSION. */
export const upgraded = (value: Json, version: number): Json =>
  isFields(value) ? STEPS.slice(version - 1).reduce((r, step) => step(r), value) : value
