import t from 'tap'
import { conciseReport, tabReport } from '../../../src/cli/stat-short.js'
import type { StatReport } from '../../../src/msg/report.js'
import { busy, component, mirror, pool, raid5, stripe } from './reports.js'

t.test('-p: submirrors after their mirror, rows on lines of their own', (t) => {
  t.equal(
    tabReport(busy),
    'd50 -m d51 d52 1\nd51 1 1 /srv/a.img\nd52 1 1 /srv/b.img -h hsp009\nbackup 2 2 vdb vdc -i 64b \\\n\t 1 c9t0d0s0\n',
  )
  t.equal(tabReport({ ...busy, show: ['d52'] }), 'd52 1 1 /srv/b.img -h hsp009\n')
  t.end()
})

t.test('-c: one line per device, names in sixteen columns', (t) => {
  t.equal(
    conciseReport(busy),
    [
      'd50              m  100MB d51 d52 (resync-25%)',
      '    d51          s  100MB /srv/a.img',
      '    d52          s  100MB /srv/b.img (resyncing-/srv/s.img)',
      'backup           s  6.0GB vdb vdc c9t0d0s0',
      '',
    ].join('\n'),
  )
  t.end()
})

t.test('hot spare pools: no size, members with their states', (t) => {
  const spares = [
    pool('hsp001', [
      ['c4t1d0s0', 'In use', 17685888],
      ['c4t2d0s0', 'Available', 17685888],
      ['/srv/s.img', 'Broken', 2048],
    ]),
    pool('hsp002', []),
  ]
  const r: StatReport = { stale: false, units: spares, show: ['hsp001', 'hsp002'], relocation: [] }
  t.equal(tabReport(r), 'hsp001 c4t1d0s0 c4t2d0s0 /srv/s.img\nhsp002\n')
  t.equal(
    conciseReport(r),
    'hsp001           h      - c4t1d0s0 (in-use) c4t2d0s0 /srv/s.img (broken)\nhsp002           h      -\n',
  )
  t.end()
})

t.test('-c: every word in parentheses', (t) => {
  const states: readonly (readonly [string, string | null])[] = [
    ['Okay', null],
    ['Needs maintenance', 'metaonline m a1'],
    ['Needs maintenance', 'metareplace m x <new device>'],
    ['Resync cancelled', 'metasync m'],
    ['Unavailable', null],
    ['strange', null],
  ]
  const components = ['Okay', 'Maintenance', 'Last Erred', 'Resyncing', 'Unavailable', 'invalid', '-']
  const r: StatReport = {
    stale: false,
    units: [
      mirror('m', {
        submirrors: states.map(([state, invoke], slot) => ({
          slot,
          name: `a${slot}`,
          state,
          changed: 0,
          invoke,
          offline: slot === 1,
        })),
      }),
      stripe(
        'w',
        components.map((state) => component('x', { state })),
        { size: 0 },
      ),
      stripe('h', [component('x', { hotSpare: 'y' }), component('x', { hotSpare: 'y', state: 'Maintenance' })]),
    ],
    show: ['m', 'w', 'h'],
    relocation: [],
  }
  t.equal(
    conciseReport(r),
    [
      'm                m  100MB a0 a1 (offline) a2 (maint) a3 (maint) a4 (unavail) a5 (unknown)',
      'w                s      - x x (maint) x (last-erred) x (resyncing) x (unavail) x (invalid) x',
      'h                s  100MB x (spared-y) x (maint-y)',
      '',
    ].join('\n'),
  )
  t.end()
})

t.test('RAID5: every column, those that were attached too', (t) => {
  const states = ['Okay', 'Maintenance', 'Last Erred', 'Resyncing', 'Unavailable', 'Initializing']
  const columns = states.map((state, i) => component(`vd${i}`, { state }))
  const spared = { size: 1, columns: [component('vdx', { hotSpare: 'vds' })] }
  const r: StatReport = {
    stale: false,
    units: [raid5('vol', columns, { attached: spared })],
    show: ['vol'],
    relocation: [],
  }
  t.equal(
    conciseReport(r),
    'vol              r  200MB vd0 vd1 (maint) vd2 (last-erred) vd3 (resyncing) vd4 (unavail) vd5 (initializing) vdx (spared-vds)\n',
  )
  t.equal(tabReport(r), 'vol -r vd0 vd1 vd2 vd3 vd4 vd5 -k -i 1024b\n')
  t.end()
})
