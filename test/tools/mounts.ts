/** A block device out of an NBD export on a host without nbd.ko: FUSE and a loop device. Needs root. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, openSync, closeSync } from 'node:fs'
import { join } from 'node:path'
import { Server, until } from '../../bench/lib/process.js'
import type { Metad, Test } from './daemon.js'
import { foreign, missing, mustRun } from './foreign.js'
import { attachLoop, detachLoop, endFuse, fuseMounted } from './fuse.js'

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

const loopOver = async (
  t: Test,
  backing: string,
  mount: string,
  server: Server,
  direct: 'on' | 'off',
): Promise<BlockDevice> => {
  let path: string | undefined
  const detach = async (): Promise<void> => {
    if (path !== undefined) await detachLoop(path)
    path = undefined
    await endFuse(server, mount)
  }
  t.teardown(detach)
  await fuseMounted(server, mount)
  path = await attachLoop(backing, `--direct-io=${direct}`)
  return { path, detach }
}

/** nbdfuse: the plain client; it does not survive a restart of the server. */
export const attachNbdfuse = (t: Test, metad: Metad, name: string): Promise<BlockDevice> => {
  const mount = join(metad.root, `fuse-${name.replaceAll('/', '-')}`)
  mkdirSync(mount, { recursive: true })
  const server = new Server(['nbdfuse', '-C', '4', join(mount, 'disk'), metad.nbdUri(name)], `${mount}.log`)
  return loopOver(t, join(mount, 'disk'), mount, server, 'on')
}

/** qemu-storage-daemon: connects again after a restart of the server and repeats what was in flight. */
export const attachReconnecting = (t: Test, metad: Metad, name: string): Promise<BlockDevice> => {
  const file = join(metad.root, `qsd-${name.replaceAll('/', '-')}`)
  closeSync(openSync(file, 'a'))
  const server = new Server(
    [
      ...['qemu-storage-daemon', '--blockdev'],
      `driver=nbd,node-name=n,server.type=unix,server.path=${metad.socket},export=${name},reconnect-delay=30,cache.direct=on,discard=unmap`,
      ...['--export', `type=fuse,id=e,node-name=n,mountpoint=${file},writable=on,growable=off`],
    ],
    `${file}.log`,
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
    // Whoever looks at every new mount of the host keeps it busy for a moment.
    await until(`${where} is not busy`, async () => {
      const { status, stderr } = await foreign('umount', [where])
      if (status !== 0 && !/busy/.test(stderr)) throw new Error(`umount ${where}: ${stderr}`)
      return status === 0
    })
    done = true
  }
  t.teardown(() => unmount().catch(() => void spawnSync('umount', ['-l', where])))
  return unmount
}
