/**
 * metareplace of a column of a RAID5 device (commands.md 3.9, driver.md 4.9). One that works is copied; any other is made
 * from the others, so with more than one that failed the order matters: first what is out altogether, then what is Last Erred.
 */
import { err, ok } from '../base/result.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import type { Change } from '../msg/format.js'
import { checkReplacement, lookUp } from './check.js'
import type { Live } from './kind.js'
import { startBlock } from './layout.js'
import { configuredName } from './operands.js'
import { outcome, type Outcome } from './operations.js'
import { columnBlocks } from './raid5geometry.js'
import { advanceRaid5, canCopy } from './raid5state.js'
import { isGrowing, isInitFailed, isInitialising, isInService, membersOf } from './raid5tables.js'
import type { ReplaceContext, ReplaceRequest } from './replace.js'
import { sliceOf } from './slice.js'
import { configured } from './standing.js'
import type { Column, Raid5Unit, Slice } from './types.js'

/** What runs or is about to, in SVM's words; the columns themselves say nothing of what cannot be touched now. */
export const busy = (u: Raid5Unit, live: Pick<Live, 'isResyncing'>): MetaError | null => {
  const running = live.isResyncing(u.name)
  if (running && membersOf(u).some((c) => c.state === 'resync')) return metaError('resyncInProgress', u.name)
  if (isInitFailed(u)) return metaError('onlyClear', u.name)
  if (isInitialising(u) || isGrowing(u)) return metaError('inUse', u.name)
  return running ? metaError('resyncInProgress', u.name) : null
}

/** A column in resync that could go no further is out like one in Maintenance. */
const isOut = ({ state }: Column): boolean => state === 'erred' || state === 'initErred' || state === 'resync'

const wrongOrder = (u: Raid5Unit, named: Column, force: boolean): MetaError | null => {
  const out = u.columns.filter(isOut)
  const last = u.columns.filter((c) => c.state === 'lastErred')
  if (last.length > 0 && !force) return metaError('forceNeeded', u.name)
  const first = out.length > 0 ? out : last
  return first.length > 0 && !first.includes(named)
    ? metaError('replaceErredFirst', `${u.name}: ${configured(named).name}`)
    : null
}

const newSlice = (
  u: Raid5Unit,
  column: Column,
  word: string,
  enable: boolean,
  context: ReplaceContext,
): MetaResult<Slice> => {
  const device = lookUp(word, u.name, context.tree, context.inventory)
  if (!device.ok) return device
  const d = device.value
  const { start } = startBlock(d, false)
  if (d.size - start < columnBlocks(u)) return err(metaError('sys', `${u.name}: ${d.name}`, 'No space left on device'))
  // While a spare stands in, it is the spare that is open.
  const held = isInService(column) && column.spare === null
  const own = enable ? { unit: u.name, name: configured(column).name, held } : null
  const checked = checkReplacement(u.name, word, own, context)
  return checked.ok ? ok(sliceOf(checked.value, start)) : checked
}

export const replaceColumn = (u: Raid5Unit, r: ReplaceRequest, context: ReplaceContext): MetaResult<Outcome> => {
  const { tree, live, now } = context
  if (live.isUnavailable(u.name)) return err(metaError('unavailable', u.name))
  const waits = busy(u, live)
  if (waits !== null) return err(waits)
  const column = configuredName(r.old, u.columns, context)
  const named = u.columns[column]
  if (named === undefined) return err(metaError('componentNotFound', `${u.name}: ${r.old}`))
  // The record of `named` would say that it is to be made from the others, and one of those may never come back.
  if (u.columns.some((c, i) => i !== column && i < u.serving && live.isMissing(c)))
    return err(metaError('unavailable', u.name))
  const problem = wrongOrder(u, named, r.force)
  if (problem !== null) return err(problem)
  const old = configured(named).name
  const by = newSlice(u, named, r.new ?? old, r.new === null, context)
  if (!by.ok) return by
  const event = canCopy(u, column, by.value) && !live.isMissing(named) ? 'copy' : 'replace'
  const next = advanceRaid5(u, { event, column, by: by.value }, now)
  if (!next.ok) return err(metaError('inUse', u.name))
  const change: Change =
    r.new === null
      ? { change: 'deviceEnabled', name: u.name, device: old }
      : { change: 'deviceReplaced', name: u.name, device: old, by: by.value.name }
  return ok(outcome(tree, { put: [next.value.unit], changes: [change] }))
}
