/**
 * Runs the tests that scripts/build compiled and ends with one plain line, `N passed, N failed`.
 *
 * Invariants: the list of files comes from the sources, so a compiled left-over is never run; a file
 * that stops early, hangs or prints no plan counts as a failure; nothing that a test started outlives
 * it in its process group. Counted are tap assertions, doctest cases, and one for each checker. What takes
 * long begins first, and one more runs than there are processors: a third of the tests' time is waiting.
 */
import { spawn } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join, relative } from 'node:path'

const TOP = join(import.meta.dirname, '../../../..')
/** More was never tried. */
const MAX_JOBS = 4
const JOBS = Math.min(availableParallelism() + 1, MAX_JOBS)
/** Folders whose files take longest. */
const LONG = ['test/fault/', 'test/property/', 'test/conformance/']
const FILE_TIMEOUT_MS = 300_000
const TOOL_TIMEOUT_MS = 1_800_000
/** What is kept of a failing test's output, in lines. */
const SHOWN_LINES = 80

interface Job {
  readonly name: string
  readonly argv: readonly string[]
  readonly timeoutMs: number
  readonly count: (output: string, status: number | null) => Count
}
interface Count {
  readonly passed: number
  readonly failed: number
  readonly skipped: readonly string[]
}
interface Outcome extends Count {
  readonly job: Job
  readonly output: string
  readonly why: string
  readonly seconds: number
}

const walk = (dir: string, keep: RegExp): string[] =>
  existsSync(join(TOP, dir))
    ? readdirSync(join(TOP, dir), { recursive: true, encoding: 'utf8' })
        .filter((f) => keep.test(f))
        .map((f) => join(dir, f))
        .sort()
    : []

/** tap prints its totals; a file with nothing but passes at top level may not, so lines are the fallback. */
export const countTap = (output: string, status: number | null): Count => {
  const lines = output.split('\n')
  const plan = lines.some((l) => /^1\.\.\d+/.test(l))
  const skipped = lines.flatMap((l) => /^\s*ok \d+ - (.*) # SKIP ?(.*)$/i.exec(l)?.slice(1, 3).join(': ') ?? [])
  const wholeFile = lines.flatMap((l) => /^1\.\.0 # ?(?:SKIP)? ?(.*)$/i.exec(l)?.[1] ?? [])
  const totals = lines.filter((l) => l.startsWith('# { total:')).at(-1)
  const total = (key: string): number => Number(new RegExp(`\\b${key}: (\\d+)`).exec(totals ?? '')?.[1] ?? 0)
  const passed =
    totals !== undefined ? total('pass') : lines.filter((l) => /^ok \d+(?!.*# (?:SKIP|TODO))/i.test(l)).length
  const failed = totals !== undefined ? total('fail') : lines.filter((l) => /^not ok \d+(?!.*# TODO)/i.test(l)).length
  const broken = !plan || (status !== 0 && failed === 0)
  return { passed, failed: failed + (broken ? 1 : 0), skipped: [...skipped, ...wholeFile] }
}

export const countDoctest = (output: string, status: number | null): Count => {
  let passed = 0
  let failed = 0
  for (const m of output.matchAll(/test cases:\s*\d+\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed/g)) {
    passed += Number(m[1])
    failed += Number(m[2])
  }
  const silent = passed + failed === 0 && status === 0
  return { passed: silent ? 1 : passed, failed: status !== 0 && failed === 0 ? 1 : failed, skipped: [] }
}

const countOne = (_output: string, status: number | null): Count => ({
  passed: status === 0 ? 1 : 0,
  failed: status === 0 ? 0 : 1,
  skipped: [],
})

const runJob = (job: Job): Promise<Outcome> =>
  new Promise((done) => {
    const began = Date.now()
    const [command = '', ...args] = job.argv
    // Its own process group, so that whatever it leaves behind can be ended with it.
    const child = spawn(command, args, {
      cwd: TOP,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, METADISK_ROOT: undefined, FORCE_COLOR: '0', NO_COLOR: '1' },
    })
    let output = ''
    let why = ''
    const endGroup = (): void => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
      } catch {
        // Nobody is left in the group.
      }
    }
    const timer = setTimeout(() => {
      why = `no end after ${job.timeoutMs / 1000} s`
      endGroup()
    }, job.timeoutMs)
    const take = (data: Buffer): void => {
      output += data.toString()
    }
    child.stdout.on('data', take)
    child.stderr.on('data', take)
    child.on('error', (e) => (why = e.message))
    // Pipes may be held open by something left behind: the group ends when its leader does.
    child.on('exit', (status, signal) => {
      if (signal !== null && why === '') why = `ended by ${signal}`
      else if (status !== 0 && why === '') why = `exit status ${status}`
      setTimeout(endGroup, 200)
    })
    child.on('close', (status) => {
      clearTimeout(timer)
      const counted = job.count(output, status)
      done({ ...counted, job, output, why, seconds: (Date.now() - began) / 1000 })
    })
  })

/** The lines around what failed; everything when nothing says `not ok`. */
export const excerpt = (output: string): string => {
  const lines = output.trimEnd().split('\n')
  const first = lines.findIndex((l) => /^\s*not ok \d+/.test(l) && !/# TODO/i.test(l))
  const from = first === -1 ? Math.max(0, lines.length - SHOWN_LINES) : Math.max(0, first - 3)
  return lines
    .slice(from, from + SHOWN_LINES)
    .map((l) => `    ${l}`)
    .join('\n')
}

/** What doctest cases say of themselves (MESSAGE): how much of something they went through. */
export const doctestSaid = (output: string): readonly string[] =>
  [...output.matchAll(/^\S+\.cc:\d+: MESSAGE: (.*)$/gm)].map((m) => m[1] ?? '')

const report = (o: Outcome): void => {
  const counts = `${o.passed} passed${o.failed > 0 ? `, ${o.failed} failed` : ''}`
  console.log(`${o.failed > 0 ? 'FAILED' : 'ok    '} ${o.job.name}  ${counts}  ${o.seconds.toFixed(1)} s`)
  for (const s of o.skipped) console.log(`       skipped: ${s}`)
  for (const s of doctestSaid(o.output)) console.log(`       ${s}`)
  if (o.failed > 0) console.log(`${o.why === '' ? '' : `    ${o.why}\n`}${excerpt(o.output)}`)
}

/** Those of long folders first; the order is kept otherwise. */
export const longFirst = (files: readonly string[]): readonly string[] => {
  const rank = (f: string): number => (LONG.findIndex((d) => f.startsWith(d)) + LONG.length + 1) % (LONG.length + 1)
  return files.toSorted((a, b) => rank(a) - rank(b))
}

const runAll = async (jobs: readonly Job[]): Promise<Outcome[]> => {
  const queue = [...jobs]
  const outcomes: Outcome[] = []
  const worker = async (): Promise<void> => {
    for (let job = queue.shift(); job !== undefined; job = queue.shift()) {
      const outcome = await runJob(job)
      report(outcome)
      outcomes.push(outcome)
    }
  }
  await Promise.all(Array.from({ length: JOBS }, worker))
  return outcomes
}

const nativeBinaries = (): string[] =>
  walk('build/native', /^[^/]*tests?$/).filter((f) => {
    const s = statSync(join(TOP, f))
    return s.isFile() && (s.mode & 0o111) !== 0
  })

const onPath = (tool: string): boolean =>
  (process.env['PATH'] ?? '').split(':').some((d) => d !== '' && existsSync(join(d, tool)))

const main = async (patterns: readonly string[]): Promise<number> => {
  const wanted = (name: string): boolean =>
    patterns.length === 0 || patterns.some((p) => name.includes(p.replace(/^\.\//, '')))
  const tool = (name: string, argv: readonly string[], count: Job['count'] = countOne): Job => ({
    name,
    argv,
    timeoutMs: TOOL_TIMEOUT_MS,
    count,
  })
  const bin = (name: string): string => join(TOP, 'node_modules/.bin', name)

  const native = nativeBinaries().map((f) => tool(`native ${f}`, [join(TOP, f)], countDoctest))
  const sanitize = existsSync(join(TOP, 'scripts/sanitize'))
    ? ['address', 'thread'].map((what) =>
        tool(`sanitize ${what}`, ['env', 'JOBS=1', 'scripts/sanitize', what], countDoctest),
      )
    : []
  const files = longFirst(walk('test', /\.test\.ts$/)).map((f): Job => ({
    name: f,
    argv: [process.execPath, '--enable-source-maps', join('build/js', f.replace(/\.ts$/, '.js'))],
    timeoutMs: FILE_TIMEOUT_MS,
    count: countTap,
  }))
  const cc = ['native', 'test', 'bench'].flatMap((d) => walk(d, /\.(?:cc|h)$/))
  const lint = [
    tool('lint eslint', [bin('eslint'), '--max-warnings', '0', '.']),
    tool('lint prettier', [bin('prettier'), '--check', '--log-level', 'warn', '.']),
    ...(onPath('clang-format') ? [tool('lint clang-format', ['clang-format', '--dry-run', '-Werror', ...cc])] : []),
  ]
  // Sanitizers build what they run, on one processor: nothing takes longer.
  const jobs = [...sanitize, ...native, ...files, ...lint].filter((j) => wanted(j.name))
  if (jobs.length === 0) {
    console.log(`Nothing matches ${patterns.join(' ')}`)
    console.log('0 passed, 1 failed')
    return 1
  }
  const all = await runAll(jobs)

  const missing = patterns.length === 0 && native.length === 0 ? 1 : 0
  if (missing > 0) console.log('FAILED native: no test binary in build/native')
  if (!onPath('clang-format')) console.log('skipped lint clang-format: not installed')
  const bad = all.filter((o) => o.failed > 0)
  if (bad.length > 0) console.log(`\nFailed:\n${bad.map((o) => `  ${o.job.name}`).join('\n')}`)
  const skips = all.reduce((n, o) => n + o.skipped.length, 0)
  console.log(`\n${skips} skipped${skips > 0 ? ' (reasons above)' : ''}`)
  const passed = all.reduce((n, o) => n + o.passed, 0)
  const failed = all.reduce((n, o) => n + o.failed, missing)
  console.log(`${passed} passed, ${failed} failed`)
  return failed === 0 ? 0 : 1
}

// Imported by its own test, run by scripts/test.
if (relative(process.argv[1] ?? '', import.meta.filename) === '') process.exitCode = await main(process.argv.slice(2))
