import t from 'tap'
import { longReport } from '../../../src/cli/stat-long.js'
import type { StatReport } from '../../../src/msg/report.js'
import { NOON, busy, component, mirror, pool, raid5, stripe } from './reports.js'

/** A mark keeps blanks at line ends visible, and editors from eating them. */
const ended = (s: string): string => s.replaceAll('¶', '')

const plain = { times: false, relocation: true }

t.test('everything: trailing blanks and tabs are part of it', (t) => {
  t.equal(
    longReport(busy, plain),
    ended(`d50: Mirror
    Submirror 0: d51
      State: Okay         ¶
    Submirror 2: d52
      State: Resyncing    ¶
    Resync in progress: 25 % done
    Pass: 1
    Read option: roundrobin (default)
    Write option: parallel (default)
    Size: 204800 blocks (100 MB)

d51: Submirror of d50
    State: Okay         ¶
    Size: 204800 blocks (100 MB)
    Stripe 0:
\tDevice       Start Block  Dbase        State Reloc Hot Spare
\t/srv/a.img          0     No            Okay   Yes ¶


d52: Submirror of d50
    State: Resyncing    ¶
    Hot spare pool: hsp009
    Size: 204800 blocks (100 MB)
    Stripe 0:
\tDevice       Start Block  Dbase        State Reloc Hot Spare
\t/srv/b.img          0     No       Resyncing   Yes /srv/s.img


backup: Concat/Stripe
    Size: 12582912 blocks (6.0 GB)
    Stripe 0: (interlace: 64 blocks)
\tDevice     Start Block  Dbase\tReloc
\tvdb            8208     Yes  \tYes
\tvdc               0     No   \tYes
    Stripe 1:
\tDevice     Start Block  Dbase\tReloc
\tc9t0d0s0      10176     No   \tNo ¶

Device Relocation Information:
Device       Reloc\tDevice ID
/srv/a.img   Yes  \tid1,file@1
vdb          No   \t-
`),
  )
  t.end()
})

t.test('-t: times and narrow columns; a submirror by name alone', (t) => {
  t.equal(
    longReport({ ...busy, show: ['d52'] }, { times: true, relocation: false }),
    ended(`d52: Submirror of d50
    State: Resyncing    Tue Mar  4 12:00:01 2031
    Hot spare pool: hsp009
    Size: 204800 blocks (100 MB)
    Stripe 0:
\tDevice       Start Dbase State       Reloc Hot Spare Time
\t/srv/b.img       0 No    Resyncing   Yes   /srv/s.img Tue Mar  4 12:00:00 2031

`),
  )
  t.end()
})

const one = (u: StatReport['units'], show: string): string =>
  longReport({ stale: false, units: u, show: [show], relocation: [] }, plain)

t.test('a failed component asks for action; an unavailable one for a probe', (t) => {
  const units = [
    mirror('d1', {
      submirrors: [
        {
          slot: 0,
          name: 'd2',
          state: 'Needs maintenance',
          changed: 0,
          invoke: 'metareplace d1 vdb <new device>',
          offline: false,
        },
        { slot: 1, name: 'd3', state: 'Unavailable', changed: NOON, invoke: null, offline: false },
      ],
      resync: { state: 'cancelled', doneBlocks: 1, totalBlocks: 3 },
      read: 'geometric',
      write: 'serial',
      pass: 0,
    }),
    stripe('d2', [component('vdb', { state: 'Maintenance' })], { parent: 'd1' }),
    stripe('d3', [component('vdc', { state: '-' })], { parent: 'd1', unavailable: true }),
  ]
  t.equal(
    one(units, 'd1'),
    ended(`d1: Mirror
    Submirror 0: d2
      State: Needs maintenance ¶
    Submirror 1: d3
      State: Unavailable  ¶
    Resync cancelled: 33 % done
    Pass: 0
    Read option: geometric (-g)
    Write option: serial (-S)
    Size: 204800 blocks (100 MB)

d2: Submirror of d1
    State: Needs maintenance ¶
    Invoke: metareplace d1 vdb <new device>
    Size: 204800 blocks (100 MB)
    Stripe 0:
\tDevice   Start Block  Dbase        State Reloc Hot Spare
\tvdb             0     No     Maintenance   Yes ¶


d3: Submirror of d1
    State: Unavailable
    Reconnect disk and invoke: metastat -i
    Size: 204800 blocks (100 MB)
    Stripe 0:
\tDevice   Start Block  Dbase        State Reloc Hot Spare
\tvdc             0     No               -   Yes ¶


`),
  )
  t.match(
    longReport({ stale: false, units, show: ['d2'], relocation: [] }, { times: true, relocation: true }),
    '(invalid time)',
  )
  t.end()
})

t.test('large mirrors count tenths; names without a unit print nothing', (t) => {
  const big = mirror('m', {
    size: 2 ** 32,
    read: 'first',
    resync: { state: 'running', doneBlocks: 37, totalBlocks: 1000 },
  })
  t.match(one([big], 'm'), '    Resync in progress:  3.7 % done\n')
  t.match(one([big], 'm'), '    Read option: first (-r)\n')
  t.equal(one([big], 'd9'), '')
  t.end()
})

t.test('hot spare pools: tab before the heading, blanks before the rows', (t) => {
  const r: StatReport = {
    stale: false,
    units: [
      pool('hsp001', [
        ['c4t1d0s0', 'In use', 17685888],
        ['c4t2d0s0', 'Available', 17685888],
      ]),
      pool('hsp002', []),
      pool('one', [['sdq', 'Broken', 9]]),
    ],
    show: ['hsp001', 'hsp002', 'one'],
    relocation: [],
  }
  t.equal(
    longReport(r, { times: false, relocation: true }),
    [
      'hsp001: 2 hot spares',
      '\tDevice     Status      Length  \t\tReloc',
      '        c4t1d0s0   In use       17685888 blocks\tYes',
      '        c4t2d0s0   Available    17685888 blocks\tYes',
      '',
      'hsp002: is empty',
      '',
      'one: 1 hot spare',
      '\tDevice   Status      Length  \t\tReloc',
      '        sdq      Broken       9 blocks\tYes',
      '',
      '',
    ].join('\n'),
  )
  t.equal(
    longReport({ ...r, show: ['one'] }, { times: true, relocation: false }),
    'one: 1 hot spare\n\tDevice   Status      Length  \t\tReloc\n' +
      '        sdq     \t    Broken             9 blocksYes\tTue Mar  4 12:00:00 2031\n\n',
  )
  t.end()
})

const COLUMNS = ['/srv/a.img', 'vdb', 'c9t0d0s0'].map((d) => component(d, { startBlock: 10240 }))
const shown = (r: StatReport['units'][number], times = false): string =>
  longReport({ stale: false, units: [r], show: [r.name], relocation: [] }, { times, relocation: false })

t.test('RAID5: state, work, columns', (t) => {
  t.equal(
    shown(raid5('vol', COLUMNS, { hotSparePool: 'hsp009' })),
    ended(`vol: RAID
    State: Okay         ¶
    Hot spare pool: hsp009
    Interlace: 1024 blocks
    Size: 409600 blocks (200 MB)
Original device:
    Size: 410624 blocks (200 MB)
\tDevice       Start Block  Dbase        State Reloc  Hot Spare
\t/srv/a.img      10240        No         Okay   Yes ¶
\tvdb             10240        No         Okay   Yes ¶
\tc9t0d0s0        10240        No         Okay   Yes ¶

`),
  )
  const bad = [
    component('vdb', { startBlock: 10240, hasReplica: true, state: 'Maintenance', relocatable: false }),
    component('vdc', { startBlock: 12288, state: 'Last Erred', hotSpare: 'vds' }),
    component('vdd', { startBlock: 10240, state: 'Unavailable' }),
  ]
  const attached = { size: 205312, columns: [component('c10t11d12s3', { startBlock: 10240, state: 'Initializing' })] }
  const work = { work: 'initialisation', running: true, doneBlocks: 74, totalBlocks: 1000 } as const
  t.equal(
    shown(
      raid5('vol', bad, { state: 'Needs Maintenance', invoke: 'metareplace -f vol vdb <new device>', attached, work }),
    ),
    ended(`vol: RAID
    State: Needs Maintenance ¶
    Invoke: metareplace -f vol vdb <new device>
    Initialization in progress:  7.4% done
    Interlace: 1024 blocks
    Size: 409600 blocks (200 MB)
Original device:
    Size: 410624 blocks (200 MB)
\tDevice        Start Block  Dbase        State Reloc  Hot Spare
\tvdb              10240       Yes  Maintenance   No  ¶
\tvdc              12288        No   Last Erred   Yes vds
\tvdd              10240        No  Unavailable   Yes ¶
Concatenated Devices:
    Size: 205312 blocks (100 MB)
\tDevice        Start Block  Dbase State        Reloc Hot Spare
\tc10t11d12s3      10240        No Initializing   Yes ¶

`),
  )
  const lines = (work: { work: 'resync' | 'regeneration'; doneBlocks: number; totalBlocks: number }): string[] =>
    shown(raid5('vol', COLUMNS, { work: { running: true, ...work } }))
      .split('\n')
      .slice(2, 3)
  t.same(lines({ work: 'resync', doneBlocks: 999, totalBlocks: 1000 }), ['    Resync in progress: 99.9% done'])
  t.same(lines({ work: 'regeneration', doneBlocks: 0, totalBlocks: 1000 }), [
    '    Parity regeneration in progress:  0.0% done',
  ])
  t.end()
})

t.test('RAID5 with times', (t) => {
  const time = 'Tue Mar  4 12:00:00 2031'
  const attached = { size: 205312, columns: [component('vdd', { startBlock: 10240 })] }
  const columns = [component('c9t0d0s0', { startBlock: 10240, hotSpare: 'c9t9d0s0', state: 'Resyncing' })]
  t.equal(
    shown(raid5('vol', columns, { attached }), true),
    ended(`vol: RAID
    State: Okay         ${time}
    Interlace: 1024 blocks
    Size: 409600 blocks (200 MB)
Original device:
    Size: 410624 blocks (200 MB)
\tDevice      Start  Dbase  State        Reloc   Hot Spare  Time
\tc9t0d0s0   10240 No    Resyncing   Yes   c9t9d0s0  ${time}
Concatenated Devices:
    Size: 205312 blocks (100 MB)
\tDevice     Start Dbase State       Reloc     Hot Spare\tTime
\tvdd        10240 No    Okay        Yes             ${time}

`),
  )
  t.end()
})
