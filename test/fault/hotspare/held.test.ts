/** A hot spare of which a client that hangs still has pages it was lent: nobody writes to it, and it is not broken. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { until } from '../../../bench/lib/process.js'
import { startMetad } from '../../tools/daemon.js'
import { missingFaultDisk, startFaultDisks } from '../../tools/faultdisk.js'
import { NbdClient } from '../../tools/nbdclient.js'
import { hang } from '../../tools/slowclient.js'

t.setTimeout(240_000)
const MIB = 1 << 20

t.test('it is passed over, and taken when the client has read', { skip: missingFaultDisk() }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'held-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  const disks = await startFaultDisks(t, dir, { x: 24, t: 24 })
  const metad = await startMetad(t, { conf: 'threads = 1\ncomponent_timeout = 5\n' })
  const [b, c, s] = ['b', 'c', 's'].map((d) => metad.disk(d, 24))
  const x = disks.path('x')
  metad.must('metadb', ['-a', '-f', join(metad.root, 'replicas')])
  metad.must('metainit', ['hsp001', s ?? '', disks.path('t')])
  metad.must('metainit', ['d5', '-r', x, b ?? '', c ?? '', '-i', '64k', '-h', 'hsp001'])
  const all = (): string => metad.must('metastat', ['d5', 'hsp001'])
  const becomes = (what: string, condition: (stat: string) => boolean): Promise<void> =>
    until(what, () => condition(all()), 60_000)
  const okay = (stat: string): boolean => /State: Okay/.test(stat) && !/Resyncing|Maintenance|Initial/.test(stat)
  /** What the spares are, in the order of the pool. */
  const spares = (stat = all()): string =>
    [...stat.slice(stat.indexOf('hsp001: ')).matchAll(/In use|Available|Broken/g)].map(([word]) => word).join(', ')
  const spared = (states: string) => (stat: string) => okay(stat) && spares(stat) === states

  /** A disk does not take what is written. */
  const fails = async (disk: string, seed: number): Promise<void> => {
    disks.tell(`${disk} fail write,sync EIO`)
    const writer = await NbdClient.open(metad.socket, { name: 'd5' })
    t.equal((await writer.write(BigInt(8 * MIB), Buffer.alloc(MIB, seed))).error, 0)
    t.equal((await writer.flush()).error, 0)
    writer.destroy()
    await writer.closed
  }

  await becomes('initialised', okay)
  await fails('x', 1)
  await becomes('on the first spare', spared('In use, Available'))
  const content = Buffer.from(Array.from({ length: MIB }, (_, i) => (i * 7 + (i >> 9)) & 255))
  const { client, answer } = await hang(metad, 'd5', content)
  disks.tell('x ok')
  metad.must('metareplace', ['-e', 'd5', x])
  await becomes('given back', spared('Available, Available'))
  await fails('x', 2)
  await becomes('on the second spare', spared('Available, In use'))
  t.match(metad.log(), /d5: hotspare \S+\/s is still busy, and passed over until it is not/)

  await fails('t', 3)
  await becomes('known to have failed', (stat) => /State: Needs Maintenance/.test(stat))
  metad.must('metastat', ['-i'])
  t.equal(spares(), 'Available, Broken', 'it does not leave its pool either')
  client.socket.resume()
  const got = await answer
  t.ok(got.error === 0 && got.data.equals(content), 'what it asked for')
  await becomes('on the first spare, by itself', spared('In use, Broken'))
  client.destroy()
  await client.closed
  t.equal(metad.must('metasync', ['--verify', 'd5']), 'd5: parity is right\n')
  t.equal(await metad.stop(), 0)
})
