/**
 * One client between accept and handover: feeds the pure machine from a socket.
 *
 * Invariants
 * - At most one reply is queued in the socket: the next option is answered only after the last
 *   reply was taken (backpressure), and reading stops meanwhile.
 * - A client that closed its direction still gets the answers to what it sent, and is served if it asked for that.
 * - Before the last reply is written, reading has stopped for good; what was read by then travels
 *   as residual, what comes later stays in the kernel for the engine.
 * - `ended` is called exactly once, and the socket is then either handed over or destroyed.
 */
import type { Socket } from 'node:net'
import { greeting, initialState, step, type HandshakeConfig, type HandshakeState } from './handshake.js'
import type { Handover } from './types.js'

export interface SessionHooks {
  /** Owns the socket from here on; reading is stopped and must not be started again. */
  handover(socket: Socket, handover: Handover, residual: Buffer): void
  startTls(socket: Socket): void
  ended(outcome: 'handedOver' | 'closed', reason: string): void
}

/** Node's own pause() lets the handle read on into the stream's buffer; only the handle itself can stop. */
const stopReading = (socket: Socket): boolean => {
  const handle: unknown = Reflect.get(socket, '_handle')
  if (typeof handle !== 'object' || handle === null) return false
  const readStop: unknown = Reflect.get(handle, 'readStop')
  if (typeof readStop !== 'function') return false
  Reflect.apply(readStop, handle, [])
  return true
}

export class NbdSession {
  readonly #socket: Socket
  readonly #config: HandshakeConfig
  readonly #hooks: SessionHooks
  #state: HandshakeState = initialState
  #timer: NodeJS.Timeout
  #over = false
  #granted = false
  /** The last step left bytes that may hold a whole option. */
  #again = false
  #scheduled = false
  /** The client says no more. */
  #ended = false
  readonly #onData = (bytes: Buffer): void => this.#feed(bytes)
  readonly #onDrain = (): void => this.#continue()
  readonly #onEnd = (): void => {
    this.#ended = true
    if (!this.#granted && !this.#socket.writableNeedDrain) this.#continue()
  }
  readonly #onError = (): void => {}
  readonly #onClose = (): void => this.#finish('closed', 'client went away')

  constructor(socket: Socket, config: HandshakeConfig, handshakeMillis: number, hooks: SessionHooks) {
    this.#socket = socket
    this.#config = config
    this.#hooks = hooks
    this.#timer = setTimeout(() => this.drop('handshake timeout'), handshakeMillis)
    socket.on('error', this.#onError)
    socket.on('close', this.#onClose)
    socket.on('drain', this.#onDrain)
    socket.on('end', this.#onEnd)
    socket.on('data', this.#onData)
    // The peer's socket may die between accept and here; write then reports through 'error'.
    socket.write(greeting())
  }

  /** The client is being told that it is served; its socket is not handed over yet. */
  get granted(): boolean {
    return this.#granted
  }

  /** Ends the session at once; nothing more is said to the client. */
  drop(reason: string): void {
    this.#finish('closed', reason)
    this.#socket.destroy()
  }

  #feed(bytes: Buffer): void {
    if (this.#over) return
    const { state, reply, effect } = step(this.#config, this.#state, bytes)
    this.#state = state
    this.#again = effect.kind === 'again'
    switch (effect.kind) {
      case 'read':
      case 'again':
        if (this.#again) this.#socket.pause()
        if (reply.length > 0 && !this.#socket.write(reply)) this.#socket.pause()
        else this.#continue()
        return
      case 'handover':
        this.#handOver(effect.handover, effect.residual, reply)
        return
      case 'startTls':
        this.#detach()
        this.#socket.write(reply, () => this.#hooks.startTls(this.#socket))
        return
      case 'close':
        if (!effect.orderly) {
          this.drop(effect.reason)
          return
        }
        this.#socket.off('data', this.#onData)
        this.#socket.end(reply, () => this.drop(effect.reason))
        return
    }
  }

  /** The last reply was taken: the next option if it is here already, else the next bytes. */
  #continue(): void {
    if (this.#over || this.#state.phase === 'ended' || this.#scheduled) return
    if (this.#state.pending.length === 0 || !this.#again) {
      if (this.#ended) this.drop('client went away')
      else this.#socket.resume()
      return
    }
    // The stack stays flat however many options came in one piece.
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#feed(Buffer.alloc(0))
    })
  }

  #handOver(handover: Handover, residual: Buffer, reply: Buffer): void {
    const socket = this.#socket
    this.#granted = true
    socket.off('data', this.#onData)
    if (!stopReading(socket)) {
      this.drop('socket closed before handover')
      return
    }
    socket.pause()
    const rest: Buffer[] = [residual]
    for (let chunk: unknown = socket.read(); chunk !== null; chunk = socket.read())
      if (Buffer.isBuffer(chunk)) rest.push(chunk)
    socket.write(reply, (error) => {
      if (this.#over) return
      if (error) {
        this.drop('client went away')
        return
      }
      this.#finish('handedOver', handover.export.name)
      this.#hooks.handover(socket, handover, Buffer.concat(rest))
    })
  }

  #detach(): void {
    clearTimeout(this.#timer)
    this.#socket.off('close', this.#onClose)
    this.#socket.off('drain', this.#onDrain)
    this.#socket.off('end', this.#onEnd)
    this.#socket.off('data', this.#onData)
    // The error listener stays: a late ECONNRESET must not become an uncaught exception.
  }

  #finish(outcome: 'handedOver' | 'closed', reason: string): void {
    if (this.#over) return
    this.#over = true
    this.#detach()
    this.#hooks.ended(outcome, reason)
  }
}
