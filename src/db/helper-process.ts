/**
 * metad's end of one helper process: start it, ask it with a time limit, outlive it. A helper that dies or stays
 * silent turns every open question into a fault of its replica and nothing else.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { type Result, err, ok } from '../base/result.js'
import type { Fault, HelperAnswer, HelperReply, HelperRequest } from './wire.js'

export interface HelperFault extends Fault {
  /** errno name of a system error; `signal` when the process died of one, `timeout` when it did not answer. */
  readonly code: string | null
}

const HELPER = fileURLToPath(new URL('./helper.js', import.meta.url))
/** Measured: 59 MB resident without limits, most of it Node itself. */
const EXEC_ARGV = ['--max-old-space-size=48', '--max-semi-space-size=1', '--single-threaded-gc', '--no-warnings']
/** Damage makes LMDB die of these; any other end says nothing about the contents. */
const DAMAGE = new Set(['SIGBUS', 'SIGSEGV', 'SIGABRT', 'SIGILL', 'SIGFPE'])

const died = (problem: string, code: string): HelperFault => ({
  letter: 'W',
  problem,
  damaged: false,
  identity: null,
  code,
})

const environment = (): NodeJS.ProcessEnv => {
  const env = { ...process.env }
  // Loaders, inspectors and coverage of the parent must not get into the process that may not fail.
  delete env['NODE_OPTIONS']
  delete env['NODE_V8_COVERAGE']
  return env
}

export class Helper {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, (r: Result<HelperAnswer, HelperFault>) => void>()
  readonly #onEnd: (fault: HelperFault) => void
  #seq = 0
  #ended: HelperFault | null = null
  readonly exited: Promise<void>

  /** @param onEnd called once when the process ends, asked or not. */
  constructor(onEnd: (fault: HelperFault) => void) {
    this.#onEnd = onEnd
    // Its own session: a signal to our process group must not end it before the last commit.
    this.#child = fork(HELPER, [], {
      execArgv: EXEC_ARGV,
      env: environment(),
      detached: true,
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    })
    this.exited = new Promise((resolve) => {
      this.#child.once('exit', (code, signal) => {
        this.#end(
          died(`helper died: ${signal ?? `exit ${code}`}`, signal !== null && DAMAGE.has(signal) ? 'signal' : 'exit'),
        )
        resolve()
      })
      this.#child.on('error', (e) => {
        this.#end(died(`helper: ${e.message}`, 'exit'))
        if (this.#child.pid === undefined) resolve()
      })
    })
    this.#child.on('message', (reply: HelperReply) => {
      const resolve = this.#waiting.get(reply.seq)
      this.#waiting.delete(reply.seq)
      resolve?.(reply.ok ? ok(reply.value) : err({ ...reply.fault, code: reply.code }))
    })
  }

  get pid(): number | undefined {
    return this.#child.pid
  }
  get alive(): boolean {
    return this.#ended === null
  }

  #end(fault: HelperFault): void {
    if (this.#ended !== null) return
    this.#ended = fault
    for (const resolve of this.#waiting.values()) resolve(err(fault))
    this.#waiting.clear()
    this.#onEnd(fault)
  }

  request(request: HelperRequest, limitMs: number): Promise<Result<HelperAnswer, HelperFault>> {
    if (this.#ended !== null) return Promise.resolve(err(this.#ended))
    // Out of processes or descriptors: there is not even a channel.
    if (this.#child.pid === undefined) return Promise.resolve(err(died('helper could not be started', 'exit')))
    const seq = ++this.#seq
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.kill(died('replica does not answer', 'timeout'))
      }, limitMs)
      this.#waiting.set(seq, (r) => {
        clearTimeout(timer)
        resolve(r)
      })
      this.#child.send({ seq, request }, (e) => {
        if (e !== null) this.#end(died(`helper: ${e.message}`, 'exit'))
      })
    })
  }

  /** Gives up on it at once; the process itself may stay until the kernel lets it go. */
  kill(fault: HelperFault = died('helper stopped', 'exit')): void {
    this.#end(fault)
    this.#child.kill('SIGKILL')
    // A process stuck in the kernel must not keep metad from ending.
    this.#child.unref()
    this.#child.channel?.unref()
  }

  async stop(limitMs: number): Promise<void> {
    if (this.#ended !== null) return
    await this.request({ op: 'close' }, limitMs)
    this.#end(died('helper stopped', 'exit'))
    if (this.#child.connected) this.#child.disconnect()
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(() => {
        this.kill()
        resolve()
      }, limitMs)
    })
    await Promise.race([this.exited, late])
    clearTimeout(timer)
  }
}
