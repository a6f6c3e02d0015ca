/** What metad does to files itself, on simulated disks: a block has the value of its cell. */
import { BLOCK_BYTES } from '../../../src/base/units.js'
import type { HostFiles } from '../../../src/sys/hostfiles.js'
import type { SimDisk } from './disks.js'
import type { Schedule } from './schedule.js'

const eio = (): Error => Object.assign(new Error('EIO: simulated'), { code: 'EIO' })

export const simFiles = (schedule: Schedule, cellBlocks: number, opened: (fd: number) => SimDisk): HostFiles => {
  const cellAt = (at: number): number => Math.floor(at / BLOCK_BYTES / cellBlocks)
  const later = <T>(work: () => T | undefined): Promise<T> =>
    new Promise((resolve, reject) => {
      schedule.later(() => {
        try {
          const done = work()
          if (done === undefined) reject(eio())
          else resolve(done)
        } catch (e) {
          reject(e instanceof Error ? e : new Error(String(e)))
        }
      })
    })
  return {
    replace: () => later(() => true).then(() => undefined),
    read: (fd, bytes, at) =>
      later(() => {
        const value = opened(fd).read(cellAt(at))
        if (value === undefined) return undefined
        const found = Buffer.alloc(bytes)
        found.writeInt32LE(value)
        return found
      }),
    write: (fd, from, at) =>
      later(() => (opened(fd).write(cellAt(at), from.readInt32LE(), schedule.dice) ? true : undefined)).then(
        () => undefined,
      ),
    sync: (fd) => later(() => (opened(fd).sync() ? true : undefined)).then(() => undefined),
  }
}
