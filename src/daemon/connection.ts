/**
 * One peer of the control socket: requests one after the other, replies in order, the last is `done`.
 *
 * Invariants
 * - Nothing is read while a request is worked on or its answer is not taken: what a peer can make metad
 *   hold is one line, one chunk of lines and one answer.
 * - A peer that is not being worked for may be hung up on at any time: it has lost nothing.
 */
import type { Socket } from 'node:net'
import { once } from 'node:events'
import { encodeLine, fitsLine, LINE_PROBLEM_TEXT, type Line, LineReader } from '../ctl/lines.js'
import type { Reply, Request } from '../ctl/protocol.js'
import { metaError } from '../msg/errors.js'
import type { Logger } from './log.js'
import { validateRequest } from './validate.js'

export type Send = (reply: Reply) => void
/** Sends replies and returns the exit status for `done`. */
export type Handler = (request: Request, send: Send) => Promise<number>

/** A command talks right after it connects, and reads what it is told; others are hung up on. */
const IDLE_MS = 60_000

const refusal = (why: string): string =>
  encodeLine({ reply: 'error', error: metaError('protocol', undefined, why) }) +
  encodeLine({ reply: 'done', status: 1 })

/** Says one thing to a peer nobody will listen to, and hangs up whether or not it is read. */
export const turnAway = (socket: Socket, error: ReturnType<typeof metaError>): void => {
  socket.end(encodeLine({ reply: 'error', error }) + encodeLine({ reply: 'done', status: 1 }), () => socket.destroy())
}

export class Connection {
  readonly #socket: Socket
  readonly #handler: Handler
  readonly #log: Logger
  readonly #reader = new LineReader()
  #state: 'idle' | 'working' | 'answering' = 'idle'
  #ending = false

  constructor(socket: Socket, handler: Handler, log: Logger) {
    this.#socket = socket
    this.#handler = handler
    this.#log = log
    socket.setTimeout(IDLE_MS, () => {
      if (!this.working) socket.destroy()
    })
    socket.on('data', (chunk: Buffer) => this.#take(chunk))
  }

  /** A request is being carried out; its answer is owed. */
  get working(): boolean {
    return this.#state === 'working'
  }

  /** Hangs up after the request that runs, at once when none does. */
  finish(): void {
    this.#ending = true
    if (!this.working) this.#socket.destroy()
  }

  #take(chunk: Buffer): void {
    const lines = this.#reader.push(chunk)
    if (lines.length === 0 || this.#ending) return
    this.#socket.pause()
    void this.#serve(lines)
  }

  async #serve(lines: readonly Line[]): Promise<void> {
    for (const line of lines) {
      this.#state = 'working'
      await this.#answer(line)
      this.#state = 'answering'
      await this.#taken()
      if (this.#ending || this.#socket.destroyed) break
    }
    this.#state = 'idle'
    if (this.#ending) this.#socket.end(() => this.#socket.destroy())
    else this.#socket.resume()
  }

  /** Until the peer has read enough of the answer for another one, or is gone. */
  async #taken(): Promise<void> {
    if (this.#socket.destroyed || !this.#socket.writableNeedDrain) return
    const gone = new AbortController()
    const stop = (): void => gone.abort()
    this.#socket.once('close', stop)
    await once(this.#socket, 'drain', { signal: gone.signal }).catch(() => undefined)
    this.#socket.off('close', stop)
  }

  async #answer(line: Line): Promise<void> {
    const socket = this.#socket
    const write = (text: string): void => {
      if (!socket.destroyed) socket.write(text)
    }
    if (line.kind === 'problem') {
      // Who says something that is no line of ours is not going to say anything else that counts.
      this.#ending = true
      return write(refusal(LINE_PROBLEM_TEXT[line.problem]))
    }
    const request = validateRequest(line.value)
    if (!request.ok) return write(refusal(request.error))
    const send = (reply: Reply): void => {
      const text = encodeLine(reply)
      if (fitsLine(text)) return write(text)
      write(encodeLine({ reply: 'error', error: metaError('protocol', undefined, 'answer too long') }))
    }
    try {
      send({ reply: 'done', status: await this.#handler(request.value, send) })
    } catch (e) {
      // A bug, not bad input: the command fails, the daemon goes on with the state it had committed.
      this.#log.error(e, `request ${request.value.op} failed`)
      write(refusal(`internal error: ${(e as Error).message}`))
    }
  }
}
