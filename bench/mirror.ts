/** bench/mirror: the costs of mirroring as tables, in bench/RESULTS.md below those of bench/run. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { copies, firstWrites, hotRegions, meanwhile, type MirrorPace, type Place, type Table } from './lib/mirror.js'
import { TOP } from './lib/process.js'
import { commit, markdown, withSection } from './lib/report.js'

const USAGE = `usage: bench/mirror [--only hot|first|copy|meanwhile]... [--rounds N] [--seconds S] [--megabytes N] [--dir DIR] [--no-results]
  --only WHAT     hot regions, first writes to clean ones, copies, clients meanwhile; may be repeated
  --rounds N      of each pair (default 5)
  --seconds S     of each run of a load (default 1)
  --megabytes N   of the sides that are copied (default 2048; at most 512 on tmpfs, twice as many under a load)
  --dir DIR       a directory on the disk to measure (default: the temporary directory)
  --no-results    leave bench/RESULTS.md alone (also with --only)
`
const SECTION = 'Mirrors: log, resync, clients meanwhile'

const main = async (): Promise<number> => {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', multiple: true },
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
  const pace: MirrorPace = {
    rounds: Number(values.rounds ?? 5),
    seconds: Number(values.seconds ?? 1),
    megabytes: Number(values.megabytes ?? 2048),
  }
  if (!(pace.rounds >= 1) || !(pace.seconds > 0) || !(pace.megabytes >= 64)) {
    process.stderr.write(USAGE)
    return 2
  }
  const disk: Place = { name: 'disk', dir: mkdtempSync(join(values.dir ?? tmpdir(), 'metadisk-bench-')) }
  const tmpfs: Place = { name: 'tmpfs', dir: mkdtempSync('/dev/shm/metadisk-bench-') }
  const small = { ...pace, megabytes: Math.min(pace.megabytes, 512) }
  const say = (line: string): void => {
    process.stderr.write(`${line}\n`)
  }
  const parts: readonly (readonly [string, () => Promise<Table>])[] = [
    ['hot', () => hotRegions(tmpfs, pace, say)],
    ['first', () => firstWrites(tmpfs, disk, pace, say)],
    ['copy', () => copies(tmpfs, small, say)],
    ['copy', () => copies(disk, pace, say)],
    ['meanwhile', () => meanwhile(disk, { ...pace, megabytes: 2 * pace.megabytes }, say)],
  ]
  const made: Table[] = []
  try {
    for (const [what, measure] of parts)
      if (values.only === undefined || values.only.includes(what)) made.push(await measure())
  } finally {
    for (const { dir } of [disk, tmpfs]) rmSync(dir, { recursive: true, force: true })
  }
  const text = made.map((t) => `### ${t.title}\n\n${markdown(t.head, t.rows)}`).join('\n\n')
  process.stdout.write(`${text}\n`)
  if (values.only !== undefined || values['no-results'] === true) return 0
  const file = join(TOP, 'bench/RESULTS.md')
  const before = existsSync(file) ? readFileSync(file, 'utf8') : '# Results\n'
  const pacing = `By \`bench/mirror\` at commit ${await commit()}: ${pace.rounds} rounds, medians; ratios are medians of per-round ratios.`
  writeFileSync(file, withSection(before, SECTION, `${pacing}\n\n${text}`))
  return 0
}

process.exitCode = await main().catch((e: unknown) => {
  process.stderr.write(`${e instanceof Error ? e.message : String(e)}\n`)
  return 1
})
