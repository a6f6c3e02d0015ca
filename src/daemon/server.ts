/**
 * The control socket. The peer must be root or metad's own user (SO_PEERCRED), whatever the file's
 * mode says. Connections are bounded; the oldest that is not being worked for makes room for the newest,
 * so that idlers cannot lock an administrator out.
 */
import { chmodSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { peerUid } from '../dataplane/native.js'
import { fdOf } from '../dataplane/handover.js'
import { metaError } from '../msg/errors.js'
import { Connection, type Handler, turnAway } from './connection.js'
import type { Logger } from './log.js'

export type { Handler, Send } from './connection.js'

/** Connections at once; man/metad.8 tells. */
const MAX_CONNECTIONS = 256
/** A flood writes one line a second, not one a connection. */
const WARN_EVERY_MS = 1000

export class ControlServer {
  readonly #handler: Handler
  readonly #log: Logger
  readonly #server: Server
  /** In order of arrival. */
  readonly #open = new Map<Socket, Connection>()
  #warnedAt = 0

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

  /** Requests that run are finished and answered; everybody else is hung up on. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    for (const connection of this.#open.values()) connection.finish()
    await closed
  }

  #accept(socket: Socket): void {
    socket.on('error', (e) => this.#log.debug(e, 'control connection'))
    const uid = peerUid(fdOf(socket))
    if (uid !== 0 && uid !== process.getuid?.()) {
      this.#warn({ uid }, 'control connection of another user refused')
      return turnAway(socket, metaError('notRoot'))
    }
    if (!this.#makeRoom()) {
      this.#warn({ limit: MAX_CONNECTIONS }, 'control connections at their limit, refused')
      return turnAway(socket, metaError('protocol', undefined, 'too many connections'))
    }
    this.#open.set(socket, new Connection(socket, this.#handler, this.#log))
    socket.on('close', () => this.#open.delete(socket))
  }

  #makeRoom(): boolean {
    if (this.#open.size < MAX_CONNECTIONS) return true
    for (const [socket, connection] of this.#open) {
      if (connection.working) continue
      this.#warn({ limit: MAX_CONNECTIONS }, 'control connections at their limit, oldest idle one dropped')
      this.#open.delete(socket)
      socket.destroy()
      return true
    }
    return false
  }

  #warn(fields: Readonly<Record<string, unknown>>, message: string): void {
    const now = Date.now()
    if (now - this.#warnedAt < WARN_EVERY_MS) return
    this.#warnedAt = now
    this.#log.warn(fields, message)
  }
}
