/** Foreign programs for conformance tests: present or not, run, and judged by what they print. */
import { spawn, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { until } from '../../bench/lib/process.js'
import type { Metad } from './daemon.js'

/** The system's first: nbdsh takes the first python3 on the PATH, and only the system's has libnbd. */
const PLACES = ['/usr/bin', ...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin']

const ENV = { ...process.env, PATH: PLACES.join(delimiter), LC_ALL: 'C' }

/** Value for a test's `skip`: false, or why it cannot run here. */
export const missing = (...tools: readonly string[]): string | false => {
  const absent = tools.filter((tool) => !PLACES.some((p) => p !== '' && existsSync(join(p, tool))))
  return absent.length === 0 ? false : `not installed: ${absent.join(', ')}`
}

/** nbdsh without libnbd's Python module is no nbdsh. */
export const missingNbdsh = (): string | false =>
  missing('nbdsh') ||
  (spawnSync('nbdsh', ['-c', 'pass'], { env: ENV }).status === 0 ? false : 'nbdsh cannot load its Python module')

export interface Ran {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Asynchronous, because the test may be serving or watching something meanwhile. */
export const foreign = (program: string, args: readonly string[], input = '', millis = 60_000): Promise<Ran> =>
  new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      env: ENV,
      stdio: ['pipe', 'pipe', 'pipe'],
      timeout: millis,
      killSignal: 'SIGKILL',
    })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (b: Buffer) => (stdout += b.toString()))
    child.stderr.on('data', (b: Buffer) => (stderr += b.toString()))
    child.on('error', reject)
    child.on('close', (status) => resolve({ status, stdout, stderr }))
    child.stdin.on('error', () => {})
    child.stdin.end(input)
  })

/** As foreign, but a failure is an error that shows what the program said. */
export const mustRun = async (
  program: string,
  args: readonly string[],
  input = '',
  millis = 60_000,
): Promise<string> => {
  const ran = await foreign(program, args, input, millis)
  if (ran.status !== 0)
    throw new Error(`${program} ${args.join(' ')}: status ${ran.status}\n${ran.stdout}${ran.stderr}`)
  return ran.stdout
}

export interface Kinds {
  /** Name of the metadevice and what it is. */
  readonly name: string
  readonly kind: string
}

/**
 * One metadevice of every kind: d4 on one component, d3 a stripe of three, d5 a concatenation of
 * two, d0 a mirror of d1 and d2 (resynced).
 */
export const everyKind = async (metad: Metad, mebibytes: number): Promise<readonly Kinds[]> => {
  const disks = Array.from({ length: 9 }, (_, i) => metad.disk(`disk${i}`, mebibytes))
  const disk = (i: number): string => disks[i] ?? ''
  metad.must('metadb', ['-a', '-f', ...[0, 1, 2].map((i) => join(metad.root, `disks/replica${i}`))])
  metad.must('metainit', ['d4', '1', '1', disk(0)])
  metad.must('metainit', ['d3', '1', '3', disk(1), disk(2), disk(3), '-i', '64k'])
  metad.must('metainit', ['d5', '2', '1', disk(4), '1', disk(5)])
  metad.must('metainit', ['d1', '1', '1', disk(6)])
  metad.must('metainit', ['d2', '1', '1', disk(7)])
  metad.must('metainit', ['d0', '-m', 'd1'])
  metad.must('metattach', ['d0', 'd2'])
  await resynced(metad)
  return [
    { name: 'd4', kind: 'one component' },
    { name: 'd3', kind: 'stripe' },
    { name: 'd5', kind: 'concatenation' },
    { name: 'd0', kind: 'mirror' },
  ]
}

/** Waits until no submirror is being resynced. */
export const resynced = async (metad: Metad): Promise<void> => {
  await until('no resync', () => !/Resync in progress|Resyncing/i.test(metad.must('metastat', [])))
}

const findSize = (value: unknown, name: string): number | undefined => {
  if (typeof value !== 'object' || value === null) return undefined
  if ('name' in value && value.name === name && 'size' in value && typeof value.size === 'number') return value.size
  for (const inner of Object.values(value)) {
    const size = findSize(inner, name)
    if (size !== undefined) return size
  }
  return undefined
}

/** Bytes of a metadevice as metastat reports it. */
export const sizeOf = (metad: Metad, name: string): number => {
  const blocks = findSize(JSON.parse(metad.must('metastat', ['--json', name])), name)
  if (blocks === undefined) throw new Error(`metastat --json does not name ${name}`)
  return blocks * 512
}
