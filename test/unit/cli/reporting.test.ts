import t from 'tap'
import { watchLine } from '../../../src/cli/stat-watch.js'
import type { Reply } from '../../../src/ctl/protocol.js'
import { metaError } from '../../../src/msg/errors.js'
import type { ReplicaReport, StatReport } from '../../../src/msg/report.js'
import { done, run } from './fake.js'
import { busy, mirror, raid5 } from './reports.js'

const stat = (report: StatReport, status = 0, ...before: Reply[]): Reply[] => [
  ...before,
  { reply: 'stat', report },
  done(status),
]

t.test('metastat: which parts are printed', async (t) => {
  const long = await run(t, 'metastat', [stat(busy)])
  t.match(long, { status: 0, err: '', asked: [{ op: 'stat', probe: false, names: [] }] })
  t.match(long.out, /^d50: Mirror\n[^]*\n\nDevice Relocation Information:\nDevice {7}Reloc\tDevice ID\n/)
  const q = await run(t, 'metastat -q', [stat(busy)])
  t.equal(q.out, long.out.slice(0, long.out.indexOf('Device Relocation')))
  const failed = await run(t, 'metastat d50 d9', [
    stat(busy, 1, { reply: 'error', error: metaError('unitNotSetUp', 'd9') }),
  ])
  t.equal(failed.status, 1)
  t.equal(failed.err, 'metastat: ada: d9: unit not set up\n\n')
  t.equal(failed.out, q.out, 'an error takes the relocation table away')
  t.equal((await run(t, 'metastat -a', [stat(busy)])).out, `${long.out}\n`)
  t.match((await run(t, 'metastat -tq', [stat(busy)])).out, /Time\n/)
  t.equal((await run(t, 'metastat -r', [stat(busy)])).out, long.out)
  t.match((await run(t, 'metastat -c', [stat(busy)])).out, /^d50 {14}m {2}100MB d51 d52 \(resync-25%\)\n/)
  t.match((await run(t, 'metastat -p', [stat(busy)])).out, /^d50 -m d51 d52 1\nd51 1 1 /)
  t.match((await run(t, 'metastat -Dq', [stat(busy)])).out, /^backup: Concat\/Stripe\n/)
  t.equal((await run(t, 'metastat -Bq', [stat(busy)])).out, '')
})

t.test('metastat: a stale database is said first, but not among the lines of -p', async (t) => {
  const banner = '****\nWARNING: Stale state database replicas. Metastat output may be inaccurate.\n****\n\n'
  const stale = { ...busy, stale: true }
  t.ok((await run(t, 'metastat', [stat(stale)])).out.startsWith(`${banner}d50: Mirror\n`))
  t.ok((await run(t, 'metastat -c', [stat(stale)])).out.startsWith(banner))
  const p = await run(t, 'metastat -p', [stat(stale)])
  t.ok(p.out.startsWith('d50 -m'))
  t.equal(p.err, banner)
})

t.test('metastat --json is the report with a schema number', async (t) => {
  const ran = await run(t, 'metastat --json', [stat(busy)])
  t.strictSame(JSON.parse(ran.out), { schema: 1, ...busy })
})

t.test('metastat -i without the right words it in its own way', async (t) => {
  const refused: Reply[][] = [[{ reply: 'error', error: metaError('notRoot') }, done(1)]]
  t.match(await run(t, 'metastat -i', refused), {
    status: 1,
    err: 'metastat: -i option requires super-user privilages\n',
  })
  t.match(await run(t, 'metastat', refused), {
    status: 1,
    err: 'metastat: ada: Permission denied.  You must have root privilege to execute this command.\n\n',
  })
})

t.test('metastat --watch stops when nothing resyncs', async (t) => {
  const quiet: StatReport = {
    ...busy,
    units: busy.units.map((u) => (u.kind === 'mirror' ? { ...u, resync: null } : u)),
  }
  const ran = await run(t, 'metastat --watch=1', [stat(busy), stat(quiet)])
  t.equal(ran.status, 0)
  t.equal(ran.out, 'd50: Resync in progress: 25 % done\nd50: Resyncing\n')
  t.equal(ran.asked.length, 2)
  t.match(
    await run(t, 'metastat --watch d9', [[{ reply: 'error', error: metaError('unitNotSetUp', 'd9') }, done(1)]]),
    {
      status: 1,
      out: '',
    },
  )
})

t.test('metastat --watch tells speed and what is left', (t) => {
  const m = mirror('d1', { size: 4096000, resync: { state: 'running', doneBlocks: 409600, totalBlocks: 4096000 } })
  t.equal(
    watchLine(m, { atMs: 1000, doneBlocks: 204800 }, 3000),
    'd1: Resync in progress: 10 % done, 50 MB/s, 0:00:36 left',
  )
  t.equal(watchLine(m, { atMs: 1000, doneBlocks: 409600 }, 3000), 'd1: Resync in progress: 10 % done')
  t.equal(watchLine({ ...m, resync: null }, undefined, 0), 'd1: -')
  const work = { work: 'initialisation', running: true, doneBlocks: 409600, totalBlocks: 4096000 } as const
  const r = raid5('d5', [], { state: 'Initializing', work })
  t.equal(
    watchLine(r, { atMs: 1000, doneBlocks: 204800 }, 3000),
    'd5: Initialization in progress: 10.0 % done, 50 MB/s, 0:00:36 left',
  )
  t.equal(
    watchLine(raid5('d5', [], { state: 'Initializing', work: { ...work, running: false } }), undefined, 0),
    'd5: Initializing',
  )
  t.end()
})

const replicas: readonly ReplicaReport[] = [
  { path: '/srv/r1', flags: '     a m  pc luo    ', firstBlock: 16, blocks: 8192, problem: null },
  { path: '/srv/r1', flags: '     a    pc luo    ', firstBlock: 8208, blocks: 8192, problem: null },
  { path: '/srv/r2', flags: '    M     p         ', firstBlock: null, blocks: null, problem: 'missing' },
]
const list = '\tflags\t\tfirst blk\tblock count\n     a m  pc luo    \t16\t\t8192\t\t/srv/r1\n     a    pc luo    \t8208\t\t8192\t\t/srv/r1\n    M     p         \tunknown\t\tunknown\t\t/srv/r2\n' // prettier-ignore

t.test('metadb: list, legend, JSON', async (t) => {
  const script: Reply[][] = [[{ reply: 'replicas', replicas }, done()]]
  t.match(await run(t, 'metadb', script), { status: 0, out: list, err: '' })
  const legend = await run(t, 'metadb -i', script)
  t.ok(legend.out.startsWith(`${list} r - replica does not have device relocation information\n o - `))
  t.match(legend.out, " c - replica's location was in ROOT/etc/mddb.cf\n")
  t.equal(legend.out.split('\n').length, 4 + 16 + 1)
  t.equal(legend.err, 'metadb: /srv/r2: missing\n')
  t.strictSame(JSON.parse((await run(t, 'metadb --json', script)).out), { schema: 1, replicas })
  t.match(await run(t, 'metadb -i', [[{ reply: 'replicas', replicas: [] }, done()]]), { status: 0, out: '', err: '' })
})

t.test('boot forms', async (t) => {
  const none: Reply[][] = [[{ reply: 'error', error: metaError('noDatabases') }, done(1)]]
  t.match(await run(t, 'metainit -r', none), { status: 0, out: '', err: '' })
  t.match(await run(t, 'metasync -r', none), { status: 0, out: '', err: '' })
  t.match(await run(t, 'metainit -r', [stat(busy)]), { status: 0, out: '', err: '' })
  t.match(await run(t, 'metainit -r', [stat({ ...busy, stale: true })]), {
    status: 66,
    out: '',
    err: 'metainit: ada: stale databases\n\n',
  })
  const passes = { ...busy, units: [mirror('a', { pass: 3 }), mirror('b', { pass: 0 }), mirror('c', { pass: 1 })] }
  const synced = await run(t, 'metasync -r 64', [stat(passes), [done()]])
  t.strictSame(synced.asked[1], {
    op: 'sync',
    cancel: false,
    parity: false,
    restart: true,
    verify: null,
    bufferBlocks: 64,
    names: [],
  })
  t.equal((await run(t, 'metasync -r', [stat({ ...busy, units: [] }), [done()]])).asked.length, 2)
})

t.test('metasync --verify: what differs, and the status that says so', async (t) => {
  const kind: 'mirror' | 'raid5' = 'mirror'
  const report = { name: 'd0', kind, repaired: false, mismatchBlocks: 3, ranges: [{ block: 8, blocks: 3 }] }
  const script = (r: typeof report): Reply[][] => [[{ reply: 'verified', report: r }, done()]]
  t.match(await run(t, 'metasync --verify d0', script(report)), { status: 2, out: 'd0: 3 blocks differ\n    8-10\n' })
  const repaired = { ...report, repaired: true }
  t.match(await run(t, 'metasync --verify --repair d0', script(repaired)), { status: 0, out: /were made equal/ })
  const equal = { ...report, mismatchBlocks: 0, ranges: [] }
  t.match(await run(t, 'metasync --verify d0', script(equal)), { status: 0, out: 'd0: submirrors are equal\n' })
  const json = await run(t, 'metasync --verify --json d0', script(report))
  t.equal(json.status, 2)
  t.strictSame(JSON.parse(json.out), { schema: 1, verified: [report] })
})
