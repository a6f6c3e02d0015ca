import t from 'tap'
import type { Cell } from '../../../bench/lib/measure.js'
import type { LoadReport } from '../../../bench/lib/nbdload.js'
import { median, results, tables, verdicts, withSection } from '../../../bench/lib/report.js'
import { added, type Measured } from '../../../bench/lib/parts.js'
import { type Contender, SECTIONS } from '../../../bench/lib/workloads.js'

const runOf = (iops: number, cpu: number): LoadReport => ({
  iops,
  megabytesPerSecond: iops / 100,
  requests: 1,
  seconds: 1,
  latencyMicros: { p50: 1, p90: 2, p99: 3, p999: 4, max: 5 },
  serverCpuMicrosPerRequest: cpu,
  clientCpuMicrosPerRequest: 1,
  serverCpuSeconds: 1,
  reads: 1,
  writes: 0,
  flushes: 0,
  ioErrors: 0,
  lastErrno: 0,
  disconnects: 0,
  unanswered: 0,
  broken: '',
  verified: { blocks: 0, exact: 0, uncertain: 0, torn: 0, ackedMissing: 0 },
  wrong: { total: 0, kinds: {}, examples: [] },
})
const cell = (workload: string, contender: Contender, speeds: readonly number[], cpu: number): Cell => ({
  section: 'tmpfs',
  workload,
  contender,
  runs: speeds.map((s) => runOf(s, cpu)),
})

t.test('median', async (t) => {
  t.equal(median([3, 1, 2]), 2)
  t.equal(median([10, 2, 4, 1]), 3)
  t.ok(Number.isNaN(median([])))
})

t.test('ratios pair the runs of a round, goals are judged by them', async (t) => {
  // Round by round twice as fast, although the machine slows down by ten in between.
  const cells = [cell('4K read QD16', 'single', [200, 20, 2], 3), cell('4K read QD16', 'nbdkit', [100, 10, 1], 6)]
  const all = verdicts(cells, SECTIONS)
  t.match(all, [{ workload: '4K read QD16', speed: 2, cpu: 0.5, met: true }])
  t.equal(all.length, 1, 'a peer that was not measured is not judged')
  t.match(tables(cells, SECTIONS), /4K read QD16 \| 20 IOPS .* 2\.00x \(0\.50\)/)
})

t.test('a goal on CPU is missed by CPU alone', async (t) => {
  const cells = [cell('1M read QD8', 'single', [200], 5), cell('1M read QD8', 'nbdkit', [100], 6)]
  t.match(verdicts(cells, SECTIONS), [{ speed: 2, met: false }])
  t.match(tables(cells, SECTIONS), /\*\*missed\*\* 1\.4 nbdkit, CPU 0\.6/)
})

t.test('every goal names contenders its section measures', async (t) => {
  for (const s of SECTIONS)
    for (const w of s.workloads)
      for (const g of w.goals)
        t.ok(s.contenders.includes(g.of) && s.contenders.includes(g.against), `${s.id} ${w.name} ${g.against}`)
})

t.test('parts of one commit add up, others are refused', async (t) => {
  const pace = { rounds: 2, seconds: 2, warmup: 0.3, engineOnly: false }
  const part = (commit: string, cells: readonly Cell[]): Measured => ({ pace, commit, cells })
  const read = '4K read QD16'
  const one = part('abc', [cell(read, 'single', [1, 2], 1), cell(read, 'nbdkit', [3, 4], 1)])
  const two = part('abc', [cell(read, 'single', [5], 1), cell(read, 'nbdkit', [6], 1), cell('x', 'single', [7, 8], 1)])
  const all = added([one, two])
  t.same(
    all.cells.map((c) => [c.workload, c.contender, c.runs.map((r) => r.iops)]),
    [
      [read, 'single', [1, 2, 5]],
      [read, 'nbdkit', [3, 4, 6]],
      ['x', 'single', [7, 8]],
    ],
  )
  t.equal(all.pace.rounds, 2, 'the fewest of any')
  t.throws(() => added([one, part('def', [])]), /two commits: abc and def/)
  t.throws(() => added([one, { ...part('abc', []), pace: { ...pace, seconds: 1 } }]), /different lengths/)
  t.throws(() => added([]), /nothing to report/)
})

t.test('a section below the notes is replaced alone, and bench/run keeps it', async (t) => {
  const pace = { rounds: 1, seconds: 1, warmup: 0, engineOnly: false }
  const measured: Measured = { pace, commit: 'abc', cells: [] }
  const first = withSection(await results(measured, SECTIONS, ''), 'Mirrors', 'first body')
  const both = withSection(first, 'Others', 'kept')
  const again = withSection(both, 'Mirrors', 'two')
  t.match(again, /\n## Mirrors\n\ntwo\n\n## Others\n\nkept\n/)
  t.notMatch(again, /first body/)
  t.equal(withSection(again, 'Mirrors', 'two'), again)
  t.match(await results(measured, SECTIONS, again), /## Mirrors\n\ntwo/)
  t.match(withSection('# Results\n', 'Mirrors', 'x'), /# Results\n[^]*\n## Mirrors\n\nx\n$/)
})
