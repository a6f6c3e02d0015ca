/** metaclear: units go, data stays (commands.md 3.2). */
import { err, ok } from '../base/result.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import type { Live } from './kind.js'
import { released } from './mirrorstate.js'
import { derive, isRunning } from './mirrortables.js'
import { parseUnitName } from './names.js'
import { type Batch, outcome, type Outcome, then, unchanged } from './operations.js'
import { sidesIn } from './sources.js'
import { isWhole } from './raid5.js'
import { isReferenced, parentOf, poolsOf, topLevel, withChildren } from './tree.js'
import type { Metadevice, PoolUnit, Tree, UnitName } from './types.js'

export interface ClearRequest {
  readonly all: boolean
  readonly force: boolean
  readonly recursive: boolean
  /** Operands are what soft partitions stand on. */
  readonly softPartitions: boolean
  readonly names: readonly string[]
}

/** What runs holds its metadevice open, and force opens nothing that is held. */
const refusal = (unit: Metadevice, force: boolean, tree: Tree, live: Live): MetaError | null => {
  if (live.isOpen(unit.name) || live.isResyncing(unit.name)) return metaError('isOpen', unit.name)
  if (unit.kind === 'mirror' && !force && sidesIn(unit, tree).some((s) => !isRunning(derive(s.submirror, s.stripe))))
    return metaError('clearBadSubmirrors', unit.name)
  // Without a column its journal was not replayed, and what is only there goes with the record.
  const gone = unit.kind === 'raid5' && (live.isUnavailable(unit.name) || unit.columns.some((c) => live.isMissing(c)))
  if (unit.kind === 'raid5' && !force && (gone || !isWhole(unit))) return metaError('forceNeeded', unit.name)
  return null
}

const clearOne = (
  name: UnitName,
  tree: Tree,
  how: { readonly force: boolean; readonly recursive: boolean },
  live: Live,
): MetaResult<Outcome> => {
  const unit = tree.get(name)
  if (unit === undefined) return err(metaError('unitNotSetUp', name))
  if (unit.kind === 'pool') return clearPool(unit, tree)
  if (parentOf(tree, name) !== null) return err(metaError('inUse', name))
  // Everything is checked before anything goes: a device and what is below it go together or stay.
  const going = how.recursive ? withChildren(unit, tree) : [unit]
  for (const u of going) {
    const problem = refusal(u, how.force || how.recursive, tree, live)
    if (problem !== null) return err(problem)
  }
  // What stays behind is free, and a free stripe has no states.
  const left = unit.kind === 'mirror' && !how.recursive ? sidesIn(unit, tree).map((s) => s.stripe) : []
  return ok(
    outcome(tree, {
      put: left.filter((s) => released(s) !== s).map(released),
      remove: going.map((u) => u.name),
      changes: going.map((u) => ({ change: 'cleared', kind: u.kind, name: u.name })),
    }),
  )
}

/** The spares are free then, unless another pool lists them too. */
const clearPool = (pool: PoolUnit, tree: Tree): MetaResult<Outcome> => {
  if (isReferenced(pool.name, tree)) return err(metaError('hspInUse', pool.name))
  return ok(outcome(tree, { remove: [pool.name], changes: [{ change: 'cleared', kind: 'pool', name: pool.name }] }))
}

/** As metastat has them, but RAID5 devices before mirrors (commands.md 3.2). */
const byClearOrder = (units: readonly Metadevice[]): readonly Metadevice[] => [
  ...units.filter((u) => u.kind === 'raid5'),
  ...units.filter((u) => u.kind !== 'raid5'),
]

/**
 * Operands are independent of each other; `all` is everything at the top, kind by kind, with what is
 * below, then the pools.
 */
export const clear = (request: ClearRequest, tree: Tree, live: Live): Batch => {
  const { force, recursive } = request.all ? { force: true, recursive: true } : request
  let done = unchanged(tree)
  const errors: MetaError[] = []
  const words = request.all ? [...byClearOrder(topLevel(tree)), ...poolsOf(tree)].map((u) => u.name) : request.names
  for (const word of words) {
    const cleared = request.softPartitions
      ? noSoftPartitions(word)
      : parsed(word, done.tree, { force, recursive }, live)
    if (cleared.ok) done = then(done, cleared.value)
    else errors.push(cleared.error)
  }
  return { outcome: done, errors }
}

const parsed = (
  word: string,
  tree: Tree,
  how: { readonly force: boolean; readonly recursive: boolean },
  live: Live,
): MetaResult<Outcome> => {
  const name = parseUnitName(word)
  return name.ok ? clearOne(name.value, tree, how, live) : name
}

const noSoftPartitions = (word: string): MetaResult<Outcome> => err(metaError('noSoftPartitions', word))
