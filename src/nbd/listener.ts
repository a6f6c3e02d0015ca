/**
 * Accepts NBD clients on a unix socket (mode 0600) and, when asked, TCP; runs their handshakes and
 * hands the sockets over to the data plane.
 *
 * Invariants
 * - While the gate is shut nothing is said to a client and no export is looked up; clients that
 *   connect meanwhile wait, bounded like handshakes are.
 * - Clients in transmission and those that were just told they are served never exceed maxConnections;
 *   one more is told so in answer to its GO, and may ask again on the same connection.
 * - Memory per client in handshake is bounded (session.ts, handshake.ts); clients are bounded by
 *   limits; the oldest handshake makes room for the newest.
 * - Nothing a client does throws out of here or touches another client.
 */
import { chmod } from 'node:fs/promises'
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import type { HandshakeConfig } from './handshake.js'
import { DEFAULT_LIMITS, DEFAULT_TCP_HOST, DEFAULT_TCP_PORT, type NbdLimits } from './limits.js'
import { NbdSession } from './session.js'
import type { ExportTable, Handover } from './types.js'
import { claimUnixPath } from './unixpath.js'

export type LogLevel = 'debug' | 'info' | 'warn' | 'error'

export interface NbdListenerOptions {
  readonly exports: ExportTable
  /** Owns the socket from here on: duplicate its descriptor, then destroy (never end) it. Reading is stopped. */
  readonly handover: (socket: Socket, handover: Handover, residual: Buffer) => void
  readonly log: (level: LogLevel, message: string, fields: Readonly<Record<string, unknown>>) => void
  readonly limits?: Partial<NbdLimits>
  /** Clients handed over that are still there, for maxConnections. Counts from the call of `handover` on. */
  readonly active: () => number
  /** `shut`: nobody is served before openGate(). Default `open`. */
  readonly gate?: 'open' | 'shut'
  /** Takes over a socket whose client was told to begin TLS. Absent: STARTTLS is not supported. */
  readonly startTls?: (socket: Socket) => void
}

export interface NbdListenerCounts {
  readonly accepted: number
  readonly handshakes: number
  readonly handedOver: number
  readonly refused: number
}

const BACKLOG = 1024
const KEEPALIVE_MILLIS = 60_000
/** A flood writes one line a second, not one a connection. */
const WARN_EVERY_MILLIS = 1000

const isLoopback = (host: string): boolean => host === 'localhost' || host === '::1' || /^127\./.test(host)

export class NbdListener {
  readonly #options: NbdListenerOptions
  readonly #limits: NbdLimits
  readonly #config: HandshakeConfig
  readonly #servers = new Set<Server>()
  /** In order of arrival. */
  readonly #sessions = new Set<NbdSession>()
  readonly #waiting = new Set<Socket>()
  #open: boolean
  #closed = false
  #accepted = 0
  #handedOver = 0
  #refused = 0
  #warnedAt = 0

  constructor(options: NbdListenerOptions) {
    this.#options = options
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits }
    this.#open = options.gate !== 'shut'
    this.#config = {
      exports: options.exports,
      full: () => this.#full(),
      stopping: () => this.#closed,
      tls: options.startTls === undefined ? 'unsupported' : 'available',
      maxOptions: this.#limits.maxOptions,
      maxOptionBytes: this.#limits.maxOptionBytes,
      maxSkipBytes: this.#limits.maxSkipBytes,
    }
  }

  /** Rejects with a reason when the path is taken by a live server, no socket, or too long. */
  async listenUnix(path: string): Promise<void> {
    const claimed = await claimUnixPath(path)
    if (!claimed.ok) throw new Error(claimed.error)
    const server = this.#server()
    // bind() happens inside listen(), before it returns: the file never exists with a wider mode.
    const umask = process.umask(0o177)
    let listening: Promise<void>
    try {
      listening = this.#listen(server, () => server.listen({ path, backlog: BACKLOG }))
    } finally {
      process.umask(umask)
    }
    await listening
    await chmod(path, 0o600)
    this.#options.log('info', 'nbd listening', { path })
  }

  async listenTcp(host: string = DEFAULT_TCP_HOST, port: number = DEFAULT_TCP_PORT): Promise<void> {
    const server = this.#server()
    await this.#listen(server, () => server.listen({ host, port, backlog: BACKLOG }))
    this.#options.log(isLoopback(host) ? 'info' : 'warn', 'nbd listening', {
      host,
      port: this.#port(server),
      tls: false,
    })
  }

  /** TCP ports listened on; of use after port 0. */
  ports(): readonly number[] {
    return [...this.#servers].map((s) => this.#port(s)).filter((p): p is number => p !== undefined)
  }

  /** Serves those who waited, then everybody. */
  openGate(): void {
    this.#open = true
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    for (const socket of waiting) if (!socket.destroyed) this.#begin(socket)
  }

  counts(): NbdListenerCounts {
    return {
      accepted: this.#accepted,
      handshakes: this.#sessions.size,
      handedOver: this.#handedOver,
      refused: this.#refused,
    }
  }

  /**
   * Stops listening. Clients in a handshake are told NBD_REP_ERR_SHUTDOWN when they ask for anything, and
   * are dropped when they go on all the same. Idempotent.
   */
  async close(): Promise<void> {
    this.#closed = true
    // Not awaited: its callback waits for sockets whose owner is somebody else by now.
    for (const server of this.#servers) server.close()
    this.#servers.clear()
    for (const socket of this.#waiting) socket.destroy()
    this.#waiting.clear()
    const end = Date.now() + this.#limits.goodbyeMillis
    while (this.#sessions.size > 0 && Date.now() < end) await setTimeout(5)
    for (const session of [...this.#sessions]) session.drop('server stops')
    await new Promise((resolve) => setImmediate(resolve))
  }

  #server(): Server {
    if (this.#closed) throw new Error('listener is closed')
    // Half open: a client may close its direction and wait for answers, also after the socket was handed over.
    return createServer(
      { allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEPALIVE_MILLIS },
      (s) => this.#accept(s),
    )
  }

  #listen(server: Server, start: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      server.once('error', reject)
      server.once('listening', () => {
        server.off('error', reject)
        // EMFILE and the like: the client is refused, the server goes on.
        server.on('error', (e) => this.#warn('nbd accept failed', { error: e.message }))
        this.#servers.add(server)
        resolve()
      })
      start()
    })
  }

  #port(server: Server): number | undefined {
    const address: AddressInfo | string | null = server.address()
    return typeof address === 'object' && address !== null ? address.port : undefined
  }

  #accept(socket: Socket): void {
    this.#accepted++
    if (this.#closed) {
      socket.destroy()
      return
    }
    if (this.#open) {
      this.#begin(socket)
      return
    }
    this.#makeRoom()
    this.#waiting.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => this.#waiting.delete(socket))
  }

  #makeRoom(): void {
    while (this.#sessions.size + this.#waiting.size >= this.#limits.maxHandshakes) {
      this.#refused++
      this.#warn('nbd handshakes at their limit, oldest dropped', { limit: this.#limits.maxHandshakes })
      const [session] = this.#sessions
      const [socket] = this.#waiting
      if (session !== undefined) session.drop('made room for a newer client')
      else if (socket !== undefined) {
        this.#waiting.delete(socket)
        socket.destroy()
      } else return
    }
  }

  #begin(socket: Socket): void {
    const { log } = this.#options
    this.#makeRoom()
    const session: NbdSession = new NbdSession(socket, this.#config, this.#limits.handshakeMillis, {
      handover: (s, handover, residual) => this.#handOver(s, handover, residual),
      startTls: (s) => {
        this.#sessions.delete(session)
        this.#options.startTls?.(s)
      },
      ended: (outcome, reason) => {
        this.#sessions.delete(session)
        if (outcome === 'closed') log('debug', 'nbd handshake ended', { reason })
      },
    })
    this.#sessions.add(session)
  }

  #full(): boolean {
    let clients = this.#options.active()
    for (const session of this.#sessions) if (session.granted) clients++
    if (clients < this.#limits.maxConnections) return false
    this.#refused++
    this.#warn('nbd connections at their limit, client refused', { limit: this.#limits.maxConnections })
    return true
  }

  #handOver(socket: Socket, handover: Handover, residual: Buffer): void {
    this.#handedOver++
    try {
      this.#options.handover(socket, handover, residual)
    } catch (e) {
      this.#options.log('error', 'nbd handover failed', { export: handover.export.name, error: String(e) })
      socket.destroy()
    }
  }

  #warn(message: string, fields: Readonly<Record<string, unknown>>): void {
    const now = Date.now()
    if (now - this.#warnedAt < WARN_EVERY_MILLIS) return
    this.#warnedAt = now
    this.#options.log('warn', message, fields)
  }
}
