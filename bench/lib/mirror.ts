/**
 * The costs that only a mirror has, each against what it would be without: the dirty region log of a hot
 * region and of a clean one, a resync against a plain copy of the same files, clients while one runs.
 */
import { closeSync, fdatasyncSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { makeFile } from './measure.js'
import { load, type LoadReport } from './nbdload.js'
import { must, sleep, until } from './process.js'
import { median } from './report.js'
import { engineOnly, Metad, type Target } from './servers.js'
import type { PartPace, Place, Say, Table } from './part.js'

/** The least a region can be (blocks of 512 bytes): 1 MiB. */
const REGION_BLOCKS = 2048
const REGION_BYTES = REGION_BLOCKS * 512

const times = (n: number): readonly number[] => Array.from({ length: n }, (_, i) => i)

const measured = async (target: Target, ...words: readonly string[]): Promise<LoadReport> => {
  const { status, report, stderr } = await load([...target.address, ...words, '--server-pid', `${target.pid}`])
  if (status !== 0 || report === undefined) throw new Error(`nbdload: status ${status} ${stderr}`)
  return report
}

/** The same mirror of the same files, its engine with and without a log, in turns. */
export const hotRegions = async ({ dir }: Place, pace: PartPace, say: Say): Promise<Table> => {
  const sides = ['hot1', 'hot2'].map((name) => makeFile(join(dir, name), 128))
  const without = await engineOnly(dir, 'mirror', sides, [])
  const logged = await engineOnly(dir, 'mirror', sides, ['--regions', `${REGION_BLOCKS}`])
  const rows: string[][] = []
  try {
    for (const depth of [1, 16, 64]) {
      const ratios: number[] = []
      const cpus: number[] = []
      const speeds: number[] = []
      for (const round of times(pace.rounds)) {
        const words = ['--rw', 'write', '--bs', '4k', '--span', '64m', '--qd', `${depth}`, '--seed', `${round}`]
        const run = (of: typeof logged): Promise<LoadReport> =>
          measured(of.target, ...words, '--seconds', `${pace.seconds}`, '--warmup', '0.3')
        const order = round % 2 === 0 ? [logged, without] : [without, logged]
        const reports = new Map<typeof logged, LoadReport>()
        for (const one of order) reports.set(one, await run(one))
        const [a, b] = [reports.get(logged), reports.get(without)]
        if (a === undefined || b === undefined) continue
        ratios.push(a.iops / b.iops)
        cpus.push(a.serverCpuMicrosPerRequest / b.serverCpuMicrosPerRequest)
        speeds.push(a.iops)
      }
      rows.push([
        `4K write QD${depth}`,
        `${Math.round(median(speeds))} IOPS`,
        `${median(ratios).toFixed(2)}x`,
        median(cpus).toFixed(2),
      ])
      say(`hot regions: ${rows.at(-1)?.join('  ') ?? ''}`)
    }
  } finally {
    await logged.stop()
    await without.stop()
  }
  return {
    title: 'A hot region: the engine with a dirty region log against none (tmpfs)',
    head: ['workload', 'with log', 'vs without', 'CPU per request'],
    rows,
  }
}

/** What one durable write of a block costs on the same disk: microseconds, median. */
const syncCost = (dir: string): number => {
  const fd = openSync(join(dir, 'sync-cost'), 'w')
  const page = Buffer.alloc(4096, 1)
  writeSync(fd, Buffer.alloc(1 << 20))
  fdatasyncSync(fd)
  const took = times(100).map((i) => {
    const from = performance.now()
    writeSync(fd, page, 0, page.length, (i % 256) * 4096)
    fdatasyncSync(fd)
    return (performance.now() - from) * 1000
  })
  closeSync(fd)
  return median(took)
}

/** d0 of d1, and d2 of the same size to be attached. */
const mirrored = async (
  dir: string,
  name: string,
  megabytes: number,
  conf: string,
  replicaDir: string,
  replicas = 1,
): Promise<{ readonly metad: Metad; readonly sides: readonly string[] }> => {
  const sides = [1, 2].map((i) => makeFile(join(dir, `${name}-side${i}`), megabytes))
  const metad = await Metad.start(join(dir, name), `io = buffered\nlog_level = info\n${conf}`)
  await metad.run('metadb', '-a', '-f', ...times(replicas).map((i) => join(replicaDir, `${name}-replica${i + 1}`)))
  for (const [i, side] of sides.entries()) await metad.run('metainit', `d${i + 1}`, '1', '1', side)
  await metad.run('metainit', 'd0', '-m', 'd1')
  return { metad, sides }
}

const US = (n: number): string => (n >= 1000 ? `${(n / 1000).toFixed(2)} ms` : `${Math.round(n)} us`)

/** Files in memory, replicas on the disk: what is left is the log's commit. */
export const firstWrites = async (place: Place, replicaDir: Place, pace: PartPace, say: Say): Promise<Table> => {
  const rows: string[][] = []
  for (const replicas of [1, 3]) {
    const sync = syncCost(replicaDir.dir)
    const conf = 'region_clean_seconds = 3600\n'
    const { metad } = await mirrored(place.dir, `first${replicas}`, 512, conf, replicaDir.dir, replicas)
    try {
      await metad.run('metattach', 'd0', 'd2')
      await copied(metad, 1)
      const firsts: LoadReport[] = []
      for (const round of times(pace.rounds)) {
        // The log is clean again soon after the last client has gone.
        await sleep(500)
        const words = ['--rw', 'write', '--bs', '4k', '--qd', '1', '--scatter', `${2 * REGION_BYTES}`]
        firsts.push(await measured(metad.target('d0'), ...words, '--seed', `${round}`))
      }
      const hot = await measured(
        metad.target('d0'),
        ...['--rw', 'write', '--bs', '4k', '--qd', '1', '--span', '64m', '--seconds', `${pace.seconds}`],
        ...['--warmup', '1'],
      )
      const of = (p: 'p50' | 'p99'): number => median(firsts.map((r) => r.latencyMicros[p]))
      rows.push([
        `${replicas} replica${replicas > 1 ? 's' : ''} on the disk`,
        US(of('p50')),
        US(of('p99')),
        US(hot.latencyMicros.p50),
        US(sync),
        `${of('p50') <= 2000 ? 'met' : '**missed**'} 2 ms`,
      ])
      say(`first write: ${rows.at(-1)?.join('  ') ?? ''}`)
    } finally {
      await metad.stop()
    }
  }
  return {
    title: 'The first write to a clean region (4K, QD1, every write to another one, none beside one in use)',
    head: ['state database', 'p50', 'p99', 'p50 in a hot region', 'one fdatasync there', 'goal, p50'],
    rows,
  }
}

interface LogLine {
  readonly time: string
  readonly msg: string
}
interface Copy {
  readonly begin: number
  readonly end: number
}

/** The last of `count` copies that metad's log shows, once it is there; milliseconds since the epoch. */
const copied = async (metad: Metad, count: number): Promise<Copy> => {
  const log = join(metad.root, 'metad.log')
  const lines = (): readonly LogLine[] =>
    readFileSync(log, 'utf8')
      .split('\n')
      .flatMap((line) => (/"msg":"resync (?:begins|done|failed)/.test(line) ? [JSON.parse(line) as LogLine] : []))
  await until('the resync ends', () => lines().filter((l) => l.msg !== 'resync begins').length >= count, 600_000)
  const [begin, end] = lines().slice(-2)
  if (begin === undefined || end?.msg !== 'resync done') throw new Error(`the resync failed, see ${log}`)
  return { begin: Date.parse(begin.time), end: Date.parse(end.time) }
}

/** Plain copies of the side by dd, which also ends with a sync, and full resyncs of the same files, in turns. */
export const copies = async ({ name, dir }: Place, pace: PartPace, say: Say): Promise<Table> => {
  const { metad, sides } = await mirrored(dir, `copy-${name}`, pace.megabytes, '', dir)
  const [source = '', target = ''] = sides
  const ratios: number[] = []
  const rates: number[] = []
  try {
    for (const round of times(pace.rounds)) {
      if (round > 0) await metad.run('metadetach', 'd0', 'd2')
      const from = performance.now()
      await must(['dd', `if=${source}`, `of=${target}`, 'bs=1M', 'conv=notrunc,fdatasync', 'status=none'])
      const plain = performance.now() - from
      await metad.run('metattach', 'd0', 'd2')
      const { begin, end } = await copied(metad, round + 1)
      ratios.push(plain / (end - begin))
      rates.push((pace.megabytes * 1000) / (end - begin))
    }
  } finally {
    await metad.stop()
  }
  const row = [`${name}, ${pace.megabytes} MiB`, `${Math.round(median(rates))} MiB/s`, `${median(ratios).toFixed(2)}x`]
  say(`resync: ${row.join('  ')}`)
  return {
    title: `Full resync against dd of the same file to the same file, ${name} (bs=1M, its fdatasync counted)`,
    head: ['files', 'resync', 'vs dd'],
    rows: [row],
  }
}

const LOADS: readonly (readonly [string, readonly string[]])[] = [
  ['4K read QD1', ['--rw', 'read', '--bs', '4k', '--qd', '1']],
  ['4K read QD16', ['--rw', 'read', '--bs', '4k', '--qd', '16']],
  ['4K write QD1', ['--rw', 'write', '--bs', '4k', '--qd', '1', '--span', '64m']],
  ['4K write QD16', ['--rw', 'write', '--bs', '4k', '--qd', '16', '--span', '64m']],
]

/** The same load alone and while the second side is copied. */
export const meanwhile = async ({ name, dir }: Place, pace: PartPace, say: Say): Promise<Table> => {
  const { metad } = await mirrored(dir, `meanwhile-${name}`, pace.megabytes, '', dir)
  const rows: string[][] = []
  let copiesSeen = 0
  const load = (words: readonly string[], seed: number): Promise<LoadReport> =>
    measured(metad.target('d0'), ...words, '--seconds', `${pace.seconds}`, '--warmup', '0.1', '--seed', `${seed}`)
  try {
    for (const [what, words] of LOADS) {
      const quiet: LoadReport[] = []
      const busy: LoadReport[] = []
      const rates: number[] = []
      let outlasted = true
      for (const round of times(pace.rounds)) {
        if (copiesSeen > 0) await metad.run('metadetach', 'd0', 'd2')
        quiet.push(await load(words, round))
        await metad.run('metattach', 'd0', 'd2')
        busy.push(await load(words, round))
        const loadEnded = Date.now()
        const { begin, end } = await copied(metad, ++copiesSeen)
        outlasted &&= end >= loadEnded
        rates.push((pace.megabytes * 1000) / (end - begin))
      }
      const of = (runs: readonly LoadReport[], p: 'p50' | 'p99'): number => median(runs.map((r) => r.latencyMicros[p]))
      const speed = median(busy.map((r, i) => r.iops / (quiet[i]?.iops ?? Number.NaN)))
      rows.push([
        what + (outlasted ? '' : ' (the copy ended first)'),
        `${US(of(quiet, 'p50'))} / ${US(of(quiet, 'p99'))}`,
        `${US(of(busy, 'p50'))} / ${US(of(busy, 'p99'))}`,
        `${speed.toFixed(2)}x`,
        `${Math.round(median(rates))} MiB/s`,
      ])
      say(`while resyncing: ${rows.at(-1)?.join('  ') ?? ''}`)
    }
  } finally {
    await metad.stop()
  }
  return {
    title: `Clients while a side of ${pace.megabytes} MiB is copied, ${name} (one side in step against the same and a copy)`,
    head: ['workload', 'alone, p50 / p99', 'with the copy', 'IOPS', 'the copy, until its end'],
    rows,
  }
}
