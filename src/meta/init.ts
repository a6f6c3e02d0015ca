/** metainit: definitions become units (commands.md 2.11). */
import { err, ok, type Result } from '../base/result.js'
import { type MetaError, metaError } from '../msg/errors.js'
import type { BuildContext } from './kind.js'
import { kindOf } from './kinds.js'
import { type Batch, outcome, type Outcome, then, unchanged } from './operations.js'
import { commandEntry, definitionOf, errorIn, findEntry, type Tab, type TabEntry } from './tab.js'
import { freeMinor, freePoolNumber, isMetadevice } from './tree.js'
import type { Tree, Unit } from './types.js'

export interface InitContext extends Omit<BuildContext, 'minor' | 'random'> {
  /** See BuildContext; drawn for every unit. */
  readonly random: () => number
  /** Where to look for the next free minor number: one more than the last given out. */
  readonly counter: number
  /** -n: entries are not simulated, so one cannot stand on another of the same file. */
  readonly check: boolean
}

/**
 * What a command line asks for: its own words, the entry of a name given alone, or every metadevice
 * and hot spare pool of the file.
 */
export const initEntries = (
  words: readonly string[],
  all: boolean,
  tab: Tab,
): Result<readonly TabEntry[], MetaError> => {
  if (all) {
    // The first entry of a name is the one that counts.
    const seen = new Set<string>()
    return ok(
      tab.entries.filter((e) => {
        if (e.set !== null || e.type === 'replicas' || seen.has(e.name)) return false
        seen.add(e.name)
        return true
      }),
    )
  }
  const entry = commandEntry(words)
  if (!entry.ok) return entry
  if (entry.value.set !== null) return err(metaError('noSuchSet', `setname "${entry.value.set}"`))
  return ok([words.length === 1 ? (findEntry(tab, entry.value.name) ?? entry.value) : entry.value])
}

/** Pools and metadevices share their names; what is said depends on whether the two are of one sort. */
const taken = (entry: TabEntry, existing: Unit): 'unitExists' | 'hspExists' | 'nameInUse' => {
  if ((entry.type === 'pool') === isMetadevice(existing)) return 'nameInUse'
  return isMetadevice(existing) ? 'unitExists' : 'hspExists'
}

const initOne = (entry: TabEntry, tree: Tree, context: InitContext): Result<Outcome, MetaError> => {
  const existing = tree.get(entry.name)
  if (existing !== undefined) return err(errorIn(entry, metaError(taken(entry, existing), entry.name)))
  const definition = definitionOf(entry)
  if (!definition.ok) return definition
  const pool = definition.value.kind === 'pool'
  const minor = pool ? freePoolNumber(tree) : freeMinor(tree, context.counter)
  if (minor === null) return err(errorIn(entry, metaError('databaseFull', entry.name)))
  const built = kindOf(definition.value.kind).build(definition.value, {
    ...context,
    tree,
    minor,
    random: context.random(),
  })
  if (!built.ok) return err(errorIn(entry, built.error))
  const { unit, warnings } = built.value
  return ok(outcome(tree, { put: [unit], changes: [{ change: 'setUp', kind: unit.kind, name: unit.name }], warnings }))
}

/**
 * Passes over the entries until one completes nothing, so their order does not matter; what the last
 * pass could not do is reported.
 */
export const init = (entries: readonly TabEntry[], context: InitContext): Batch => {
  let done = unchanged(context.tree)
  let counter = context.counter
  let left = entries
  for (;;) {
    const errors: MetaError[] = []
    const failed: TabEntry[] = []
    for (const entry of left) {
      const tree = context.check ? context.tree : done.tree
      const result = initOne(entry, tree, { ...context, counter })
      if (result.ok) {
        done = context.check ? merged(done, result.value) : then(done, result.value)
        for (const unit of result.value.put) if (isMetadevice(unit)) counter = unit.minor + 1
      } else {
        errors.push(result.error)
        failed.push(entry)
      }
    }
    if (context.check || failed.length === 0 || failed.length === left.length) return { outcome: done, errors }
    left = failed
  }
}

/** What is said is kept, what would change is not. */
const merged = (done: Outcome, next: Outcome): Outcome => ({
  ...done,
  changes: [...done.changes, ...next.changes],
  warnings: [...done.warnings, ...next.warnings],
})
