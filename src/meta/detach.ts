/** metadetach: a submirror becomes a free stripe (commands.md 3.6, checks in that order). */
import { err, ok } from '../base/result.js'
import { type MetaResult, metaError } from '../msg/errors.js'
import type { Live } from './kind.js'
import { KINDS } from './kinds.js'
import { advance, stateOf, stateOutcome } from './mirrorstate.js'
import { derive } from './mirrortables.js'
import { mirrorNamed, sideNamed } from './operands.js'
import type { Outcome } from './operations.js'
import { optimizedPending } from './resyncs.js'
import { blockWithoutSource, type Side, sidesIn } from './sources.js'
import type { Tree } from './types.js'

/** A component in Maintenance, Last Erred, or a copy that is not complete. */
const isUnfinished = ({ submirror, stripe }: Side): boolean => {
  const d = derive(submirror, stripe)
  return d.erred || d.resyncing || d.state === 'resync'
}

/** @param now ms since the epoch. */
export const detach = (
  words: readonly string[],
  force: boolean,
  tree: Tree,
  live: Live,
  now: number,
): MetaResult<Outcome> => {
  const [mirrorWord, submirrorWord, extra] = words
  if (mirrorWord === undefined) return err(metaError('syntax'))
  const mirror = mirrorNamed(mirrorWord, tree, (u) => metaError('invalidType', u.name, KINDS[u.kind].driver))
  if (!mirror.ok) return mirror
  const m = mirror.value
  if (submirrorWord === undefined) return err(metaError('syntax', m.name))
  if (extra !== undefined) return err(metaError('syntax', `${m.name}: "${extra}"`))
  const named = sideNamed(submirrorWord, m, tree)
  if (!named.ok) return named

  const going = named.value
  if (live.isUnavailable(m.name) || (going !== null && live.isUnavailable(going.stripe.name)))
    return err(metaError('unavailable', m.name))
  if (live.isResyncing(m.name) || optimizedPending(m)) return err(metaError('resyncInProgress', m.name))
  if (going === null) return err(metaError('submirrorNotFound', m.name))
  if (m.submirrors.length === 1) return err(metaError('lastSubmirror', m.name))
  const { slot } = going.submirror
  // Only what is in step may answer reads, so force cannot leave a range without such a side.
  if (blockWithoutSource(m.blocks, sidesIn(m, tree), (c) => !live.isMissing(c), slot) !== null)
    return err(metaError('noReadableSubmirrors', m.name))
  if (!force && isUnfinished(going)) return err(metaError('submirrorErred', m.name))
  const next = advance(stateOf(m, tree), { event: 'detach', slot }, now)
  if (!next.ok) return err(metaError('submirrorState', m.name))
  const changes = [{ change: 'submirrorDetached', name: m.name, submirror: going.stripe.name }] as const
  return ok(stateOutcome(tree, next.value.state, { changes }))
}
