/** Medians and ratios, as a table for people. Ratios are medians of the rounds' own ratios. */
import { readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import type { Cell } from './measure.js'
import type { LoadReport } from './nbdload.js'
import type { Measured } from './parts.js'
import { must, TOP } from './process.js'
import type { Contender, Goal, Section, Workload } from './workloads.js'

export const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const high = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? high : ((sorted[middle - 1] ?? Number.NaN) + high) / 2
}

const speed = (w: Workload, r: LoadReport): number => (w.bytes ? r.megabytesPerSecond : r.iops)

/** Median over the rounds of a/b, pairing runs of the same round. */
const ratio = (a: Cell | undefined, b: Cell | undefined, of: (r: LoadReport) => number): number =>
  median((a?.runs ?? []).flatMap((r, i) => (b?.runs[i] === undefined ? [] : [of(r) / of(b.runs[i])])))

const amount = (n: number): string =>
  n >= 100_000 ? `${Math.round(n / 1000)}k` : n >= 10_000 ? `${(n / 1000).toFixed(1)}k` : `${Math.round(n)}`

const find = (cells: readonly Cell[], s: Section, w: Workload, c: Contender): Cell | undefined =>
  cells.find((cell) => cell.section === s.id && cell.workload === w.name && cell.contender === c)

export interface Verdict {
  readonly section: string
  readonly workload: string
  readonly goal: Goal
  readonly speed: number
  readonly cpu: number
  readonly met: boolean
}

export const verdicts = (cells: readonly Cell[], sections: readonly Section[]): readonly Verdict[] =>
  sections.flatMap((s) =>
    s.workloads.flatMap((w) =>
      w.goals.flatMap((goal) => {
        const of = find(cells, s, w, goal.of)
        const against = find(cells, s, w, goal.against)
        if (of === undefined || against === undefined) return []
        const fast = ratio(of, against, (r) => speed(w, r))
        const cpu = ratio(of, against, (r) => r.serverCpuMicrosPerRequest)
        const met = fast >= goal.least && (goal.cpuMost === undefined || cpu <= goal.cpuMost)
        return [{ section: s.id, workload: w.name, goal, speed: fast, cpu, met }]
      }),
    ),
  )

const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
const rule = (n: number): string => row(Array.from({ length: n }, () => '---'))

export const markdown = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [row(head), rule(head.length), ...rows.map(row)].join('\n')

/** First column ours in absolute numbers, then the ratio to each other contender with its CPU ratio. */
const tableFor = (cells: readonly Cell[], s: Section, of: Contender): string => {
  const present = s.workloads.filter((w) => find(cells, s, w, of) !== undefined)
  if (present.length === 0) return ''
  const others = s.contenders.filter((c) => c !== of && (!s.ours.includes(c) || c === 'single'))
  const head = ['workload', of, 'CPU/request', 'p50 / p99 us', ...others.map((c) => `vs ${c} (CPU)`), 'goals']
  const lines: string[][] = []
  for (const w of present) {
    const mine = find(cells, s, w, of)
    const m = (f: (r: LoadReport) => number): number => median((mine?.runs ?? []).map(f))
    const versus = others.map((c) => {
      const other = find(cells, s, w, c)
      if (other === undefined) return '-'
      const fast = ratio(mine, other, (r) => speed(w, r))
      const cpu = ratio(mine, other, (r) => r.serverCpuMicrosPerRequest)
      return `${fast.toFixed(2)}x (${cpu.toFixed(2)})`
    })
    const goals = verdicts(cells, [{ ...s, workloads: [w] }])
      .filter((v) => v.goal.of === of)
      .map(
        (v) =>
          `${v.met ? 'met' : '**missed**'} ${v.goal.least} ${v.goal.against}${v.goal.cpuMost === undefined ? '' : `, CPU ${v.goal.cpuMost}`}`,
      )
    const unit = w.bytes ? ' MB/s' : ' IOPS'
    lines.push([
      w.name,
      amount(m((r) => speed(w, r))) + unit,
      `${m((r) => r.serverCpuMicrosPerRequest).toFixed(2)} us`,
      `${amount(m((r) => r.latencyMicros.p50))} / ${amount(m((r) => r.latencyMicros.p99))}`,
      ...versus,
      goals.join('; '),
    ])
  }
  return markdown(head, lines)
}

export const tables = (cells: readonly Cell[], sections: readonly Section[]): string =>
  sections
    .filter((s) => cells.some((c) => c.section === s.id))
    .map((s) => {
      const ours = s.ours.length > 0 ? s.ours : s.contenders
      const parts = ours.map((c) => tableFor(cells, s, c)).filter((text) => text !== '')
      return [`## ${s.title}`, ...parts].join('\n\n')
    })
    .join('\n\n')

const first = async (argv: readonly string[]): Promise<string> =>
  (await must(argv).catch(() => 'not installed')).split('\n')[0]?.trim() ?? ''

export const commit = async (): Promise<string> => {
  const dirty = (await must(['git', '-C', TOP, 'status', '--porcelain', '-uno'])) !== ''
  return `${await first(['git', '-C', TOP, 'rev-parse', '--short', 'HEAD'])}${dirty ? ' with uncommitted changes' : ''}`
}

const machine = async ({ pace, commit: measured }: Measured): Promise<string> => {
  const memory = /MemTotal:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? '0'
  return [
    `- commit ${measured}`,
    `- ${cpus().length} x ${cpus()[0]?.model ?? 'unknown'}, ${Math.round(Number(memory) / 1048576)} GiB`,
    `- Linux ${await first(['uname', '-r'])}, Node ${process.version}`,
    `- ${await first(['nbdkit', '--version'])}, ${await first(['qemu-storage-daemon', '--version'])}, ` +
      `nbd-server ${/[\d.]+$/.exec(await first(['dpkg-query', '-W', 'nbd-server']))?.[0] ?? '(version unknown)'}`,
    `- ${pace.rounds} alternating rounds of ${pace.seconds} s; medians; ratios are medians of per-round ratios`,
  ].join('\n')
}

const NOTES = '<!-- notes: kept when the file is written again -->'

/** The whole file; what an earlier writer said below the marker stays. */
export const results = async (measured: Measured, sections: readonly Section[], previous: string): Promise<string> => {
  const { cells } = measured
  const all = verdicts(cells, sections)
  const missed = all.filter((v) => !v.met)
  const list = missed.map((v) => {
    const cpu = v.goal.cpuMost === undefined ? '' : `, CPU ${v.cpu.toFixed(2)} of at most ${v.goal.cpuMost}`
    return `- ${v.section}, ${v.workload}: ${v.goal.of} is ${v.speed.toFixed(2)}x ${v.goal.against}, goal ${v.goal.least}${cpu}`
  })
  const notes = previous.includes(NOTES) ? previous.slice(previous.indexOf(NOTES) + NOTES.length) : '\n'
  return `# Results

Written by \`bench/run\`. Numbers in brackets are ratios of server CPU per request (below 1: we use less).

${await machine(measured)}

Goals met: ${all.length - missed.length} of ${all.length}.

${tables(cells, sections)}

## Missed goals

${list.length > 0 ? list.join('\n') : 'None.'}

${NOTES}${notes}`
}

/** A section of its own below the notes, which bench/run keeps; the one of that title is replaced. */
export const withSection = (file: string, title: string, body: string): string => {
  const marked = file.includes(NOTES) ? file : `${file}\n${NOTES}\n`
  const heading = `\n## ${title}\n`
  const at = marked.indexOf(heading, marked.indexOf(NOTES))
  const next = at < 0 ? -1 : marked.indexOf('\n## ', at + heading.length)
  const before = at < 0 ? marked : marked.slice(0, at)
  return `${before.trimEnd()}\n${heading}\n${body}\n${next < 0 ? '' : marked.slice(next)}`
}
