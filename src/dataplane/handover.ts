/**
 * Takes a socket away from Node. Node offers no public way, so the undocumented handle is touched
 * here and nowhere else, and selfTest() proves at start that it still is what we think.
 *
 * Invariants: before takeSocketFd() the caller has paused the socket and written everything it has to
 * say; after it the JavaScript socket is destroyed (never ended: that would shut the connection down)
 * and the connection lives on in the duplicate that `use` made.
 */
import { createServer, connect, type Socket } from 'node:net'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

interface Handle {
  readonly fd: number
  readStop(): void
}

const handleOf = (socket: Socket): Handle | undefined => {
  const handle: unknown = Reflect.get(socket, '_handle')
  if (typeof handle !== 'object' || handle === null) return undefined
  const fd: unknown = Reflect.get(handle, 'fd')
  const readStop: unknown = Reflect.get(handle, 'readStop')
  if (typeof fd !== 'number' || fd < 0 || typeof readStop !== 'function') return undefined
  return handle as Handle
}

/** The descriptor of an open socket, which stays Node's. @throws when the socket is closed */
export const fdOf = (socket: Socket): number => {
  const handle = handleOf(socket)
  if (handle === undefined) throw new Error('the socket has no descriptor')
  return handle.fd
}

/**
 * Stops reading, lends the descriptor to `use`, which must duplicate it before it returns, and
 * destroys the socket whatever `use` does.
 */
export const takeSocketFd = <T>(socket: Socket, use: (fd: number) => T): T => {
  try {
    const handle = handleOf(socket)
    if (handle === undefined) throw new Error('the socket has no descriptor')
    handle.readStop()
    socket.pause()
    return use(handle.fd)
  } finally {
    socket.destroy()
  }
}

/** Whether a descriptor can still be had on this Node. */
export const selfTest = async (): Promise<boolean> => {
  const directory = await mkdtemp(join(tmpdir(), 'metadisk-'))
  const server = createServer()
  try {
    const path = join(directory, 's')
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(path, resolve)
    })
    const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve))
    const client = connect(path)
    const socket = await accepted
    const found = handleOf(socket) !== undefined
    socket.destroy()
    client.destroy()
    return found
  } finally {
    server.close()
    await rm(directory, { recursive: true, force: true })
  }
}
