/**
 * A real file system of the host's kernel on metadevices: made, filled, unmounted, metad restarted,
 * checked and compared; and one that stays mounted while metad restarts.
 */
import { createHash } from 'node:crypto'
import { createReadStream, existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import t from 'tap'
import { until } from '../../bench/lib/process.js'
import { startMetad } from '../tools/daemon.js'
import { everyKind, mustRun } from '../tools/foreign.js'
import { attachNbdfuse, attachReconnecting, missingBlock, mountAt } from '../tools/mounts.js'

const metad = await startMetad(t)
await everyKind(metad, 32)

/** Files of many sizes whose content follows from their name, so that nothing can be mistaken for another. */
const fill = (where: string, count: number): void => {
  for (let i = 0; i < count; i++) {
    const dir = join(where, `dir${i % 7}`)
    mkdirSync(dir, { recursive: true })
    const stamp = createHash('sha256')
      .update(`${where.at(-1) ?? ''}${i}`)
      .digest()
    writeFileSync(join(dir, `file${i}`), Buffer.alloc((i * 7919) % 90_000, stamp))
  }
}

const digests = async (where: string): Promise<Map<string, string>> => {
  const all = new Map<string, string>()
  for (const entry of readdirSync(where, { recursive: true, encoding: 'utf8' }).sort()) {
    if (!statSync(join(where, entry)).isFile()) continue
    const hash = createHash('sha256')
    await pipeline(createReadStream(join(where, entry)), hash)
    all.set(entry, hash.digest('hex'))
  }
  return all
}

t.test(
  'ext4 over nbdfuse survives a restart of metad between mounts',
  { skip: missingBlock('nbdfuse', 'mkfs.ext4', 'e2fsck') },
  async (t) => {
    for (const name of ['d0', 'd3']) {
      const where = join(metad.root, `mnt-${name}`)
      const first = await attachNbdfuse(t, metad, name)
      await mustRun('mkfs.ext4', ['-q', '-F', first.path])
      const unmount = await mountAt(t, first, where)
      fill(where, 300)
      const before = await digests(where)
      await unmount()
      await first.detach()
      t.equal(await metad.stop(), 0)
      await metad.start()
      const second = await attachNbdfuse(t, metad, name)
      await mustRun('e2fsck', ['-f', '-n', second.path])
      const unmountAgain = await mountAt(t, second, where)
      const after = await digests(where)
      t.equal(after.size, 300)
      t.same(after, before, `${name}: every file as it was`)
      await unmountAgain()
      await second.detach()
    }
  },
)

t.test(
  'a mounted file system outlives a restart of metad',
  { skip: missingBlock('qemu-storage-daemon', 'nbdfuse', 'mkfs.ext4', 'e2fsck') },
  async (t) => {
    const where = join(metad.root, 'mnt-live')
    const device = await attachReconnecting(t, metad, 'd5')
    await mustRun('mkfs.ext4', ['-q', '-F', device.path])
    const unmount = await mountAt(t, device, where)
    fill(where, 100)
    await mustRun('sync', ['-f', where])
    const writing = mustRun('sh', [
      '-c',
      'for i in $(seq 40); do head -c 200000 /dev/urandom > "$0/w$i" && sync "$0/w$i" || exit 1; done',
      where,
    ])
    let over = false
    void writing.finally(() => (over = true)).catch(() => undefined)
    await until('it writes', () => over || existsSync(join(where, 'w3')))
    t.equal(over, false, 'killed under load')
    await metad.kill9()
    await metad.start()
    await writing
    t.pass('no write failed')
    const before = await digests(where)
    await unmount()
    await device.detach()
    // Another client, so that nothing can come from a cache of the first.
    const again = await attachNbdfuse(t, metad, 'd5')
    await mustRun('e2fsck', ['-f', '-n', again.path])
    const unmountAgain = await mountAt(t, again, where)
    t.same(await digests(where), before)
    t.equal(before.size, 140)
    await unmountAgain()
    await again.detach()
  },
)
