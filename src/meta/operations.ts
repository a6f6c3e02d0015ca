/**
 * Operations on the tree: each answers what would change and changes nothing. `-n` is the same call
 * whose outcome is thrown away. A failed operation has no outcome, so nothing can be half made.
 */
import type { Change } from '../msg/format.js'
import type { MetaError } from '../msg/errors.js'
import type { Warning } from './kind.js'
import { withUnits } from './tree.js'
import type { Tree, Unit, UnitName } from './types.js'

export interface Outcome {
  /** The tree after the change; the same object when nothing changes. */
  readonly tree: Tree
  /** Records to write and to delete, one commit. */
  readonly put: readonly Unit[]
  readonly remove: readonly UnitName[]
  readonly changes: readonly Change[]
  readonly warnings: readonly Warning[]
}
/** Several operands or entries: those that failed do not stop the others. */
export interface Batch {
  readonly outcome: Outcome
  readonly errors: readonly MetaError[]
}

export const unchanged = (tree: Tree): Outcome => ({ tree, put: [], remove: [], changes: [], warnings: [] })

export const outcome = (
  tree: Tree,
  what: {
    readonly put?: readonly Unit[]
    readonly remove?: readonly UnitName[]
    readonly changes?: readonly Change[]
    readonly warnings?: readonly Warning[]
  },
): Outcome => {
  const { put = [], remove = [], changes = [], warnings = [] } = what
  return {
    tree: put.length + remove.length === 0 ? tree : withUnits(tree, put, remove),
    put,
    remove,
    changes,
    warnings,
  }
}

/** `next` was computed on the tree of `first`. A unit that was put and then removed is only removed. */
export const then = (first: Outcome, next: Outcome): Outcome => ({
  tree: next.tree,
  put: [
    ...first.put.filter((u) => !next.remove.includes(u.name) && !next.put.some((n) => n.name === u.name)),
    ...next.put,
  ],
  remove: [...first.remove.filter((n) => !next.put.some((u) => u.name === n)), ...next.remove],
  changes: [...first.changes, ...next.changes],
  warnings: [...first.warnings, ...next.warnings],
})

export { attach, type AttachRequest, finishGrowth } from './attach.js'
export { clear, type ClearRequest } from './clear.js'
export { detach } from './detach.js'
export { type HotSpareAction, type HotSpareRequest, metahs } from './hs.js'
export { offline, online, type SideContext, type SideRequest } from './offline.js'
export { replace, type ReplaceContext, type ReplaceRequest } from './replace.js'
export { init, initEntries, type InitContext } from './init.js'
export { param, type ParamRequest } from './param.js'
