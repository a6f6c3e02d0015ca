/**
 * A disk whose errors and hangs a test commands: nbdkit's memory behind nbdfuse, so the component is a
 * real file of a FUSE file system, and with a loop device on top a real block device.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from './daemon.js'
import { mustRun } from './foreign.js'

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

const mounted = (where: string): boolean => readFileSync('/proc/self/mounts', 'utf8').includes(` ${where} fuse`)

const gone = (child: ChildProcess): boolean => (child.exitCode ?? child.signalCode) !== null

const end = async (child: ChildProcess, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> => {
  if (gone(child)) return
  child.kill(signal)
  await new Promise((resolve) => (gone(child) ? resolve(undefined) : child.once('exit', resolve)))
}

/** `directory` must exist; everything is made below it. */
export const faultyDisk = async (t: Test, directory: string, mebibytes: number): Promise<FaultyDisk> => {
  const at = (name: string): string => join(directory, name)
  const mount = at('mount')
  mkdirSync(mount)
  const socket = at('nbdkit.sock')
  const trigger = at('fail')
  const kit = spawn(
    'nbdkit',
    [
      ...['-f', '-U', socket, '--filter=log', '--filter=error', 'memory', `${mebibytes}M`, `logfile=${at('log')}`],
      ...['error=EIO', 'error-pwrite-rate=100%', `error-file=${trigger}`],
    ],
    { stdio: 'ignore' },
  )
  t.teardown(() => end(kit, 'SIGKILL'))
  const fuse = spawn('nbdfuse', ['-C', '2', join(mount, 'disk'), `nbd+unix:///?socket=${socket}`], { stdio: 'ignore' })
  t.teardown(async () => {
    fuse.kill('SIGCONT')
    for (let i = 0; i < 50 && mounted(mount) && !gone(fuse); i++) {
      spawnSync('fusermount3', ['-u', mount])
      await sleep(50)
    }
    if (mounted(mount)) spawnSync('fusermount3', ['-uz', mount])
    await end(fuse, 'SIGTERM')
  })
  for (let i = 0; !mounted(mount); i++) {
    if (i === 500 || gone(kit)) throw new Error(`nothing is mounted on ${mount}`)
    if (gone(fuse)) throw new Error('nbdfuse ended')
    await sleep(20)
  }
  return {
    path: join(mount, 'disk'),
    failWrites: (on) => (on ? writeFileSync(trigger, '') : rmSync(trigger)),
    hang: () => void fuse.kill('SIGSTOP'),
    resume: () => void fuse.kill('SIGCONT'),
    log: () => readFileSync(at('log'), 'utf8').split('\n'),
  }
}

/** The same with a loop device on top. Needs root. */
export const faultyLoop = async (t: Test, directory: string, mebibytes: number): Promise<LoopDisk> => {
  const disk = await faultyDisk(t, directory, mebibytes)
  const device = (await mustRun('losetup', ['--show', '-f', disk.path])).trim()
  t.teardown(async () => {
    await mustRun('losetup', ['-d', device])
  })
  return { ...disk, device }
}
