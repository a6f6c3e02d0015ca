/** One metad per root: an flock on run/metad.lock, which the kernel drops however the daemon ends. */
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import { lockFile } from '../dataplane/native.js'

export type LockOutcome = { readonly held: true; release(): void } | { readonly held: false; readonly pid: string }

export const takeLock = (path: string): LockOutcome => {
  const fd = openSync(path, 'a+', 0o600)
  if (!lockFile(fd)) {
    closeSync(fd)
    return { held: false, pid: readFileSync(path, 'utf8').trim() }
  }
  ftruncateSync(fd)
  writeSync(fd, `${process.pid}\n`)
  return { held: true, release: () => closeSync(fd) }
}
