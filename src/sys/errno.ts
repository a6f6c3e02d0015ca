/** System errors in strerror(3)'s words, as SVM prints them. */
import { getSystemErrorMap } from 'node:util'
import { type MetaError, metaError } from '../msg/errors.js'

const SENTENCES: Readonly<Record<string, string>> = {
  EPERM: 'Operation not permitted',
  ENOENT: 'No such file or directory',
  EIO: 'Input/output error',
  ENXIO: 'No such device or address',
  EAGAIN: 'Resource temporarily unavailable',
  EACCES: 'Permission denied',
  EBUSY: 'Device or resource busy',
  EEXIST: 'File exists',
  ENODEV: 'No such device',
  ENOTDIR: 'Not a directory',
  EISDIR: 'Is a directory',
  EINVAL: 'Invalid argument',
  EFBIG: 'File too large',
  ENOSPC: 'No space left on device',
  EROFS: 'Read-only file system',
  ENAMETOOLONG: 'File name too long',
  ELOOP: 'Too many levels of symbolic links',
}

export const strerror = (code: string): string => {
  const known = SENTENCES[code]
  if (known !== undefined) return known
  for (const [name, message] of getSystemErrorMap().values()) if (name === code) return message
  return code
}

export const errnoOf = (e: unknown): string | undefined => (e as NodeJS.ErrnoException | null)?.code

/** Turns a thrown system error into a MetaError; anything else is a bug and is thrown on. */
export const sysError = (e: unknown, object: string): MetaError => {
  const code = errnoOf(e)
  if (code === undefined) throw e
  return metaError('sys', object, strerror(code))
}
