/** What metastat says of a RAID5 device and its columns (driver.md 4.8, commands.md 4.5). */
import type { ColumnsReport, ComponentReport, Raid5Report, Raid5Work, ResyncReport } from '../msg/report.js'
import type { LiveStatus } from './kind.js'
import { columnData } from './raid5geometry.js'
import { isGrowing, isInService, membersOf, type Raid5State, raid5StateOf, servingColumns } from './raid5tables.js'
import { configured } from './standing.js'
import { parentOf } from './tree.js'
import type { Column, ColumnState, Raid5Unit, Tree } from './types.js'

const isMissing = (c: Column, live: LiveStatus): boolean => isInService(c) && live.isMissing(c)

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
  const serving = servingColumns(u)
  const missing = serving.filter((c) => isMissing(c, live)).length
  return missing > 0 && missing + serving.filter((c) => !isInService(c)).length > 1
}

const STATE_TEXTS: Readonly<Record<Raid5State, string>> = {
  resyncing: 'Resyncing',
  waiting: 'Needs Maintenance',
  initializing: 'Initializing',
  okay: 'Okay',
  erred: 'Needs Maintenance',
  lastErred: 'Needs Maintenance',
  initFailed: 'Initialization Failed',
  regen: 'Regen',
}

/** The blank at the end is where SVM names a set. */
const PROBE = 'metastat -i '

/** The column that failed first. */
const firstWith = (u: Raid5Unit, ...states: readonly ColumnState[]): Column | undefined =>
  u.columns.filter((c) => states.includes(c.state)).sort((a, b) => a.erredOrder - b.erredOrder)[0]

const invoke = (u: Raid5Unit, state: Raid5State, live: LiveStatus): string | null => {
  const replace = (c: Column | undefined, force: string): string | null =>
    c === undefined ? null : `metareplace ${force}${u.name} ${configured(c).name} <new device>`
  switch (state) {
    case 'initFailed':
      return `metaclear -f ${u.name}`
    case 'erred':
      return replace(firstWith(u, 'erred', 'initErred'), '')
    case 'lastErred':
      return replace(firstWith(u, 'erred', 'resync', 'initErred'), '-f ') ?? replace(firstWith(u, 'lastErred'), '-f  ')
    case 'waiting':
      // What it is copied to is away: the copy begins when that is found again.
      return u.copy !== null && isMissing(u.copy.to, live) ? PROBE : `metasync ${u.name}`
    case 'resyncing':
    case 'initializing':
    case 'okay':
    case 'regen':
      return null
  }
}

const workOf = (u: Raid5Unit, state: Raid5State, running: ResyncReport | null): Raid5Work | null => {
  const of = (work: Raid5Work['work']): Raid5Work => ({
    work,
    running: running !== null,
    doneBlocks: running?.doneBlocks ?? 0,
    totalBlocks: running?.totalBlocks ?? columnData(u),
  })
  if (state === 'resyncing') return running === null ? null : of('resync')
  if (state === 'initializing') return of('initialisation')
  if (state === 'regen') return of('regeneration')
  // Columns that are to join: the others go on serving.
  return running !== null && isGrowing(u) ? of('initialisation') : null
}

export const reportRaid5 = (u: Raid5Unit, tree: Tree, live: LiveStatus, tab: string): Raid5Report => {
  const one = (column: Column): ComponentReport => {
    // What it is copied to is shown in its place, as driver.md 4.9 has it in the record.
    const c = u.copy !== null && u.columns[u.copy.of] === column ? u.copy.to : column
    return {
      device: configured(c).name,
      // Of a hot spare that stands in, under the name of what it stands in for.
      startBlock: c.start + u.prewrite,
      hasReplica: live.hasReplica(c),
      state: columnText(c, live),
      changed: c.changed,
      relocatable: live.deviceId(configured(c)) !== null,
      hotSpare: column.spare === null ? null : column.name,
    }
  }
  const columns = (of: readonly Column[], holding: number): ColumnsReport => ({
    size: columnData(u) * holding,
    columns: of.map(one),
  })
  const attached = u.columns.slice(u.originals)
  const running = live.resync(u.name)
  const state = raid5StateOf(u, running !== null)
  const unavailable = isUnavailable(u, live)
  return {
    kind: 'raid5',
    name: u.name,
    parent: parentOf(tree, u.name)?.name ?? null,
    size: u.blocks,
    state: unavailable ? 'Unavailable' : STATE_TEXTS[state],
    changed: Math.max(...membersOf(u).map((c) => c.changed)),
    invoke: unavailable ? PROBE : invoke(u, state, live),
    work: workOf(u, state, running),
    hotSparePool: u.hotSparePool,
    interlace: u.interlace,
    original: columns(u.columns.slice(0, u.originals), u.originals - 1),
    attached: attached.length === 0 ? null : columns(attached, attached.length),
    tab,
  }
}
