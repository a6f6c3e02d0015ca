/**
 * Two audiences: pino's structured records for developers and log collectors, and md(7D)'s sentences
 * for administrators, which go into the same stream as the message of a record of their level.
 */
import { pino, type Logger } from 'pino'

export type { Logger }

/** Writes synchronously: the last lines before a crash are the ones that matter. */
export const makeLogger = (level: string, file: string | undefined): Logger =>
  pino(
    { level, base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime },
    pino.destination({ dest: file ?? 2, sync: true, mkdir: true }),
  )

export type Notice = (level: 'notice' | 'warning' | 'panic', text: string) => void

export const noticeTo =
  (log: Logger): Notice =>
  (level, text) => {
    const prefixed = `${level === 'notice' ? 'NOTICE' : 'WARNING'}: ${text}`
    if (level === 'panic') log.fatal(prefixed)
    else if (level === 'warning') log.warn(prefixed)
    else log.info(prefixed)
  }
