/**
 * Names as typed, checked once. Metadevices and hot spare pools share one name space. Named sets do
 * not exist in this release, so a well-formed `set/d0` is an unknown set.
 */
import { err, ok } from '../base/result.js'
import { type MetaResult, metaError } from '../msg/errors.js'
import type { UnitName } from './types.js'

const NAME = /^[A-Za-z][A-Za-z0-9_.-]{0,254}$/
const RESERVED: ReadonlySet<string> = new Set(['all', 'ALL', 'none', 'NONE'])
/** Printable characters except blank, `*`, `?` and `/`. */
const SET = /^[!-)+-.0->@-~]{1,50}$/
const SLICE = /^c\d+(?:t[0-9A-Fa-f]+)?d\d+s\d+$/
const MD = '/dev/md/'

export const isUnitName = (s: string): s is UnitName => NAME.test(s) && !RESERVED.has(s)

export interface QualifiedName {
  /** null: the local set. */
  readonly set: string | null
  readonly name: UnitName
}

/** `d0`, `set/d0`, `/dev/md/{dsk,rdsk}/d0`, `/dev/md/set/{dsk,rdsk}/d0`; repeated slashes collapse. */
export const parseQualifiedName = (word: string): MetaResult<QualifiedName> => {
  const collapsed = word.replace(/\/+/g, '/')
  const parts = (collapsed.startsWith(MD) ? collapsed.slice(MD.length) : collapsed).split('/')
  if (collapsed.startsWith(MD)) {
    const directory = parts.at(-2)
    if (directory !== 'dsk' && directory !== 'rdsk') return err(metaError('invalidName', word))
    parts.splice(-2, 1)
  }
  const name = parts.at(-1) ?? ''
  const set = parts.length === 2 ? (parts[0] ?? '') : null
  if (parts.length > 2 || !isUnitName(name) || (set !== null && !SET.test(set)))
    return err(metaError('invalidName', word))
  return ok({ set, name })
}

/** A metadevice or hot spare pool of the local set. */
export const parseUnitName = (word: string): MetaResult<UnitName> => {
  const q = parseQualifiedName(word)
  if (!q.ok) return q
  return q.value.set === null ? ok(q.value.name) : err(metaError('noSuchSet', `setname "${q.value.set}"`))
}
/** Pools have the rules of metadevices: `hsp001` is only a custom. */
export const parsePoolName = parseUnitName

/** Whether a component word can only mean a metadevice. */
export const isMetadevicePath = (word: string): boolean => word.replace(/\/+/g, '/').startsWith(MD)

/** Raw device path of a metadevice, as metastat -p prints submirrors. */
export const rawPath = (name: UnitName): string => `${MD}rdsk/${name}`

/** Component as metastat -p prints it: slices by raw path, files and disks by the path they have. */
export const tabComponent = (name: string): string => (SLICE.test(name) ? `/dev/rdsk/${name}` : name)

/** Drive of a component, as the relocation table lists it: a slice without its slice number. */
export const driveOf = (name: string): string => (SLICE.test(name) ? name.replace(/s\d+$/, '') : name)

/**
 * md.tab has no quoting: a word with blanks, line ends or control characters could be configured but
 * never printed by metastat -p in a form that metainit reads back. A final backslash would join lines.
 */
export const fitsTab = (word: string): boolean => word !== '' && !/[\s\u0000-\u001f\u007f]|\\$/.test(word)
