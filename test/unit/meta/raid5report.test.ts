/** What metastat says of a RAID5 device while a column that works is copied, line by line. */
import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { conciseReport } from '../../../src/cli/stat-short.js'
import { longReport } from '../../../src/cli/stat-long.js'
import { CALM, type LiveStatus } from '../../../src/meta/kind.js'
import { reportRaid5 } from '../../../src/meta/raid5report.js'
import { columnData } from '../../../src/meta/raid5geometry.js'
import { withUnits } from '../../../src/meta/tree.js'
import type { Raid5Unit } from '../../../src/meta/types.js'
import type { StatReport } from '../../../src/msg/report.js'
import { name } from './world.js'
import { afterRaid5, raid5, slice } from './raid5s.js'

const after = (...[u, ...events]: Parameters<typeof afterRaid5>): Raid5Unit => {
  const x = afterRaid5(u, ...events)
  if (typeof x === 'string') throw new Error(x)
  return x.unit
}
const COPYING = after(raid5('okay okay okay'), {
  event: 'copy',
  column: 1,
  by: { ...slice('/disks/n'), start: blocks(2048) },
})
const TOTAL = columnData(COPYING)
const at = (perMille: number, more: Partial<LiveStatus> = {}): LiveStatus => ({
  ...CALM,
  resync: () => ({ state: 'running', doneBlocks: Math.ceil((TOTAL * perMille) / 1000), totalBlocks: TOTAL }),
  ...more,
})
const reported = (u: Raid5Unit, live: LiveStatus): StatReport => {
  const unit = reportRaid5(u, withUnits(new Map(), [u]), live, 'd5 -r')
  return { stale: false, units: [unit], show: ['d5'], relocation: [] }
}
const long = (u: Raid5Unit, live: LiveStatus): string =>
  longReport(reported(u, live), { times: false, relocation: false }).replaceAll(/ $/gm, '\u00b6')

t.test('the new disk stands in the place of the old one, Resyncing', async (t) => {
  t.equal(
    long(COPYING, at(415)),
    `d5: RAID
    State: Resyncing   \u00b6
    Resync in progress: 41.5% done
    Interlace: 1024 blocks
    Size: 407552 blocks (199 MB)
Original device:
    Size: 407552 blocks (199 MB)
\tDevice     Start Block  Dbase        State Reloc  Hot Spare
\t/disks/a        320        No         Okay   No \u00b6
\t/disks/n       2368        No    Resyncing   No \u00b6
\t/disks/c        320        No         Okay   No \u00b6

`,
  )
  t.match(conciseReport(reported(COPYING, at(415))), /\/disks\/a \/disks\/n \(resync[^)]*\) \/disks\/c/)
  for (const [done, shown] of [
    [0, ' 0.0'],
    [9, ' 0.9'],
    [999, '99.9'],
  ] as const)
    t.match(long(COPYING, at(done)), `Resync in progress: ${shown}% done`)
})

t.test('a hot spare that is relieved is named beside what it is copied to', async (t) => {
  const spared = after(
    raid5('okay erred okay'),
    { event: 'spare', column: 1, by: slice('/disks/s'), pool: name('hsp001') },
    { event: 'resyncEnd', column: 1, result: 'done', done: blocks(0), failed: null },
    { event: 'copy', column: 1, by: slice('/disks/b') },
  )
  t.match(long(spared, at(500)), /\t\/disks\/b +320 +No +Resyncing +No +\/disks\/s\n/)
})

t.test('a copy that does not run', async (t) => {
  const said = (live: LiveStatus, u = COPYING): readonly string[] => long(u, live).split('\n').slice(1, 3)
  t.same(said(CALM), ['    State: Needs Maintenance\u00b6', '    Invoke: metasync d5'])
  const away = { ...CALM, isMissing: (c: { readonly name: string }) => c.name === '/disks/n' }
  t.same(said(away), ['    State: Needs Maintenance\u00b6', '    Invoke: metastat -i\u00b6'])
  t.match(long(COPYING, away), /\/disks\/n +2368 +No +Unavailable/)
  const another = after(COPYING, { event: 'error', column: 0 })
  t.match(long(another, at(100)), /State: Resyncing[^]*\/disks\/a .* Maintenance[^]*\/disks\/n .* Resyncing/)
})
