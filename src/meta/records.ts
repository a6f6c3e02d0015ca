/**
 * Units as records of the state database: JSON with the version of its shape. A record that is
 * damaged, or was written by a later release, is an error with its name in it; nothing is guessed,
 * because a layout that is nearly right serves the wrong blocks.
 */
import { err, ok } from '../base/result.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import { isKind, kindOf } from './kinds.js'
import { isUnitName } from './names.js'
import { type Json, Reader } from './reader.js'
import { childrenOf, EMPTY_TREE, MAX_UNITS, withUnits } from './tree.js'
import type { Tree, Unit, UnitName } from './types.js'
import { RECORD_VERSION, upgraded } from './upgrade.js'

const PREFIX = 'unit/'

export const recordKey = (name: UnitName): string => `${PREFIX}${name}`
export const isUnitKey = (key: string): boolean => key.startsWith(PREFIX)

export const encodeUnit = (unit: Unit): Json => ({
  version: RECORD_VERSION,
  ...(unit as unknown as { [k: string]: Json }),
})

const damaged = (key: string, why: string): MetaError => metaError('damagedRecord', key, why)

export const decodeUnit = (key: string, value: Json): MetaResult<Unit> => {
  const written = Reader.of(value)
  const version = written.integer('version', 1, Number.MAX_SAFE_INTEGER)
  if (written.problem !== null) return err(damaged(key, written.problem))
  if (version > RECORD_VERSION) return err(damaged(key, `written by a later release (version ${version})`))
  const from = Reader.of(upgraded(value, version))
  const kind = from.text('kind')
  const name = from.name('name')
  const minor = from.integer('minor', 0, MAX_UNITS - 1)
  if (from.problem !== null) return err(damaged(key, from.problem))
  if (recordKey(name) !== key || !isUnitName(name)) return err(damaged(key, `is about ${name}`))
  if (!isKind(kind)) return err(damaged(key, `unknown kind ${kind}`))
  const module = kindOf(kind)
  const unit = module.decode(from, { name, minor })
  if (from.problem !== null) return err(damaged(key, from.problem))
  return ok(unit)
}

export interface ReadTree {
  /** What could be read and fits together. */
  readonly tree: Tree
  /** One per record that was left out. */
  readonly errors: readonly MetaError[]
}

/** Units whose records are whole; one that stands on a unit that is not there is left out too. */
export const readTree = (records: ReadonlyMap<string, Json>): ReadTree => {
  const errors: MetaError[] = []
  const units: Unit[] = []
  const minors = new Set<string>()
  for (const [key, value] of records) {
    if (!isUnitKey(key)) continue
    const unit = decodeUnit(key, value)
    if (!unit.ok) errors.push(unit.error)
    else {
      // Pools count apart: their numbers name no device.
      const minor = `${unit.value.kind === 'pool' ? 'pool' : 'device'} ${unit.value.minor}`
      if (minors.has(minor)) errors.push(damaged(key, `minor number ${unit.value.minor} is used twice`))
      else {
        minors.add(minor)
        units.push(unit.value)
      }
    }
  }
  let tree = withUnits(EMPTY_TREE, units)
  // Leaving one out may take the ground from another.
  for (;;) {
    const wrong = [...tree.values()].flatMap((unit) => {
      const why = kindOf(unit.kind).verify(unit, tree)
      return why === null ? [] : [{ unit, why }]
    })
    if (wrong.length === 0) return { tree, errors }
    // What is below is to blame first; what stands on it is looked at again without it.
    const names = new Set(wrong.map(({ unit }) => unit.name))
    const lowest = wrong.filter(({ unit }) => !childrenOf(unit).some((child) => names.has(child)))
    for (const { unit, why } of lowest) errors.push(damaged(recordKey(unit.name), why))
    tree = withUnits(
      tree,
      [],
      lowest.map(({ unit }) => unit.name),
    )
  }
}

/** The changes of an outcome, as a commit takes them: null deletes. */
export const recordChanges = (what: {
  readonly put: readonly Unit[]
  readonly remove: readonly UnitName[]
}): ReadonlyMap<string, Json | null> =>
  new Map([
    ...what.remove.map((name): [string, null] => [recordKey(name), null]),
    ...what.put.map((unit): [string, Json] => [recordKey(unit.name), encodeUnit(unit)]),
  ])
