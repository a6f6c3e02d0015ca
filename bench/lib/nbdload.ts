/** Runs the load generator that scripts/build made of bench/load; its one line of JSON as a value. */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { run, TOP } from './process.js'

export interface Verified {
  readonly blocks: number
  readonly exact: number
  readonly uncertain: number
  readonly torn: number
  readonly ackedMissing: number
}
export interface Wrong {
  readonly total: number
  readonly kinds: Readonly<Record<string, number>>
  readonly examples: readonly string[]
}
export interface LoadReport {
  readonly iops: number
  readonly megabytesPerSecond: number
  readonly requests: number
  readonly seconds: number
  readonly latencyMicros: Readonly<Record<'p50' | 'p90' | 'p99' | 'p999' | 'max', number>>
  readonly serverCpuMicrosPerRequest: number
  readonly clientCpuMicrosPerRequest: number
  readonly serverCpuSeconds: number
  readonly reads: number
  readonly writes: number
  readonly flushes: number
  readonly ioErrors: number
  readonly lastErrno: number
  readonly disconnects: number
  readonly unanswered: number
  readonly broken: string
  readonly verified: Verified
  readonly wrong: Wrong
}
export interface LoadRun {
  /** 0 good, 1 wrong data or I/O errors, 2 usage or connection, 3 disconnected. */
  readonly status: number
  readonly report: LoadReport | undefined
  readonly stderr: string
}

const PROGRAM = join(TOP, 'build/bench/nbdload')

const toRun = (status: number, stdout: string, stderr: string): LoadRun => ({
  status,
  report: stdout === '' ? undefined : (JSON.parse(stdout) as LoadReport),
  stderr,
})

export const load = async (args: readonly string[]): Promise<LoadRun> => {
  const { status, stdout, stderr } = await run([PROGRAM, ...args])
  return toRun(status, stdout, stderr)
}

/** Started now, awaited later: the caller does something to the server in between. */
export const loadInBackground = (args: readonly string[]): { readonly finished: Promise<LoadRun> } => {
  const child = spawn(PROGRAM, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (s: string) => (stdout += s))
  child.stderr.setEncoding('utf8').on('data', (s: string) => (stderr += s))
  const finished = new Promise<LoadRun>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => {
      resolve(toRun(code ?? 128, stdout, stderr))
    })
  })
  return { finished }
}
