/**
 * metattach of columns to a RAID5 device (commands.md 3.5): they hold data alone and serve once they are zeroes. Their
 * parity is on the original columns, which need not change for that.
 */
import { err, ok } from '../base/result.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import { checkComponents } from './check.js'
import type { Live } from './kind.js'
import { MAX_BLOCKS, startBlock } from './layout.js'
import { outcome, type Outcome } from './operations.js'
import { columnBlocks, MAX_COLUMNS, raid5Size } from './raid5geometry.js'
import { advanceRaid5 } from './raid5state.js'
import { isInitFailed, isInitialising } from './raid5tables.js'
import { sliceOf } from './slice.js'
import type { Inventory, Raid5Unit, Tree } from './types.js'

/** In SVM's order. One column in Maintenance is no reason to refuse: zeroes need no parity. */
const refusal = (u: Raid5Unit, live: Pick<Live, 'isResyncing'>): MetaError | null => {
  const has = (state: Raid5Unit['columns'][number]['state']): boolean => u.columns.some((c) => c.state === state)
  if (u.serving < u.columns.length) return metaError('inUse', u.name)
  if (has('resync') || u.copy !== null || (live.isResyncing(u.name) && !isInitialising(u)))
    return metaError('resyncInProgress', u.name)
  if (has('lastErred')) return metaError('raidLastErred', u.name)
  if (isInitFailed(u)) return metaError('onlyClear', u.name)
  return isInitialising(u) ? metaError('inUse', u.name) : null
}

export const attachColumns = (
  u: Raid5Unit,
  words: readonly string[],
  {
    tree,
    inventory,
    live,
    now,
  }: { readonly tree: Tree; readonly inventory: Inventory; readonly live: Live; readonly now: number },
): MetaResult<Outcome> => {
  if (words.length === 0) return err(metaError('notEnoughComponents', u.name))
  const refused = refusal(u, live)
  if (refused !== null) return err(refused)
  const serving = u.columns.length + words.length
  if (serving > MAX_COLUMNS) return err(metaError('tooManyColumns', u.name, String(MAX_COLUMNS)))
  const devices = checkComponents(u.name, words, { tree, inventory, force: false })
  if (!devices.ok) return devices
  const by = devices.value.map((d) => sliceOf(d, startBlock(d, false).start))
  const small = by.find((s) => s.size - s.start < columnBlocks(u))
  if (small !== undefined) return err(metaError('sys', `${u.name}: ${small.name}`, 'No space left on device'))
  if (!raid5Size({ ...u, serving }, u.geometry).ok) return err(metaError('sizeOverflow', u.name, String(MAX_BLOCKS)))
  const next = advanceRaid5(u, { event: 'attach', by }, now)
  if (!next.ok) return err(metaError('inUse', u.name))
  const changes = [{ change: 'componentsAttached', name: u.name, count: words.length, check: false }] as const
  return ok(outcome(tree, { put: [next.value.unit], changes }))
}
