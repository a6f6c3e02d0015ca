/**
 * Loads the addon and gives it types. The only file that knows where it lies.
 *
 * The addon is found relative to this file: build/js/src/dataplane beside build/native in a build,
 * build/cli in a bundle. Loading is lazy, so that importing a helper costs nothing until it is called.
 */
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { DataPlane } from './types.js'

export interface BlockDeviceInfo {
  readonly sizeBytes: bigint
  readonly logicalBlock: number
  readonly readOnly: boolean
}

interface Addon {
  readonly Engine: new () => DataPlane
  readonly peerUid: (fd: number) => number
  readonly blockDeviceInfo: (fd: number) => BlockDeviceInfo
  readonly sdNotify: (text: string) => boolean
  readonly lockFile: (fd: number) => boolean
  readonly setIoFlusher: () => boolean
  readonly endWithin: (status: number, millis: number) => void
}

let loaded: Addon | undefined

/** Every directory above this file is looked at: sources, builds and bundles lie at different depths. */
const addonPath = (): string => {
  const override = process.env['METADISK_ADDON']
  if (override !== undefined && override !== '') return override
  const tried: string[] = []
  let directory = dirname(fileURLToPath(import.meta.url))
  for (;;) {
    for (const inside of ['native', join('build', 'native')]) {
      const path = join(directory, inside, 'metadisk.node')
      if (existsSync(path)) return path
      tried.push(path)
    }
    const parent = dirname(directory)
    if (parent === directory) throw new Error(`metadisk.node is not built; looked for ${tried.join(', ')}`)
    directory = parent
  }
}

const addon = (): Addon => {
  loaded ??= createRequire(import.meta.url)(addonPath()) as Addon
  return loaded
}

/** A new engine, not started. @throws when the addon is missing or was built for another system. */
export const loadDataPlane = (): DataPlane => new (addon().Engine)()

/** Uid of the process at the other end of a unix socket. @throws on other descriptors */
export const peerUid = (fd: number): number => addon().peerUid(fd)

/** @throws unless fd is a block device */
export const blockDeviceInfo = (fd: number): BlockDeviceInfo => addon().blockDeviceInfo(fd)

/** Tells systemd; false when it does not listen. */
export const sdNotify = (text: string): boolean => addon().sdNotify(text)

/** An exclusive lock for as long as the open file lives; false when somebody else has it. */
export const lockFile = (fd: number): boolean => addon().lockFile(fd)

/**
 * Tells the kernel that this process writes what memory reclaim wants written; false when it may not.
 * Memory is not locked as well: V8 gives pages back with madvise, which fails on locked ones and kills Node.
 */
export const setIoFlusher = (): boolean => addon().setIoFlusher()

/**
 * Ends the process so many milliseconds from now, whatever it is stuck in by then: an exit waits for threads,
 * and those may wait for a disk.
 */
export const endWithin = (status: number, millis: number): void => addon().endWithin(status, millis)
