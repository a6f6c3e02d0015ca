/** Every bound of the listener in one place; man/nbd-support.7 repeats them for administrators. */
import { HANDSHAKE_DEFAULTS } from './handshake.js'

export interface NbdLimits {
  /** From accept to the end of the handshake, however busy the client keeps the line. */
  readonly handshakeMillis: number
  /** Handshakes at once; one more pushes the oldest out, so idlers cannot lock others out. */
  readonly maxHandshakes: number
  /** Clients in transmission; handed over to the daemon, which counts them (`active`). */
  readonly maxConnections: number
  /** How long close() lets clients in the middle of a handshake hear that the server stops. */
  readonly goodbyeMillis: number
  readonly maxOptions: number
  readonly maxOptionBytes: number
  readonly maxSkipBytes: number
}

export const DEFAULT_LIMITS: NbdLimits = {
  handshakeMillis: 30_000,
  maxHandshakes: 1024,
  maxConnections: 4096,
  goodbyeMillis: 300,
  maxOptions: HANDSHAKE_DEFAULTS.maxOptions,
  maxOptionBytes: HANDSHAKE_DEFAULTS.maxOptionBytes,
  maxSkipBytes: HANDSHAKE_DEFAULTS.maxSkipBytes,
}

/** The port registered for NBD. */
export const DEFAULT_TCP_PORT = 10809
export const DEFAULT_TCP_HOST = '127.0.0.1'
