/** strerror(3)'s sentences: what SVM puts in the place of a message when a system call failed. Node's own words differ. */
import { getSystemErrorMap } from 'node:util'

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
  ENFILE: 'Too many open files in system',
  EMFILE: 'Too many open files',
  ENOMEM: 'Cannot allocate memory',
  EFBIG: 'File too large',
  ENOSPC: 'No space left on device',
  EROFS: 'Read-only file system',
  ETIMEDOUT: 'Connection timed out',
  ENAMETOOLONG: 'File name too long',
  ELOOP: 'Too many levels of symbolic links',
  EDQUOT: 'Disk quota exceeded',
  ETXTBSY: 'Text file busy',
}

/** @param code errno name, `ENOENT`. */
export const strerror = (code: string): string => {
  const known = SENTENCES[code]
  if (known !== undefined) return known
  for (const [name, message] of getSystemErrorMap().values()) if (name === code) return message
  return code
}
