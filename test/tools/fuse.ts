/** Servers of FUSE file systems and loop devices over them: waited for, and gone again, in that order. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { type Server, until } from '../../bench/lib/process.js'
import { foreign, mustRun } from './foreign.js'

const mounted = (where: string): boolean => readFileSync('/proc/self/mounts', 'utf8').includes(` ${where} fuse`)

/** How long a mount may stay busy before it is taken away from whoever holds it. */
const BUSY_MS = 5_000

/** Until `server` has mounted something on `where`. @throws with what it wrote when it does not */
export const fuseMounted = (server: Server, where: string): Promise<void> => server.ready(() => mounted(where))

/** The file system is unmounted and its server ended. */
export const endFuse = async (server: Server, where: string): Promise<void> => {
  // What is stopped cannot let go.
  server.signal('SIGCONT')
  // A loop device lets go of its file a moment after it was detached.
  const tried = (): boolean => {
    if (!mounted(where) || server.over) return true
    spawnSync('fusermount3', ['-u', where])
    return false
  }
  await until(`${where} is free`, tried, BUSY_MS).catch(() => undefined)
  if (mounted(where)) spawnSync('fusermount3', ['-uz', where])
  await server.stop()
}

/** A loop device of its own; losetup itself tries again when another test was faster. */
export const attachLoop = async (file: string, ...options: readonly string[]): Promise<string> =>
  (await mustRun('losetup', ['--show', '-f', ...options, file])).trim()

/** It is gone when its last user is. */
export const detachLoop = async (device: string): Promise<void> => {
  await foreign('losetup', ['-d', device])
}
