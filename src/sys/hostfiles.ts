/**
 * What metad itself does to files, the engine apart: one place, so that a simulated host can stand in.
 * Whoever reads or writes through a descriptor keeps it open until the promise settles.
 */
import { fsync, read, write } from 'node:fs'
import { promisify } from 'node:util'
import { writeAtomically } from './files.js'

export interface HostFiles {
  /** Replaces a small file as a whole, durably. */
  replace(path: string, text: string): Promise<void>
  /** Exactly `bytes` from byte `at`, in memory that O_DIRECT takes; a short read rejects with EIO. */
  read(fd: number, bytes: number, at: number): Promise<Buffer>
  /** All of `from`, which read() made; a short write rejects with EIO. */
  write(fd: number, from: Buffer, at: number): Promise<void>
  sync(fd: number): Promise<void>
}

const readAt = promisify(read)
const writeAt = promisify(write)

/** What node:buffer cannot promise and O_DIRECT needs: memory that begins on a page. */
declare const WebAssembly: {
  readonly Memory: new (size: { readonly initial: number }) => { readonly buffer: ArrayBuffer }
}
const PAGE_BYTES = 65536
const aligned = (bytes: number): Buffer =>
  Buffer.from(new WebAssembly.Memory({ initial: Math.ceil(bytes / PAGE_BYTES) }).buffer, 0, bytes)

const short = (what: string): Error => Object.assign(new Error(`short ${what}`), { code: 'EIO' })

export const HOST_FILES: HostFiles = {
  replace: writeAtomically,
  read: async (fd, bytes, at) => {
    const into = aligned(bytes)
    const { bytesRead } = await readAt(fd, into, 0, bytes, at)
    if (bytesRead !== bytes) throw short('read')
    return into
  },
  write: async (fd, from, at) => {
    const { bytesWritten } = await writeAt(fd, from, 0, from.length, at)
    if (bytesWritten !== from.length) throw short('write')
  },
  sync: promisify(fsync),
}
