/** A block device out of an NBD export on a host without nbd.ko: FUSE and a loop device. Needs root. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { existsSync, mkdirSync, openSync, closeSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Metad, Test } from './daemon.js'
import { missing, mustRun } from './foreign.js'

export interface BlockDevice {
  readonly path: string
  /** Loop device, FUSE mount and its process are gone when it resolves. */
  detach(): Promise<void>
}

/** Value for a test's `skip`. */
export const missingBlock = (...tools: readonly string[]): string | false => {
  if (process.getuid?.() !== 0) return 'needs root for loop devices'
  for (const device of ['/dev/fuse', '/dev/loop-control']) if (!existsSync(device)) return `no ${device}`
  return missing('losetup', 'mount', 'umount', 'fusermount3', ...tools)
}

const mounted = (path: string): boolean => readFileSync('/proc/self/mounts', 'utf8').includes(` ${path} fuse`)

const until = async (what: () => boolean, say: string): Promise<void> => {
  for (let i = 0; i < 500; i++) {
    if (what()) return
    await sleep(20)
  }
  throw new Error(say)
}

const loopOver = async (
  t: Test,
  backing: string,
  mount: string,
  server: ChildProcess,
  direct: 'on' | 'off',
): Promise<BlockDevice> => {
  let path: string | undefined
  const detach = async (): Promise<void> => {
    if (path !== undefined) spawnSync('losetup', ['-d', path])
    path = undefined
    // The loop device lets go of its file a moment later.
    for (let i = 0; i < 50 && mounted(mount); i++) {
      spawnSync('fusermount3', ['-u', mount])
      await sleep(50)
    }
    if (mounted(mount)) spawnSync('fusermount3', ['-uz', mount])
    if (server.exitCode === null && server.signalCode === null) {
      server.kill()
      const late = setTimeout(() => server.kill('SIGKILL'), 5000)
      await new Promise((resolve) =>
        (server.exitCode ?? server.signalCode) === null ? server.once('exit', resolve) : resolve(undefined),
      )
      clearTimeout(late)
    }
  }
  t.teardown(detach)
  await until(() => mounted(mount) || server.exitCode !== null, `nothing mounted on ${mount}`)
  path = (await mustRun('losetup', ['--show', '-f', `--direct-io=${direct}`, backing])).trim()
  return { path, detach }
}

/** nbdfuse: the plain client; it does not survive a restart of the server. */
export const attachNbdfuse = (t: Test, metad: Metad, name: string): Promise<BlockDevice> => {
  const mount = join(metad.root, `fuse-${name.replaceAll('/', '-')}`)
  mkdirSync(mount, { recursive: true })
  const server = spawn('nbdfuse', ['-C', '4', join(mount, 'disk'), metad.nbdUri(name)], { stdio: 'ignore' })
  return loopOver(t, join(mount, 'disk'), mount, server, 'on')
}

/** qemu-storage-daemon: connects again after a restart of the server and repeats what was in flight. */
export const attachReconnecting = (t: Test, metad: Metad, name: string): Promise<BlockDevice> => {
  const file = join(metad.root, `qsd-${name.replaceAll('/', '-')}`)
  closeSync(openSync(file, 'a'))
  const server = spawn(
    'qemu-storage-daemon',
    [
      '--blockdev',
      `driver=nbd,node-name=n,server.type=unix,server.path=${metad.socket},export=${name},reconnect-delay=30,cache.direct=on,discard=unmap`,
      '--export',
      `type=fuse,id=e,node-name=n,mountpoint=${file},writable=on,growable=off`,
    ],
    { stdio: 'ignore' },
  )
  // Its FUSE export (7.2) corrupts data under a loop device with direct I/O, whatever server is behind it.
  return loopOver(t, file, file, server, 'off')
}

/** Mounts, and unmounts at the latest when the test ends. */
export const mountAt = async (t: Test, device: BlockDevice, where: string): Promise<() => Promise<void>> => {
  mkdirSync(where, { recursive: true })
  await mustRun('mount', [device.path, where])
  let done = false
  const unmount = async (): Promise<void> => {
    if (done) return
    done = true
    await mustRun('umount', [where])
  }
  t.teardown(() => unmount().catch(() => void spawnSync('umount', ['-l', where])))
  return unmount
}
