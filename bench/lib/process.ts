/** Where the checkout is, and the two ways the benchmarks run other programs: to the end, or until stopped. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { dirname, join } from 'node:path'
import { Readable } from 'node:stream'

const findTop = (): string => {
  for (let at = import.meta.dirname; at !== dirname(at); at = dirname(at))
    if (existsSync(join(at, 'bench/CMakeLists.txt'))) return at
  return process.cwd()
}
export const TOP = findTop()

export interface Finished {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

export const run = (argv: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Finished> =>
  new Promise((resolve, reject) => {
    const [program = '', ...args] = argv
    const child = spawn(program, args, { cwd: TOP, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (s: string) => (stdout += s))
    child.stderr.setEncoding('utf8').on('data', (s: string) => (stderr += s))
    child.on('error', reject)
    child.on('close', (code, signal) => {
      resolve({ status: code ?? 128, stdout, stderr: signal === null ? stderr : `${stderr}${signal}` })
    })
  })

/** The same, where anything but status 0 ends the benchmark. */
export const must = async (argv: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<string> => {
  const done = await run(argv, env)
  if (done.status !== 0) throw new Error(`${argv.join(' ')}: status ${done.status}\n${done.stderr}${done.stdout}`)
  return done.stdout
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** Ten times what the slowest of them takes on a busy machine. */
const PATIENCE_MS = 60_000

export const until = async (
  what: string,
  condition: () => boolean | Promise<boolean>,
  ms = PATIENCE_MS,
): Promise<void> => {
  for (const end = Date.now() + ms; !(await condition()); await sleep(10))
    if (Date.now() > end) throw new Error(`${what}: not within ${ms} ms`)
}

/** Whether somebody accepts connections there; the file of a socket appears a moment before that. */
export const listens = (socket: string): Promise<boolean> =>
  new Promise((resolve) => {
    const peer = connect(socket)
    peer.on('error', () => {
      resolve(false)
    })
    peer.on('connect', () => {
      peer.destroy()
      resolve(true)
    })
  })

/** What is shown of a server that did not start, in lines. */
const SHOWN_LINES = 30

/** A server we started; `stop` returns when it is gone. */
export class Server {
  readonly pid: number
  readonly #child: ChildProcess
  readonly #gone: Promise<void>
  readonly #log: string
  /** How it ended. */
  #end: string | undefined

  /** `onReady` is called when the server writes to its descriptor 3. */
  constructor(argv: readonly string[], log: string, env: Readonly<Record<string, string>> = {}, onReady?: () => void) {
    const [program = '', ...args] = argv
    this.#log = log
    const out = openSync(log, 'a')
    const stdio: ('ignore' | 'pipe' | number)[] = ['ignore', out, out, onReady === undefined ? 'ignore' : 'pipe']
    this.#child = spawn(program, args, { env: { ...process.env, ...env }, stdio })
    closeSync(out)
    const ready = this.#child.stdio[3]
    if (onReady !== undefined && ready instanceof Readable) ready.once('data', onReady)
    this.#gone = new Promise((resolve) => {
      const over = (how: string): void => {
        this.#end ??= how
        resolve()
      }
      this.#child.on('exit', (status, by) => {
        over(`ended with ${by ?? status ?? ''}`)
      })
      this.#child.on('error', (e) => {
        over(e.message)
      })
    })
    this.pid = this.#child.pid ?? 0
  }

  get over(): boolean {
    return this.#end !== undefined
  }

  /** Until `condition` holds. @throws with what the server wrote, when it ends before that or takes too long */
  async ready(condition: () => boolean | Promise<boolean>): Promise<void> {
    const wrote = (): string => readFileSync(this.#log, 'utf8').split('\n').slice(-SHOWN_LINES).join('\n')
    const [program = ''] = this.#child.spawnargs
    try {
      await until(`${program} serves`, async () => this.over || (await condition()))
    } catch (cause) {
      throw new Error(`${program} does not serve:\n${wrote()}`, { cause })
    }
    if (this.#end !== undefined) throw new Error(`${program} ${this.#end} at its start:\n${wrote()}`)
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.over) return
    this.#child.kill(signal)
    const hard = setTimeout(() => this.#child.kill('SIGKILL'), 10_000)
    await this.#gone
    clearTimeout(hard)
  }
}
