/** bench/raid5: RAID5 of four columns beside a stripe of four and nbdkit on one file, in bench/RESULTS.md as a section. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { TOP } from './lib/process.js'
import { LOADS, rawColumns, raid5Loads, type Pace, type Place, type Table } from './lib/raid5.js'
import { jobsAlone, jobsMeanwhile } from './lib/raid5jobs.js'
import { commit, markdown, withSection } from './lib/report.js'

const USAGE = `usage: bench/raid5 [--place tmpfs|disk]... [--load WORD]... [--jobs] [--rounds N] [--seconds S] [--megabytes N] [--dir DIR] [--no-results]
  --place WHERE   the medium; both without
  --load WORD     only loads whose name has the word, such as 4K; may be repeated
  --jobs          only what a device does in the background
  --rounds N      of each load (default 5)
  --seconds S     of each run of a load (default 1)
  --megabytes N   of a column (default 192)
  --dir DIR       a directory on the disk to measure (default: the temporary directory)
  --no-results    leave bench/RESULTS.md alone (also with --place, --load and --jobs)
`
const SECTION = 'RAID5'

const main = async (): Promise<number> => {
  const { values } = parseArgs({
    options: {
      place: { type: 'string', multiple: true },
      load: { type: 'string', multiple: true },
      jobs: { type: 'boolean' },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      megabytes: { type: 'string' },
      dir: { type: 'string' },
      'no-results': { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  })
  if (values.help === true) {
    process.stdout.write(USAGE)
    return 0
  }
  const pace: Pace = {
    rounds: Number(values.rounds ?? 5),
    seconds: Number(values.seconds ?? 1),
    megabytes: Number(values.megabytes ?? 192),
  }
  const loads = LOADS.filter((l) => values.load === undefined || values.load.some((word) => l.name.includes(word)))
  if (!(pace.rounds >= 1) || !(pace.seconds > 0) || !(pace.megabytes >= 64) || loads.length === 0) {
    process.stderr.write(USAGE)
    return 2
  }
  const places: readonly Place[] = [
    { name: 'tmpfs', dir: mkdtempSync('/dev/shm/metadisk-bench-') },
    { name: 'disk', dir: mkdtempSync(join(values.dir ?? tmpdir(), 'metadisk-bench-')) },
  ]
  const say = (line: string): void => {
    process.stderr.write(`${line}\n`)
  }
  const made: Table[] = []
  try {
    for (const place of places) {
      if (values.place !== undefined && !values.place.includes(place.name)) continue
      const jobs = values.jobs === true
      if (!jobs) made.push(await raid5Loads(place, pace, loads, say))
      if (!jobs && values.load === undefined) made.push(await rawColumns(place, pace, say))
      if (values.load !== undefined) continue
      made.push(await jobsAlone(place, pace, say))
      made.push(await jobsMeanwhile(place, pace, say))
    }
  } finally {
    for (const { dir } of places) rmSync(dir, { recursive: true, force: true })
  }
  const text = made.map((t) => `### ${t.title}\n\n${markdown(t.head, t.rows)}`).join('\n\n')
  process.stdout.write(`${text}\n`)
  const some = values.place !== undefined || values.load !== undefined || values.jobs === true
  if (some || values['no-results'] === true) return 0
  const file = join(TOP, 'bench/RESULTS.md')
  const before = existsSync(file) ? readFileSync(file, 'utf8') : '# Results\n'
  const pacing = `By \`bench/raid5\` at commit ${await commit()}: ${pace.rounds} rounds, medians; ratios are medians of per-round ratios.`
  writeFileSync(file, withSection(before, SECTION, `${pacing}\n\n${text}`))
  return 0
}

process.exitCode = await main().catch((e: unknown) => {
  process.stderr.write(`${e instanceof Error ? e.message : String(e)}\n`)
  return 1
})
