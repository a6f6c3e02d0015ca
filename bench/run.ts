/** bench/run: metad and its peers on the same files, alternating, as a table of ratios. */
import { existsSync, mkdtempSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type Cell, measureSection, type Pace } from './lib/measure.js'
import { added, type Measured } from './lib/parts.js'
import { TOP } from './lib/process.js'
import { commit, results, tables, verdicts } from './lib/report.js'
import { SECTIONS, type Section } from './lib/workloads.js'

const USAGE = `usage: bench/run [--quick] [--only PATTERN]... [--rounds N] [--seconds S] [--without NAME]... [--dir DIR] [--json FILE] [--engine] [--no-results]
       bench/run --from FILE...
  --only PATTERN  a section and the beginning of its workloads, e.g. tmpfs, "ext4: 4K read", or any part of
                  "section: workload", e.g. "1M read"; may be repeated
  --quick         3 rounds of half a second
  --without NAME  leave a contender out, e.g. qemu
  --dir DIR       a directory on the disk to measure (default: the temporary directory)
  --json FILE     every run in full
  --from FILE     measures nothing: tables and bench/RESULTS.md from what --json wrote, of one commit; several files
                  are added up, so that a long measurement can be made in parts
  --engine        the data plane without metad (bench/engine.ts), with the daemon's defaults
  --no-results    leave bench/RESULTS.md alone (also with --only, --without, --engine or --quick)
`
const TMPFS_MAGIC = 0x01021994

/** A pattern that begins with the name of a section means that section alone. */
const wanted = (pattern: string, section: string, workload: string): boolean => {
  const p = pattern.toLowerCase()
  const [head = ''] = p.split(':')
  if (!SECTIONS.some((s) => s.id === head)) return `${section}: ${workload}`.toLowerCase().includes(p)
  return section === head && `${section}: ${workload}`.toLowerCase().startsWith(p)
}

const chosen = (patterns: readonly string[], without: readonly string[]): readonly Section[] =>
  SECTIONS.map((s) => ({
    ...s,
    contenders: s.contenders.filter((c) => !without.includes(c)),
    ours: s.ours.filter((c) => !without.includes(c)),
    workloads: s.workloads.filter((w) => patterns.length === 0 || patterns.some((p) => wanted(p, s.id, w.name))),
  })).filter((s) => s.workloads.length > 0)

/** The tables, and RESULTS.md when the measurement is whole. */
const report = async (measured: Measured, sections: readonly Section[], write: boolean): Promise<void> => {
  process.stdout.write(`${tables(measured.cells, sections)}\n`)
  const file = join(TOP, 'bench/RESULTS.md')
  if (write) writeFileSync(file, await results(measured, sections, existsSync(file) ? readFileSync(file, 'utf8') : ''))
  const missed = verdicts(measured.cells, sections).filter((v) => !v.met)
  process.stderr.write(missed.length > 0 ? `${missed.length} goals missed\n` : '')
}

const main = async (): Promise<number> => {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean' },
      engine: { type: 'boolean' },
      only: { type: 'string', multiple: true },
      without: { type: 'string', multiple: true },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      dir: { type: 'string' },
      json: { type: 'string' },
      from: { type: 'string', multiple: true },
      'no-results': { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  })
  if (values.help === true) {
    process.stdout.write(USAGE)
    return 0
  }
  if (values.from !== undefined) {
    const parts = values.from.map((file) => JSON.parse(readFileSync(file, 'utf8')) as Measured)
    await report(added(parts), SECTIONS, values['no-results'] !== true)
    return 0
  }
  const quick = values.quick === true
  const pace: Pace = {
    rounds: Number(values.rounds ?? (quick ? 3 : 5)),
    seconds: Number(values.seconds ?? (quick ? 0.5 : 2)),
    warmup: quick ? 0.1 : 0.3,
    engineOnly: values.engine === true,
  }
  const sections = chosen(values.only ?? [], values.without ?? [])
  if (sections.length === 0 || !(pace.rounds >= 1) || !(pace.seconds > 0)) {
    process.stderr.write(USAGE)
    return 2
  }
  const places = {
    disk: mkdtempSync(join(values.dir ?? tmpdir(), 'metadisk-bench-')),
    tmpfs: mkdtempSync('/dev/shm/metadisk-bench-'),
  }
  if (statfsSync(places.disk).type === TMPFS_MAGIC)
    process.stderr.write('--dir is on tmpfs: the disk sections measure memory\n')
  const cells: Cell[] = []
  try {
    for (const section of sections)
      cells.push(
        ...(await measureSection(section, section.workloads, places, pace, (line) =>
          process.stderr.write(`${line}\n`),
        )),
      )
  } finally {
    for (const dir of Object.values(places)) rmSync(dir, { recursive: true, force: true })
  }
  const measured: Measured = { pace, commit: await commit(), cells }
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(measured, null, 1)}\n`)
  const partial = quick || pace.engineOnly || values.only !== undefined || values.without !== undefined
  await report(measured, sections, values['no-results'] !== true && !partial)
  return 0
}

process.exitCode = await main().catch((e: unknown) => {
  process.stderr.write(`${e instanceof Error ? e.message : String(e)}\n`)
  return 1
})
