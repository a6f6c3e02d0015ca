/**
 * A disk whose errors and hangs a test commands: nbdkit's memory behind nbdfuse, so the component is a
 * real file of a FUSE file system, and with a loop device on top a real block device.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { listens, Server } from '../../bench/lib/process.js'
import type { Test } from './daemon.js'
import { attachLoop, detachLoop, endFuse, fuseMounted } from './fuse.js'

export interface FaultyDisk {
  /** The file on FUSE. */
  readonly path: string
  /** From now on (or no longer) every write is answered with EIO. */
  failWrites(on: boolean): void
  /** Nothing is answered until resume(). */
  hang(): void
  resume(): void
  /** What reached the disk so far, one call a line: `Write id=... offset=0x... count=0x...`, `Flush id=...`. */
  log(): readonly string[]
}

export interface LoopDisk extends FaultyDisk {
  /** The loop device over `path`; its writes wait in the page cache of the device. */
  readonly device: string
}

/** `directory` must exist; everything is made below it. */
export const faultyDisk = async (t: Test, directory: string, mebibytes: number): Promise<FaultyDisk> => {
  const at = (name: string): string => join(directory, name)
  const mount = at('mount')
  mkdirSync(mount)
  const socket = at('nbdkit.sock')
  const trigger = at('fail')
  const kit = new Server(
    [
      ...['nbdkit', '-f', '-U', socket, '--filter=log', '--filter=error', 'memory', `${mebibytes}M`],
      ...[`logfile=${at('log')}`, 'error=EIO', 'error-pwrite-rate=100%', `error-file=${trigger}`],
    ],
    at('nbdkit.out'),
  )
  t.teardown(() => kit.stop('SIGKILL'))
  await kit.ready(() => listens(socket))
  const words = ['nbdfuse', '-C', '2', join(mount, 'disk'), `nbd+unix:///?socket=${socket}`]
  const fuse = new Server(words, at('nbdfuse.out'))
  t.teardown(() => endFuse(fuse, mount))
  await fuseMounted(fuse, mount)
  return {
    path: join(mount, 'disk'),
    failWrites: (on) => (on ? writeFileSync(trigger, '') : rmSync(trigger)),
    hang: () => fuse.signal('SIGSTOP'),
    resume: () => fuse.signal('SIGCONT'),
    log: () => readFileSync(at('log'), 'utf8').split('\n'),
  }
}

/** The same with a loop device on top. Needs root. */
export const faultyLoop = async (t: Test, directory: string, mebibytes: number): Promise<LoopDisk> => {
  const disk = await faultyDisk(t, directory, mebibytes)
  const device = await attachLoop(disk.path)
  t.teardown(() => detachLoop(device))
  return { ...disk, device }
}
