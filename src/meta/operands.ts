/** Operands of the commands on mirrors: names as typed become units of the tree, or the error SVM has for it. */
import { err, ok } from '../base/result.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import { parseUnitName } from './names.js'
import { type Side, sidesIn } from './sources.js'
import { metadeviceOf } from './tree.js'
import type { Metadevice, MirrorUnit, Tree } from './types.js'

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
