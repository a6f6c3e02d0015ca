/** Operands of the commands on mirrors: names as typed become units of the tree, or the error SVM has for it. */
import { err, ok } from '../base/result.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import { parseUnitName } from './names.js'
import { type Side, sidesIn } from './sources.js'
import { configured } from './standing.js'
import { metadeviceOf } from './tree.js'
import type { Inventory, Member, Metadevice, MirrorUnit, Tree } from './types.js'

/** @param otherKind the error for a metadevice that is no mirror; commands differ. */
export const mirrorNamed = (
  word: string,
  tree: Tree,
  otherKind: (unit: Metadevice) => MetaError,
): MetaResult<MirrorUnit> => {
  const name = parseUnitName(word)
  if (!name.ok) return name
  const unit = metadeviceOf(tree, name.value)
  if (unit === null) return err(metaError('unitNotSetUp', name.value))
  return unit.kind === 'mirror' ? ok(unit) : err(otherKind(unit))
}

/** null: a metadevice that is no submirror of `m`; SVM looks at the mirror's state before it says so. */
export const sideNamed = (word: string, m: MirrorUnit, tree: Tree): MetaResult<Side | null> => {
  const name = parseUnitName(word)
  if (!name.ok) return name
  if (metadeviceOf(tree, name.value) === null) return err(metaError('unitNotSetUp', name.value))
  return ok(sidesIn(m, tree).find((s) => s.submirror.unit === name.value) ?? null)
}

interface Names {
  readonly inventory: Inventory
  /** Names under which a word may be configured, also when the device is gone. */
  readonly namesOf: (word: string) => readonly string[]
}

/**
 * The component that metastat shows under a word, the original's name while a hot spare stands in.
 * @returns its index, -1 when it is none of them.
 */
export const configuredName = (word: string, components: readonly Member[], { inventory, namesOf }: Names): number => {
  const device = inventory(word)
  const names = device.ok ? [device.value.name, ...namesOf(word)] : namesOf(word)
  for (const name of names) {
    const index = components.findIndex((c) => configured(c).name === name)
    if (index >= 0) return index
  }
  return -1
}
