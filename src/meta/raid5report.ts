/** What metastat says of a RAID5 device and its columns (driver.md 4.8, commands.md 4.5). */
import type { ColumnsReport, ComponentReport, Raid5Report, Raid5Work } from '../msg/report.js'
import type { LiveStatus } from './kind.js'
import { columnData } from './raid5geometry.js'
import { configured } from './standing.js'
import { parentOf } from './tree.js'
import type { Column, ColumnState, Raid5Unit, Tree } from './types.js'

const isOut = (c: Column): boolean => c.state === 'erred' || c.state === 'initErred'
const isMissing = (c: Column, live: LiveStatus): boolean => !isOut(c) && live.isMissing(c)

const TEXTS: Readonly<Record<ColumnState, string>> = {
  okay: 'Okay',
  init: 'Initializing',
  initErred: 'Maintenance',
  erred: 'Maintenance',
  lastErred: 'Last Erred',
  resync: 'Resyncing',
}
const columnText = (c: Column, live: LiveStatus): string => (isMissing(c, live) ? 'Unavailable' : TEXTS[c.state])

/** Parity stands for one column; with another that cannot be opened nothing can be served. */
const isUnavailable = (u: Raid5Unit, live: LiveStatus): boolean => {
  const serving = u.columns.slice(0, u.serving)
  const missing = serving.filter((c) => isMissing(c, live)).length
  return missing > 0 && missing + serving.filter(isOut).length > 1
}

const has = (u: Raid5Unit, state: ColumnState, columns: readonly Column[] = u.columns): boolean =>
  columns.some((c) => c.state === state)

/** In SVM's order of tests; a column that waits to join is no reason to call the device anything else. */
const stateText = (u: Raid5Unit, live: LiveStatus): string => {
  const serving = u.columns.slice(0, u.serving)
  if (isUnavailable(u, live)) return 'Unavailable'
  if (has(u, 'resync')) return 'Resyncing'
  if (has(u, 'initErred', serving)) return 'Initialization Failed'
  if (has(u, 'init', serving)) return 'Initializing'
  if (has(u, 'erred') || has(u, 'lastErred') || has(u, 'initErred')) return 'Needs Maintenance'
  return u.regen ? 'Regen' : 'Okay'
}

/** The column that failed first. */
const firstWith = (u: Raid5Unit, ...states: readonly ColumnState[]): Column | undefined =>
  u.columns.filter((c) => states.includes(c.state)).sort((a, b) => a.erredOrder - b.erredOrder)[0]

const invoke = (u: Raid5Unit, live: LiveStatus): string | null => {
  // The blank at the end is where SVM names a set.
  if (isUnavailable(u, live)) return 'metastat -i '
  if (has(u, 'resync')) return null
  if (has(u, 'initErred', u.columns.slice(0, u.serving))) return `metaclear -f ${u.name}`
  const replace = (c: Column, force: string): string =>
    `metareplace ${force}${u.name} ${configured(c).name} <new device>`
  const out = firstWith(u, 'erred', 'initErred')
  const last = firstWith(u, 'lastErred')
  if (out !== undefined) return replace(out, last === undefined ? '' : '-f ')
  return last === undefined ? null : replace(last, '-f  ')
}

const workOf = (u: Raid5Unit, live: LiveStatus): Raid5Work | null => {
  const running = live.resync(u.name)
  const of = (work: Raid5Work['work'], done: number): Raid5Work => ({
    work,
    running: running !== null,
    doneBlocks: running?.doneBlocks ?? done,
    totalBlocks: running?.totalBlocks ?? columnData(u),
  })
  if (has(u, 'resync')) return running === null ? null : of('resync', u.checkpoint?.done ?? 0)
  if (has(u, 'initErred', u.columns.slice(0, u.serving))) return null
  if (has(u, 'init', u.columns.slice(0, u.serving)) || (has(u, 'init') && running !== null))
    return of('initialisation', 0)
  return u.regen ? of('regeneration', 0) : null
}

export const reportRaid5 = (u: Raid5Unit, tree: Tree, live: LiveStatus, tab: string): Raid5Report => {
  const one = (c: Column): ComponentReport => ({
    device: configured(c).name,
    // Of a hot spare that stands in, under the name of what it stands in for.
    startBlock: c.start + u.prewrite,
    hasReplica: live.hasReplica(c),
    state: columnText(c, live),
    changed: c.changed,
    relocatable: live.deviceId(configured(c)) !== null,
    hotSpare: c.spare === null ? null : c.name,
  })
  const columns = (of: readonly Column[], holding: number): ColumnsReport => ({
    size: columnData(u) * holding,
    columns: of.map(one),
  })
  const attached = u.columns.slice(u.originals)
  return {
    kind: 'raid5',
    name: u.name,
    parent: parentOf(tree, u.name)?.name ?? null,
    size: u.blocks,
    state: stateText(u, live),
    changed: Math.max(...u.columns.map((c) => c.changed)),
    invoke: invoke(u, live),
    work: workOf(u, live),
    hotSparePool: u.hotSparePool,
    interlace: u.interlace,
    original: columns(u.columns.slice(0, u.originals), u.originals - 1),
    attached: attached.length === 0 ? null : columns(attached, attached.length),
    tab,
  }
}
