/**
 * RAID5 of four columns against what the same medium can do otherwise: a stripe of four, one file under nbdkit, the
 * columns written side by side. All are the engine alone, so that the journal can be left out to see its price.
 */
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { makeFile } from './measure.js'
import { load, type LoadReport } from './nbdload.js'
import { must } from './process.js'
import { median } from './report.js'
import { engineOnly, nbdkitFile, type Running } from './servers.js'
import type { PartPace, Place, Say, Table } from './part.js'

type Contender = 'stripe' | 'nbdkit' | 'raid5' | 'unjournalled' | 'degraded'
interface Versus {
  readonly of: Contender
  readonly against: Contender
  /** The least that is wanted on tmpfs. */
  readonly goal?: number
}
export interface Load {
  readonly name: string
  readonly args: readonly string[]
  readonly bytes: boolean
  readonly versus: readonly Versus[]
}

const big = (rw: string): readonly string[] => ['--rw', rw, '--bs', '1m', '--qd', '8', '--sequential']
const small = (rw: string): readonly string[] => ['--rw', rw, '--bs', '4k', '--qd', '64']
const reads: readonly Versus[] = [
  { of: 'raid5', against: 'stripe', goal: 1 },
  { of: 'degraded', against: 'raid5', goal: 0.5 },
]
export const LOADS: readonly Load[] = [
  {
    name: '1M write QD8',
    args: big('write'),
    bytes: true,
    versus: [
      { of: 'unjournalled', against: 'stripe', goal: 0.8 },
      { of: 'raid5', against: 'stripe' },
      { of: 'raid5', against: 'unjournalled' },
      { of: 'degraded', against: 'raid5' },
    ],
  },
  {
    name: '4K write QD64, 64 MiB',
    args: [...small('write'), '--span', '64m'],
    bytes: false,
    versus: [
      { of: 'raid5', against: 'nbdkit', goal: 1 },
      { of: 'raid5', against: 'unjournalled' },
      { of: 'degraded', against: 'raid5' },
    ],
  },
  {
    name: '4K write QD64, everywhere',
    args: small('write'),
    bytes: false,
    versus: [
      { of: 'raid5', against: 'nbdkit', goal: 1 },
      { of: 'raid5', against: 'unjournalled' },
    ],
  },
  { name: '1M read QD8', args: big('read'), bytes: true, versus: reads },
  { name: '4K read QD64', args: small('read'), bytes: false, versus: reads },
]

export const COLUMNS = 4
export const times = (n: number): readonly number[] => Array.from({ length: n }, (_, i) => i)

/** Cache flushes that the disk of this directory has been asked for, since it was found; 0 when it has none. */
const flushesOf = (dir: string): number => {
  const { dev } = statSync(dir)
  const major = `${(dev >> 8) & 0xfff}`
  const minor = `${(dev & 0xff) | ((dev >> 12) & 0xfff00)}`
  for (const line of readFileSync('/proc/diskstats', 'utf8').split('\n')) {
    const words = line.trim().split(/\s+/)
    if (words[0] === major && words[1] === minor) return Number(words[18] ?? 0)
  }
  return 0
}

export const columnsOf = (dir: string, name: string, megabytes: number): readonly string[] =>
  times(COLUMNS).map((i) => makeFile(join(dir, `${name}${i}`), megabytes))

const startAll = async ({ dir }: Place, pace: PartPace): Promise<ReadonlyMap<Contender, Running>> => {
  const raid = (name: string, ...options: readonly string[]): Promise<Running> =>
    engineOnly(dir, 'raid5', columnsOf(dir, name, pace.megabytes), options)
  return new Map<Contender, Running>([
    ['stripe', await engineOnly(dir, 'stripe', columnsOf(dir, 'stripe', pace.megabytes), [])],
    ['nbdkit', await nbdkitFile(dir, makeFile(join(dir, 'one'), pace.megabytes * (COLUMNS - 1)))],
    ['raid5', await raid('raid5-')],
    ['unjournalled', await raid('unjournalled-', '--unjournalled')],
    ['degraded', await raid('degraded-', '--missing', '1')],
  ])
}

interface Run {
  readonly report: LoadReport
  readonly flushesPerSecond: number
}

const measured = async (place: Place, server: Running, args: readonly string[], pace: PartPace): Promise<Run> => {
  const before = flushesOf(place.dir)
  const from = performance.now()
  const words = ['--seconds', `${pace.seconds}`, '--warmup', '0.3', '--server-pid', `${server.target.pid}`]
  const { status, report, stderr } = await load([...server.target.address, ...args, ...words])
  if (status !== 0 || report === undefined) throw new Error(`nbdload: status ${status} ${stderr}`)
  const seconds = (performance.now() - from) / 1000
  return { report, flushesPerSecond: (flushesOf(place.dir) - before) / seconds }
}

const speedOf = (l: Load, r: Run): number => (l.bytes ? r.report.megabytesPerSecond : r.report.iops)

/** Everybody in turns, round by round; the ratios of each round count. */
export const raid5Loads = async (place: Place, pace: PartPace, loads: readonly Load[], say: Say): Promise<Table> => {
  const servers = await startAll(place, pace)
  const rows: string[][] = []
  try {
    for (const l of loads) {
      const wanted = [...servers].filter(([who]) => l.versus.some((v) => v.of === who || v.against === who))
      const runs = new Map<Contender, Run[]>(wanted.map(([who]) => [who, []]))
      for (const round of times(pace.rounds)) {
        const order = round % 2 === 0 ? wanted : wanted.toReversed()
        for (const [who, server] of order)
          runs.get(who)?.push(await measured(place, server, [...l.args, '--seed', `${round}`], pace))
      }
      const of = (who: Contender): readonly Run[] => runs.get(who) ?? []
      for (const { of: a, against: b, goal } of l.versus) {
        const pairs = of(a).flatMap((r, i) => {
          const other = of(b)[i]
          return other === undefined ? [] : [[r, other] as const]
        })
        const ratio = median(pairs.map(([x, y]) => speedOf(l, x) / speedOf(l, y)))
        const cpu = median(
          pairs.map(([x, y]) => x.report.serverCpuMicrosPerRequest / y.report.serverCpuMicrosPerRequest),
        )
        const verdict =
          goal === undefined || place.name !== 'tmpfs' ? '' : ratio >= goal ? `${goal} met` : `**${goal} missed**`
        rows.push([
          l.name,
          a,
          `${Math.round(median(of(a).map((r) => speedOf(l, r))))} ${l.bytes ? 'MB/s' : 'IOPS'}`,
          `${ratio.toFixed(2)}x ${b}`,
          cpu.toFixed(2),
          verdict,
          `${Math.round(median(of(a).map((r) => r.flushesPerSecond)))}`,
        ])
        say(`${place.name}: ${rows.at(-1)?.join('  ') ?? ''}`)
      }
    }
  } finally {
    for (const server of servers.values()) await server.stop()
  }
  return {
    title: `RAID5 of 4 columns of ${pace.megabytes} MiB, interlace 64 KiB, ${place.name}`,
    head: ['workload', 'of', 'median', 'against', 'CPU per request', 'goal', 'disk flushes per second'],
    rows,
  }
}

/** Four files written side by side by dd, their syncs counted, and RAID5 of files of that size under a sequential write. */
export const rawColumns = async (place: Place, pace: PartPace, say: Say): Promise<Table> => {
  const plain = columnsOf(place.dir, 'plain', pace.megabytes)
  const server = await engineOnly(place.dir, 'raid5', columnsOf(place.dir, 'beside', pace.megabytes), [])
  const raws: number[] = []
  const ours: number[] = []
  try {
    for (const round of times(pace.rounds)) {
      const from = performance.now()
      const dd = (of: string): Promise<string> =>
        must([
          'dd',
          'if=/dev/zero',
          `of=${of}`,
          'bs=1M',
          `count=${pace.megabytes}`,
          'conv=notrunc,fdatasync',
          'status=none',
        ])
      await Promise.all(plain.map(dd))
      raws.push((COLUMNS * pace.megabytes * 1.048576 * 1000) / (performance.now() - from))
      const words = ['--rw', 'write', '--bs', '1m', '--qd', '8', '--sequential', '--seed', `${round}`]
      ours.push((await measured(place, server, words, pace)).report.megabytesPerSecond)
    }
  } finally {
    await server.stop()
  }
  const ratio = median(ours.map((r, i) => r / (raws[i] ?? Number.NaN)))
  const row = [
    `${Math.round(median(raws))} MB/s`,
    `${Math.round(median(ours))} MB/s`,
    `${ratio.toFixed(2)}x`,
    '0.75x, 0.38x',
  ]
  say(`${place.name}: columns ${row.join('  ')}`)
  return {
    title: `Sequential writes against the sum of the columns (dd, its fdatasync counted), ${place.name}`,
    head: ['4 dd side by side', 'RAID5, 1M write QD8', 'ratio', 'at most: data of 4, and journaled'],
    rows: [row],
  }
}
