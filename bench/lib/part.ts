/** What the benchmarks of one kind have in common: their arguments, a directory on both media, a section of bench/RESULTS.md. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs, type ParseArgsConfig } from 'node:util'
import { TOP } from './process.js'
import { commit, markdown, withSection } from './report.js'

export interface PartPace {
  readonly rounds: number
  /** Of each run of a load. */
  readonly seconds: number
  /** What it is of is the part's. */
  readonly megabytes: number
}
export interface Place {
  readonly name: 'tmpfs' | 'disk'
  readonly dir: string
}
/** A line of a table: what was measured, in the table's columns. */
export interface Table {
  readonly title: string
  readonly head: readonly string[]
  readonly rows: readonly (readonly string[])[]
}
export type Say = (line: string) => void

type Options = NonNullable<ParseArgsConfig['options']>
const COMMON = {
  rounds: { type: 'string' },
  seconds: { type: 'string' },
  megabytes: { type: 'string' },
  dir: { type: 'string' },
  'no-results': { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const satisfies Options

export interface Part<O extends Options> {
  readonly program: string
  readonly usage: string
  /** Its title in bench/RESULTS.md. */
  readonly section: string
  readonly megabytes: number
  /** Each of them leaves something out, so that no section is written. */
  readonly choices: O
}
type Chosen<O extends Options> = ReturnType<typeof parseArgs<{ options: O }>>['values']

/** @param measures null: the choices leave nothing. */
export const runPart = async <O extends Options>(
  part: Part<O>,
  measures: (
    chosen: Chosen<O>,
    pace: PartPace,
    tmpfs: Place,
    disk: Place,
    say: Say,
  ) => readonly (() => Promise<Table>)[],
): Promise<number> => {
  const values: unknown = parseArgs({ options: { ...part.choices, ...COMMON } }).values
  const common = values as Chosen<typeof COMMON>
  const chosen = values as Chosen<O>
  if (common.help === true) {
    process.stdout.write(part.usage)
    return 0
  }
  const pace: PartPace = {
    rounds: Number(common.rounds ?? 5),
    seconds: Number(common.seconds ?? 1),
    megabytes: Number(common.megabytes ?? part.megabytes),
  }
  const good = pace.rounds >= 1 && pace.seconds > 0 && pace.megabytes >= 64
  const disk: Place = { name: 'disk', dir: mkdtempSync(join(common.dir ?? tmpdir(), 'metadisk-bench-')) }
  const tmpfs: Place = { name: 'tmpfs', dir: mkdtempSync('/dev/shm/metadisk-bench-') }
  const say: Say = (line) => {
    process.stderr.write(`${line}\n`)
  }
  const made: Table[] = []
  try {
    const wanted = good ? measures(chosen, pace, tmpfs, disk, say) : []
    if (wanted.length === 0) {
      process.stderr.write(part.usage)
      return 2
    }
    for (const measure of wanted) made.push(await measure())
  } finally {
    for (const { dir } of [disk, tmpfs]) rmSync(dir, { recursive: true, force: true })
  }
  const text = made.map((t) => `### ${t.title}\n\n${markdown(t.head, t.rows)}`).join('\n\n')
  process.stdout.write(`${text}\n`)
  const some = Object.keys(part.choices).some((word) => chosen[word as keyof Chosen<O>] !== undefined)
  if (some || common['no-results'] === true) return 0
  const file = join(TOP, 'bench/RESULTS.md')
  const before = existsSync(file) ? readFileSync(file, 'utf8') : '# Results\n'
  const pacing = `By \`${part.program}\` at commit ${await commit()}: ${pace.rounds} rounds, medians; ratios are medians of per-round ratios.`
  writeFileSync(file, withSection(before, part.section, `${pacing}\n\n${text}`))
  return 0
}

/** The process's exit status. */
export const ended = (run: Promise<number>): Promise<number> =>
  run.catch((e: unknown) => {
    process.stderr.write(`${e instanceof Error ? e.message : String(e)}\n`)
    return 1
  })
