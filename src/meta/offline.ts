/** metaoffline and metaonline: a side out of service for a while (commands.md 3.7, 3.8; checks in that order). */
import { err, ok } from '../base/result.js'
import { type MetaResult, metaError } from '../msg/errors.js'
import type { Live } from './kind.js'
import { advance, stateOf, stateOutcome } from './mirrorstate.js'
import { derive, isRunning } from './mirrortables.js'
import { mirrorNamed, sideNamed } from './operands.js'
import { outcome, type Outcome } from './operations.js'
import { optimizedPending } from './resyncs.js'
import { blockWithoutSource, sidesIn } from './sources.js'
import type { Tree } from './types.js'

export interface SideRequest {
  readonly mirror: string
  readonly submirror: string
  /** metaoffline only. */
  readonly force: boolean
}
export interface SideContext {
  readonly tree: Tree
  readonly live: Live
  /** ms since the epoch. */
  readonly now: number
}

export const offline = (r: SideRequest, { tree, live, now }: SideContext): MetaResult<Outcome> => {
  const mirror = mirrorNamed(r.mirror, tree, (u) => metaError('notAMirror', u.name))
  if (!mirror.ok) return mirror
  const m = mirror.value
  const named = sideNamed(r.submirror, m, tree)
  if (!named.ok) return named
  if (live.isResyncing(m.name) || optimizedPending(m)) return err(metaError('resyncInProgress', m.name))
  const side = named.value
  if (side === null) return err(metaError('submirrorNotFound', m.name))
  const { submirror } = side
  if (!r.force && !isRunning(derive(submirror, side.stripe))) return err(metaError('submirrorState', m.name))
  if (blockWithoutSource(m.blocks, sidesIn(m, tree), (c) => !live.isMissing(c), submirror.slot) !== null)
    return err(metaError('noReadableSubmirrors', m.name))
  const changes = [{ change: 'submirrorOfflined', name: m.name, submirror: submirror.unit }] as const
  // Said once more, and nothing changes.
  if (submirror.state === 'offline') return ok(outcome(tree, { changes }))
  const next = advance(stateOf(m, tree), { event: 'offline', slot: submirror.slot }, now)
  if (!next.ok) return err(metaError('submirrorState', m.name))
  return ok(stateOutcome(tree, next.value.state, { changes }))
}

/** The optimized resync is the daemon's to start. */
export const online = (r: SideRequest, { tree, live, now }: SideContext): MetaResult<Outcome> => {
  const mirror = mirrorNamed(r.mirror, tree, (u) => metaError('notAMirror', u.name))
  if (!mirror.ok) return mirror
  const m = mirror.value
  const named = sideNamed(r.submirror, m, tree)
  if (!named.ok) return named
  if (named.value === null) return err(metaError('submirrorNotFound', m.name))
  const { slot, unit, state } = named.value.submirror
  if (state !== 'offline') return err(metaError('submirrorState', m.name))
  if (live.isResyncing(m.name)) return err(metaError('resyncInProgress', m.name))
  const next = advance(stateOf(m, tree), { event: 'online', slot }, now)
  if (!next.ok) return err(metaError('submirrorState', m.name))
  const changes = [{ change: 'submirrorOnlined', name: m.name, submirror: unit }] as const
  return ok(stateOutcome(tree, next.value.state, { changes }))
}
