/**
 * A metad of its own for a test: temporary root, started, waited for, and gone with everything it
 * made when the test ends. Commands run as a user would run them.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  closeSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { listens } from '../../bench/lib/process.js'

const TOP = join(import.meta.dirname, '../../../..')
const METAD = join(TOP, 'build/js/cmd/metad.js')
const COMMANDS = join(TOP, 'build/cli/meta.cjs')
const START_MILLIS = 60_000
const STOP_MILLIS = 20_000
const FILE_MILLIS = 240_000
const COMMAND_MILLIS = 60_000

/** What is used of tap's test object. */
export interface Test {
  teardown(done: () => Promise<void>): void
  setTimeout?(millis: number): void
}

export interface Outcome {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface Metad {
  readonly root: string
  readonly socket: string
  /** `metastat`, `metainit` ... with METADISK_ROOT set. Never throws on a failing command. */
  run(command: string, args: readonly string[]): Outcome
  /** As run, but a failing command is an error that shows what it said. */
  must(command: string, args: readonly string[]): string
  nbdUri(name: string): string
  /** A sparse backing file under the root. */
  disk(name: string, mebibytes: number): string
  pid(): number | undefined
  log(): string
  /** SIGTERM; resolves with the exit status. */
  stop(): Promise<number | null>
  kill9(): Promise<void>
  /** After stop() or kill9(): again, on the same root. */
  start(): Promise<void>
}

export interface MetadOptions {
  /** Text of etc/md.conf. */
  readonly conf?: string
}

const exited = (child: ChildProcess): Promise<void> =>
  child.exitCode !== null || child.signalCode !== null
    ? Promise.resolve()
    : new Promise((resolve) => child.once('exit', () => resolve()))

export const startMetad = async (t: Test, options: MetadOptions = {}): Promise<Metad> => {
  const root = mkdtempSync(join(tmpdir(), 'metad-'))
  const logPath = join(root, 'metad.log')
  const sockets = [join(root, 'run/admin.sock'), join(root, 'run/nbd.sock')]
  const env = { ...process.env, METADISK_ROOT: root }
  let child: ChildProcess | undefined
  for (const dir of ['etc', 'run', 'disks']) mkdirSync(join(root, dir), { recursive: true })
  if (options.conf !== undefined) writeFileSync(join(root, 'etc/md.conf'), options.conf)

  const log = (): string => (existsSync(logPath) ? readFileSync(logPath, 'utf8') : '')

  const start = async (): Promise<void> => {
    for (const needed of [METAD, COMMANDS])
      if (!existsSync(needed)) throw new Error(`not built: ${needed} (scripts/build)`)
    const out = openSync(logPath, 'a')
    const started = spawn(process.execPath, [METAD, '--root', root], { env, stdio: ['ignore', out, out] })
    closeSync(out)
    child = started
    const end = Date.now() + START_MILLIS
    while (Date.now() < end) {
      if (started.exitCode !== null || started.signalCode !== null)
        throw new Error(`metad ended at its start (${started.exitCode ?? started.signalCode}):\n${log()}`)
      const up = await Promise.all(sockets.map(listens))
      if (up.every(Boolean)) return
      await sleep(20)
    }
    started.kill('SIGKILL')
    throw new Error(`metad did not answer in ${START_MILLIS} ms:\n${log()}`)
  }

  const end = async (signal: 'SIGTERM' | 'SIGKILL'): Promise<number | null> => {
    const stopping = child
    if (stopping === undefined) return null
    stopping.kill(signal)
    const late = setTimeout(() => stopping.kill('SIGKILL'), STOP_MILLIS)
    await exited(stopping)
    clearTimeout(late)
    child = undefined
    return stopping.exitCode
  }

  const run = (command: string, args: readonly string[]): Outcome => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [COMMANDS, command, ...args], {
      env,
      cwd: root,
      encoding: 'utf8',
      timeout: COMMAND_MILLIS,
      input: '',
    })
    return { status, stdout, stderr }
  }

  // tap's 30 seconds for a whole file are short when the machine is busy.
  t.setTimeout?.(FILE_MILLIS)
  t.teardown(async () => {
    await end('SIGTERM')
    // The helpers of a killed metad end a moment after it.
    rmSync(root, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })
  })
  await start()
  return {
    root,
    socket: join(root, 'run/nbd.sock'),
    run,
    must: (command, args) => {
      const outcome = run(command, args)
      if (outcome.status !== 0)
        throw new Error(
          `${command} ${args.join(' ')}: status ${outcome.status}\n${outcome.stdout}${outcome.stderr}\n${log()}`,
        )
      return outcome.stdout
    },
    nbdUri: (name) => `nbd+unix:///${name}?socket=${join(root, 'run/nbd.sock')}`,
    disk: (name, mebibytes) => {
      const path = join(root, 'disks', name)
      closeSync(openSync(path, 'a'))
      truncateSync(path, mebibytes << 20)
      return path
    },
    pid: () => child?.pid,
    log,
    stop: () => end('SIGTERM'),
    kill9: async () => {
      await end('SIGKILL')
    },
    start,
  }
}
