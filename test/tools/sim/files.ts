/** What metad does to files itself, on simulated disks: a block has the value of its cell, or is in the ledger. */
import { BLOCK_BYTES } from '../../../src/base/units.js'
import type { HostFiles } from '../../../src/sys/hostfiles.js'
import type { SimDisk } from './disks.js'
import type { Ledger } from './ledger.js'
import type { Schedule } from './schedule.js'

const eio = (): Error => Object.assign(new Error('EIO: simulated'), { code: 'EIO' })

export const simFiles = (
  schedule: Schedule,
  cellBlocks: number,
  ledger: Ledger,
  opened: (fd: number) => SimDisk,
): HostFiles => {
  const valueOf = (from: Buffer): number =>
    from.subarray(4).some((b) => b !== 0) ? ledger.block(from) : from.readInt32LE()
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
        const block = ledger.blockAt(value)
        if (block !== undefined) return Buffer.from(block)
        const found = Buffer.alloc(bytes)
        found.writeInt32LE(value)
        return found
      }),
    write: (fd, from, at) =>
      later(() => (opened(fd).write(cellAt(at), valueOf(from), schedule.dice) ? true : undefined)).then(
        () => undefined,
      ),
    sync: (fd) => later(() => (opened(fd).sync() ? true : undefined)).then(() => undefined),
  }
}
