/** `metastat --watch`: mirrors and RAID5 devices and how far their resyncs are, again and again until none runs. */
import type { MirrorReport, Raid5Report, StatReport } from '../msg/report.js'
import { humanSize, percentDone, tenthsDone } from '../msg/format.js'
import type { Call } from './command.js'
import { WORK } from './stat-long.js'

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

type Watched = MirrorReport | Raid5Report

interface Task {
  readonly title: string
  readonly cancelled: boolean
  readonly doneBlocks: number
  readonly totalBlocks: number
  readonly done: string
}

/** What is being done, or was cancelled. */
const taskOf = (u: Watched): Task | null => {
  if (u.kind === 'raid5') {
    if (u.work === null || !u.work.running) return null
    const { work, doneBlocks, totalBlocks } = u.work
    const done = `${tenthsDone(doneBlocks, totalBlocks).trim()} % done`
    return { title: WORK[work], cancelled: false, doneBlocks, totalBlocks, done }
  }
  if (u.resync === null) return null
  const { state, doneBlocks, totalBlocks } = u.resync
  const done = `${percentDone(doneBlocks, totalBlocks, u.size)} % done`
  return { title: 'Resync', cancelled: state === 'cancelled', doneBlocks, totalBlocks, done }
}

const worst = (u: Watched): string => {
  if (u.kind === 'raid5') return u.state
  return u.submirrors.map((s) => s.state).find((s) => s !== 'Okay') ?? (u.submirrors.length === 0 ? '-' : 'Okay')
}

export const watchLine = (u: Watched, before: Sample | undefined, nowMs: number): string => {
  const task = taskOf(u)
  if (task === null) return `${u.name}: ${worst(u)}`
  const { title, done } = task
  if (task.cancelled) return `${u.name}: ${title} cancelled: ${done}`
  const moved = before === undefined ? 0 : task.doneBlocks - before.doneBlocks
  const seconds = before === undefined ? 0 : (nowMs - before.atMs) / 1000
  if (moved <= 0 || seconds <= 0) return `${u.name}: ${title} in progress: ${done}`
  const left = ((task.totalBlocks - task.doneBlocks) * seconds) / moved
  return `${u.name}: ${title} in progress: ${done}, ${humanSize(Math.round(moved / seconds))}/s, ${clock(left)} left`
}

const watched = (r: StatReport): Watched[] =>
  r.units.filter((u) => u.kind === 'mirror' || u.kind === 'raid5').filter((u) => r.show.includes(u.name))

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
    const shown = watched(report)
    const at = now()
    const lines = shown.map((u) => `${watchLine(u, seen.get(u.name), at)}\n`)
    call.print.clear()
    call.print.out(lines.join(''))
    const tasks = shown.flatMap((u) => {
      const task = taskOf(u)
      return task === null ? [] : [{ name: u.name, ...task }]
    })
    for (const { name, doneBlocks } of tasks) seen.set(name, { atMs: at, doneBlocks })
    if (call.print.closed || tasks.every((task) => task.cancelled)) return 0
    if (!(await call.sleep(seconds))) return 0
  }
}
