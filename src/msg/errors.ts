import type { Result } from '../base/result.js'
import type { ErrorCode } from './catalogue.js'
import { ERRORS } from './catalogue.js'

/**
 * An expected failure, as data: it crosses the control socket as it is and becomes text only in the
 * command (commands.md 0.1). `object` is what it is about (`d0`, `d0: /disks/a`, `/dev/sda1`,
 * `d0: "-q"`), `context` where the definition stood (`/etc/metadisk/md.tab line 12`).
 */
export interface MetaError {
  readonly code: ErrorCode
  readonly object?: string
  readonly context?: string
  readonly args?: readonly string[]
}
export type MetaResult<T> = Result<T, MetaError>

export const metaError = (code: ErrorCode, object?: string, ...args: string[]): MetaError => ({
  code,
  ...(object === undefined ? {} : { object }),
  ...(args.length === 0 ? {} : { args }),
})

/** The message part, holes filled: `has appeared more than once in the specification of d4`. */
export const errorText = (e: MetaError): string => {
  let i = 0
  return ERRORS[e.code].replace(/%s/g, () => e.args?.[i++] ?? '')
}
