/**
 * Claiming a unix socket path. A file left by a dead daemon refuses connections and is removed; one
 * that answers belongs to somebody and is left alone, as is anything that is no socket.
 */
import { lstat, unlink } from 'node:fs/promises'
import { connect } from 'node:net'
import { err, ok, type Result } from '../base/result.js'

/** sockaddr_un holds 108 bytes with the NUL; a longer path would be cut silently. */
export const MAX_UNIX_PATH_BYTES = 107
const PROBE_MILLIS = 2000

const codeOf = (e: unknown): string =>
  e instanceof Error && 'code' in e && typeof e.code === 'string' ? e.code : String(e)

/** `dead` only for a plain refusal; a full backlog or a slow answer is somebody alive. */
const probe = (path: string): Promise<'dead' | 'alive' | 'gone'> =>
  new Promise((resolve) => {
    const socket = connect(path)
    const finish = (answer: 'dead' | 'alive' | 'gone'): void => {
      clearTimeout(timer)
      socket.destroy()
      resolve(answer)
    }
    const timer = setTimeout(() => finish('alive'), PROBE_MILLIS)
    socket.once('connect', () => finish('alive'))
    socket.on('error', (e) => {
      const code = codeOf(e)
      finish(code === 'ECONNREFUSED' ? 'dead' : code === 'ENOENT' ? 'gone' : 'alive')
    })
  })

export const claimUnixPath = async (path: string): Promise<Result<void, string>> => {
  if (Buffer.byteLength(path) > MAX_UNIX_PATH_BYTES)
    return err(`socket path longer than ${MAX_UNIX_PATH_BYTES} bytes: ${path}`)
  const stat = async (): Promise<{ ino: number; socket: boolean } | string> => {
    try {
      const s = await lstat(path)
      return { ino: s.ino, socket: s.isSocket() }
    } catch (e) {
      return codeOf(e)
    }
  }
  const before = await stat()
  if (before === 'ENOENT') return ok(undefined)
  if (typeof before === 'string') return err(`${path}: ${before}`)
  if (!before.socket) return err(`${path}: exists and is not a socket`)
  const answer = await probe(path)
  if (answer === 'gone') return ok(undefined)
  if (answer === 'alive') return err(`${path}: in use by a running server`)
  const after = await stat()
  // Somebody else may have cleaned up and bound anew while we asked.
  if (typeof after !== 'string' && after.ino !== before.ino) return err(`${path}: in use by a running server`)
  try {
    await unlink(path)
  } catch (e) {
    if (codeOf(e) !== 'ENOENT') return err(`${path}: ${codeOf(e)}`)
  }
  return ok(undefined)
}
