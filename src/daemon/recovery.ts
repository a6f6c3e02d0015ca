/** What a start finds, and what it makes of it; pure. */
import { ok } from '../base/result.js'
import type { RecordChanges } from '../db/types.js'
import { advance, type MirrorEvent, stateOf, stateOutcome } from '../meta/mirrorstate.js'
import { outcome, type Outcome, then } from '../meta/operations.js'
import { wantedResyncs } from '../meta/resyncs.js'
import type { Openable } from '../meta/sources.js'
import type { MirrorUnit, Tree, UnitName } from '../meta/types.js'
import type { MetaResult } from '../msg/errors.js'

const MARK = 'open/'

/** Marks of releases without a dirty region log, by key: such a mirror was in use, somewhere. */
export const openMarks = (records: ReadonlyMap<string, unknown>): ReadonlyMap<string, UnitName> =>
  new Map([...records.keys()].filter((k) => k.startsWith(MARK)).map((k) => [k, k.slice(MARK.length) as UnitName]))
export const withoutMarks = (marks: ReadonlyMap<string, UnitName>): RecordChanges =>
  new Map([...marks.keys()].map((key) => [key, null]))

const mirrorsOf = (tree: Tree): readonly MirrorUnit[] => [...tree.values()].filter((u) => u.kind === 'mirror')

/** Each mirror's event on the tree that the ones before left; what does not fit a mirror leaves it as it is. */
const each = (
  tree: Tree,
  which: readonly MirrorUnit[],
  eventOf: (m: MirrorUnit) => MirrorEvent,
  now: number,
): Outcome =>
  which.reduce(
    (all, m) => {
      const next = advance(stateOf(m, all.tree), eventOf(m), now)
      return next.ok ? then(all, stateOutcome(all.tree, next.value.state)) : all
    },
    outcome(tree, {}),
  )

/**
 * Mirrors that metad did not serve until now: those that were written to when it ended are resynced where
 * they may differ, and what the administrator had taken offline comes back (driver.md 2.9).
 */
export const recovered = (
  tree: Tree,
  names: ReadonlySet<UnitName>,
  isDirty: (name: UnitName) => boolean,
  openable: Openable,
  now: number,
): MetaResult<{ readonly outcome: Outcome }> =>
  ok({
    outcome: each(
      tree,
      mirrorsOf(tree).filter((m) => names.has(m.name)),
      (m) => ({ event: 'load', log: isDirty(m.name) ? 'dirty' : 'clean', openable }),
      now,
    ),
  })

/** metasync -r and every start: what was cancelled or failed of `name` is wanted again, but for pass 0. */
export const syncedForBoot = (tree: Tree, name: UnitName, now: number): Outcome =>
  each(
    tree,
    mirrorsOf(tree).filter(
      (m) =>
        m.name === name &&
        m.pass > 0 &&
        (wantedResyncs(m, tree).length > 0 || m.submirrors.some((s) => s.state === 'attached')),
    ),
    () => ({ event: 'sync' }),
    now,
  )
