/** Every bound of the listener in one place; man/nbd-support.7 repeats them for administrators. */
import { HANDSHAKE_DEFAULTS } from './handshake.js'

export interface NbdLimits {
  /** From accept to the end of the handshake, however busy the client keeps the line. */
  readonly handshakeMillis: number
  /** Handshakes at once; one more pushes the oldest out, so idlers cannot lock others out. */
  readonly maxHandshakes: number
  /** Clients in transmission; counted by the daemon (`active`). */
  readonly maxConnections: number
  readonly maxOptions: number
  readonly maxOptionBytes: number
  readonly maxSkipBytes: number
}

export const DEFAULT_LIMITS: NbdLimits = {
  handshakeMillis: 30_000,
  maxHandshakes: 1024,
  maxConnections: 4096,
  maxOptions: HANDSHAKE_DEFAULTS.maxOptions,
  maxOptionBytes: HANDSHAKE_DEFAULTS.maxOptionBytes,
  maxSkipBytes: HANDSHAKE_DEFAULTS.maxSkipBytes,
}

/** The port registered for NBD. */
export const DEFAULT_TCP_PORT = 10809
export const DEFAULT_TCP_HOST = '127.0.0.1'
