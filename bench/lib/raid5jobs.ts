/**
 * What RAID5 does in the background, the engine alone: a column is computed from the others, all are zeroed. Beside it
 * dd, which writes one column, with the same sync at its end; then clients while a column is computed.
 */
import { readFileSync } from 'node:fs'
import { load, type LoadReport } from './nbdload.js'
import { must, until } from './process.js'
import type { PartPace, Place, Say, Table } from './part.js'
import { columnsOf, COLUMNS, times } from './raid5.js'
import { median } from './report.js'
import { engineLog, engineOnly, type Running } from './servers.js'

interface Ended {
  readonly milliseconds: number
  readonly outcome: string
}

/** A server whose job begins when it is asked to. */
class Worker {
  readonly #server: Running
  readonly #log: string
  #begun = 0

  constructor(server: Running, log: string) {
    this.#server = server
    this.#log = log
  }

  get address(): readonly string[] {
    return this.#server.target.address
  }

  get pid(): number {
    return this.#server.target.pid
  }

  begin(): void {
    this.#begun++
    process.kill(this.pid, 'SIGUSR1')
  }

  #ends(): readonly Ended[] {
    const lines = readFileSync(this.#log, 'utf8').matchAll(/^(\d+) (\w+)$/gm)
    return [...lines].map(([, took, outcome]) => ({ milliseconds: Number(took), outcome: outcome ?? '' }))
  }

  get running(): boolean {
    return this.#ends().length < this.#begun
  }

  /** Milliseconds that the last one took. */
  async ended(): Promise<number> {
    await until('the job ends', () => !this.running, 600_000)
    const end = this.#ends().at(-1)
    if (end?.outcome !== 'done') throw new Error(`the job ended as ${end?.outcome ?? ''}, see ${this.#log}`)
    return end.milliseconds
  }

  stop(): Promise<void> {
    return this.#server.stop()
  }
}

const worker = async (dir: string, files: readonly string[], options: readonly string[]): Promise<Worker> =>
  new Worker(await engineOnly(dir, 'raid5', files, options), engineLog(dir, files, options))

const dd = async (from: string, to: string, megabytes: number): Promise<number> => {
  const begun = performance.now()
  const words = [`if=${from}`, `of=${to}`, 'bs=1M', `count=${megabytes}`, 'conv=notrunc,fdatasync', 'status=none']
  await must(['dd', ...words])
  return performance.now() - begun
}

/** Jobs and dd in turns, on the same files. */
export const jobsAlone = async (place: Place, pace: PartPace, say: Say): Promise<Table> => {
  const files = columnsOf(place.dir, 'jobs-', pace.megabytes)
  const [first = '', second = ''] = files
  const rows: string[][] = []
  const kinds = [
    {
      what: 'a column from the others',
      options: ['--regenerate', '1'],
      peer: 'one column to another',
      bytes: pace.megabytes,
      plain: () => dd(first, second, pace.megabytes),
    },
    {
      what: `zeroes on ${COLUMNS} columns`,
      options: ['--initialise'],
      peer: `zeroes to ${COLUMNS}, one after another`,
      bytes: COLUMNS * pace.megabytes,
      plain: async () => {
        let sum = 0
        for (const file of files) sum += await dd('/dev/zero', file, pace.megabytes)
        return sum
      },
    },
  ]
  for (const { what, options, peer, bytes, plain } of kinds) {
    const server = await worker(place.dir, files, options)
    const pairs: (readonly [number, number])[] = []
    try {
      for (const _ of times(pace.rounds)) {
        const theirs = await plain()
        server.begin()
        pairs.push([await server.ended(), theirs])
      }
    } finally {
      await server.stop()
    }
    const rate = (ms: number): string => `${Math.round((bytes * 1000) / ms)} MiB/s`
    rows.push([
      what,
      rate(median(pairs.map(([ours]) => ours))),
      `${rate(median(pairs.map(([, theirs]) => theirs)))} (${peer})`,
      `${median(pairs.map(([ours, theirs]) => theirs / ours)).toFixed(2)}x`,
    ])
    say(`${place.name}: ${rows.at(-1)?.join('  ') ?? ''}`)
  }
  return {
    title: `Jobs of RAID5 on ${COLUMNS} columns of ${pace.megabytes} MiB against dd (bs=1M, its fdatasync counted), ${place.name}`,
    head: ['job', 'speed', 'dd', 'ratio'],
    rows,
  }
}

const LOADS: readonly (readonly [string, readonly string[]])[] = [
  ['4K read QD1', ['--rw', 'read', '--bs', '4k', '--qd', '1']],
  ['4K read QD16', ['--rw', 'read', '--bs', '4k', '--qd', '16']],
  ['4K write QD1', ['--rw', 'write', '--bs', '4k', '--qd', '1', '--span', '64m']],
  ['4K write QD16', ['--rw', 'write', '--bs', '4k', '--qd', '16', '--span', '64m']],
]

const US = (n: number): string => (n >= 1000 ? `${(n / 1000).toFixed(2)} ms` : `${Math.round(n)} us`)

/** The same load on the same degraded device, alone and while its column is computed, again and again. */
export const jobsMeanwhile = async (place: Place, pace: PartPace, say: Say): Promise<Table> => {
  const server = await worker(place.dir, columnsOf(place.dir, 'beside-job-', pace.megabytes), ['--regenerate', '1'])
  const rows: string[][] = []
  const run = async (words: readonly string[], seed: number): Promise<LoadReport> => {
    const options = [
      '--seconds',
      `${pace.seconds}`,
      '--warmup',
      '0.1',
      '--seed',
      `${seed}`,
      '--server-pid',
      `${server.pid}`,
    ]
    const { status, report, stderr } = await load([...server.address, ...words, ...options])
    if (status !== 0 || report === undefined) throw new Error(`nbdload: status ${status} ${stderr}`)
    return report
  }
  try {
    for (const [what, words] of LOADS) {
      const quiet: LoadReport[] = []
      const busy: LoadReport[] = []
      const rates: number[] = []
      for (const round of times(pace.rounds)) {
        quiet.push(await run(words, round))
        // A job that ends first is followed by another.
        let over = false
        const jobs = (async () => {
          while (!over) {
            server.begin()
            rates.push((pace.megabytes * 1000) / (await server.ended()))
          }
        })()
        busy.push(await run(words, round))
        over = true
        await jobs
      }
      const of = (runs: readonly LoadReport[], p: 'p50' | 'p99'): number => median(runs.map((r) => r.latencyMicros[p]))
      rows.push([
        what,
        `${US(of(quiet, 'p50'))} / ${US(of(quiet, 'p99'))}`,
        `${US(of(busy, 'p50'))} / ${US(of(busy, 'p99'))}`,
        `${Math.round(median(busy.map((r) => r.iops)))} IOPS`,
        `${median(busy.map((r, i) => r.iops / (quiet[i]?.iops ?? Number.NaN))).toFixed(2)}x`,
        `${Math.round(median(rates))} MiB/s`,
      ])
      say(`${place.name}, meanwhile: ${rows.at(-1)?.join('  ') ?? ''}`)
    }
  } finally {
    await server.stop()
  }
  return {
    title: `Clients of RAID5 while a column of ${pace.megabytes} MiB is computed, ${place.name}`,
    head: ['workload', 'alone, p50 / p99', 'with the job', 'IOPS', 'against alone', 'the job, until its end'],
    rows,
  }
}
