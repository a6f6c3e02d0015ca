/** `metastat --watch`: the mirrors and how far their resyncs are, again and again until none runs. */
import type { MirrorReport, StatReport } from '../msg/report.js'
import { humanSize, percentDone } from '../msg/format.js'
import type { Call } from './command.js'

/** What was seen of a resync earlier, to tell its speed. */
export interface Sample {
  readonly atMs: number
  readonly doneBlocks: number
}

const clock = (seconds: number): string => {
  const s = Math.max(0, Math.round(seconds))
  const two = (n: number): string => String(n).padStart(2, '0')
  return `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`
}

const worst = (m: MirrorReport): string =>
  m.submirrors.map((s) => s.state).find((s) => s !== 'Okay') ?? (m.submirrors.length === 0 ? '-' : 'Okay')

export const watchLine = (m: MirrorReport, before: Sample | undefined, nowMs: number): string => {
  if (m.resync === null) return `${m.name}: ${worst(m)}`
  const done = `${percentDone(m.resync.doneBlocks, m.resync.totalBlocks, m.size)} % done`
  if (m.resync.state === 'cancelled') return `${m.name}: Resync cancelled: ${done}`
  const moved = before === undefined ? 0 : m.resync.doneBlocks - before.doneBlocks
  const seconds = before === undefined ? 0 : (nowMs - before.atMs) / 1000
  if (moved <= 0 || seconds <= 0) return `${m.name}: Resync in progress: ${done}`
  const left = ((m.resync.totalBlocks - m.resync.doneBlocks) * seconds) / moved
  return `${m.name}: Resync in progress: ${done}, ${humanSize(Math.round(moved / seconds))}/s, ${clock(left)} left`
}

const shownMirrors = (r: StatReport): MirrorReport[] =>
  r.units.filter((u): u is MirrorReport => u.kind === 'mirror').filter((m) => r.show.includes(m.name))

/** Returns when no resync runs, on an error, or when interrupted. */
export const watch = async (
  call: Call,
  seconds: number,
  fetch: () => Promise<{ readonly status: number; readonly report: StatReport | null }>,
  now: () => number = Date.now,
): Promise<number> => {
  const seen = new Map<string, Sample>()
  for (;;) {
    const { status, report } = await fetch()
    if (report === null || status !== 0) return status === 0 ? 1 : status
    const mirrors = shownMirrors(report)
    const at = now()
    const lines = mirrors.map((m) => `${watchLine(m, seen.get(m.name), at)}\n`)
    call.print.clear()
    call.print.out(lines.join(''))
    for (const m of mirrors) if (m.resync !== null) seen.set(m.name, { atMs: at, doneBlocks: m.resync.doneBlocks })
    if (call.print.closed || !mirrors.some((m) => m.resync?.state === 'running')) return 0
    if (!(await call.sleep(seconds))) return 0
  }
}
