/** Thrown system errors as what they are: a MetaError in strerror(3)'s words. */
import { getSystemErrorMap } from 'node:util'
import { type MetaError, metaError } from '../msg/errors.js'
import { strerror } from '../msg/strerror.js'

export const errnoOf = (e: unknown): string | undefined => (e as NodeJS.ErrnoException | null)?.code

/** Turns a thrown system error into a MetaError; anything else is a bug and is thrown on. */
export const sysError = (e: unknown, object: string): MetaError => {
  const code = errnoOf(e)
  if (code === undefined) throw e
  return metaError('sys', object, strerror(code))
}

/** The sentence of an errno as the kernel numbers it. */
export const strerrorOf = (errno: number): string => strerror(getSystemErrorMap().get(-errno)?.[0] ?? String(errno))
