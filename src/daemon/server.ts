/**
 * The control socket. One request at a time per connection; replies in order; the last is `done`.
 * The peer must be root or metad's own user (SO_PEERCRED), whatever the file's mode says.
 */
import { chmodSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { encodeLine, fitsLine, LINE_PROBLEM_TEXT, type Line, LineReader } from '../ctl/lines.js'
import type { Reply, Request } from '../ctl/protocol.js'
import { peerUid } from '../dataplane/native.js'
import { fdOf } from '../dataplane/handover.js'
import { metaError } from '../msg/errors.js'
import type { Logger } from './log.js'
import { validateRequest } from './validate.js'

export type Send = (reply: Reply) => void
/** Sends replies and returns the exit status for `done`. */
export type Handler = (request: Request, send: Send) => Promise<number>

/** Connections at once; further ones are closed at once. */
const MAX_CONNECTIONS = 256
/** A command talks right after it connects; a silent peer is hung up on. */
const IDLE_MS = 60_000
/** Requests one peer may have waiting; more and it is not reading its answers. */
const MAX_QUEUED = 64

export class ControlServer {
  readonly #handler: Handler
  readonly #log: Logger
  readonly #server: Server
  readonly #open = new Set<Socket>()

  constructor(handler: Handler, log: Logger) {
    this.#handler = handler
    this.#log = log
    this.#server = createServer((socket) => this.#accept(socket))
  }

  /** The lock is held, so a socket file that is there belongs to a dead metad. */
  listen(path: string): Promise<void> {
    rmSync(path, { force: true })
    return new Promise((resolve, reject) => {
      const before = process.umask(0o177)
      this.#server.once('error', reject)
      this.#server.listen(path, () => {
        this.#server.off('error', reject)
        this.#server.on('error', (e) => this.#log.error(e, 'control socket'))
        chmodSync(path, 0o600)
        resolve()
      })
      process.umask(before)
    })
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    for (const socket of this.#open) socket.end(() => socket.destroy())
    await closed
  }

  #accept(socket: Socket): void {
    socket.on('error', (e) => this.#log.debug(e, 'control connection'))
    const uid = peerUid(fdOf(socket))
    const allowed = uid === 0 || uid === process.getuid?.()
    if (!allowed || this.#open.size >= MAX_CONNECTIONS) {
      this.#log.warn({ uid }, 'control connection refused')
      const error = allowed ? metaError('protocol', undefined, 'too many connections') : metaError('notRoot')
      socket.end(encodeLine({ reply: 'error', error }) + encodeLine({ reply: 'done', status: 1 }))
      return
    }
    this.#open.add(socket)
    socket.on('close', () => this.#open.delete(socket))
    socket.setTimeout(IDLE_MS, () => {
      if (queued === 0) socket.destroy()
    })
    const reader = new LineReader()
    let queued = 0
    let tail = Promise.resolve()
    socket.on('data', (chunk) => {
      for (const line of reader.push(chunk)) {
        if (++queued > MAX_QUEUED) {
          socket.destroy()
          return
        }
        tail = tail.then(async () => {
          await this.#answer(line, socket)
          queued--
        })
      }
    })
  }

  async #answer(line: Line, socket: Socket): Promise<void> {
    const send = (reply: Reply): void => {
      if (socket.destroyed) return
      const text = encodeLine(reply)
      socket.write(
        fitsLine(text)
          ? text
          : encodeLine({ reply: 'error', error: metaError('protocol', undefined, 'answer too long') }),
      )
    }
    const refuse = (why: string): void => {
      send({ reply: 'error', error: metaError('protocol', undefined, why) })
      send({ reply: 'done', status: 1 })
    }
    if (line.kind === 'problem') {
      refuse(LINE_PROBLEM_TEXT[line.problem])
      socket.end()
      return
    }
    const request = validateRequest(line.value)
    if (!request.ok) return refuse(request.error)
    try {
      send({ reply: 'done', status: await this.#handler(request.value, send) })
    } catch (e) {
      // A bug, not bad input: the command fails, the daemon goes on with the state it had committed.
      this.#log.error(e, `request ${request.value.op} failed`)
      refuse(`internal error: ${(e as Error).message}`)
    }
  }
}
