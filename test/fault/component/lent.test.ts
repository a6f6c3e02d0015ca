/**
 * A client that hangs with pages in its socket that it was lent: commands end, its storage is used for nothing else
 * before it has read them or is gone, and what it reads then is what was there.
 */
import t from 'tap'
import { until } from '../../../bench/lib/process.js'
import { startMetad } from '../../tools/daemon.js'
import { resynced } from '../../tools/foreign.js'
import { NbdClient } from '../../tools/nbdclient.js'
import { hang } from '../../tools/slowclient.js'

const MIB = 1 << 20
const BUSY = /busy/i

const data = (seed: number): Buffer =>
  Buffer.from(Array.from({ length: MIB }, (_, i) => (i * 7 + (i >> 9) * seed) & 255))

const metad = await startMetad(t, { conf: 'threads = 1\n' })
metad.must('metadb', ['-a', '-f', ...[0, 1, 2].map((i) => `${metad.root}/disks/replica${i}`)])
const disk = (name: string): string => metad.disk(name, 16)
/** As a client does that wants no more; metaclear does not take a metadevice from those that are connected. */
const leave = async (client: NbdClient): Promise<void> => {
  client.socket.end()
  await until('metaclear', () => metad.run('metaclear', ['d5']).status === 0)
}
/** Metadevice, metainit's words, and one component of it. */
const KINDS = [
  ['a stripe', (c: readonly string[]) => ['d5', '1', '3', ...c]],
  ['RAID5', (c: readonly string[]) => ['d5', '-r', ...c, '-i', '64k']],
] as const

for (const [kind, words] of KINDS) {
  t.test(`${kind}: metaclear ends, and the storage is busy until the client reads`, async (t) => {
    const disks = ['a', 'b', 'c'].map((d) => disk(`${kind.slice(-1)}${d}`))
    const first = disks[0] ?? ''
    metad.must('metainit', words(disks))
    await until('okay', () => !/Initializing/.test(metad.must('metastat', ['d5'])))
    const before = data(3)
    const { client, answer } = await hang(metad, 'd5', before)
    await leave(client)
    const refused = metad.run('metainit', ['d6', '1', '1', first])
    t.equal(refused.status, 1)
    t.match(refused.stderr, BUSY)

    client.socket.resume()
    const got = await answer
    t.equal(got.error, 0)
    t.ok(got.data.equals(before), 'what it asked for')
    await client.closed
    metad.must('metainit', ['d6', '1', '1', first])
    metad.must('metaclear', ['d6'])
  })

  t.test(`${kind}: a client that is gone holds nothing`, async () => {
    const disks = ['x', 'y', 'z'].map((d) => disk(`${kind.slice(-1)}${d}`))
    metad.must('metainit', words(disks))
    await until('okay', () => !/Initializing/.test(metad.must('metastat', ['d5'])))
    const { client } = await hang(metad, 'd5', data(5))
    await leave(client)
    client.destroy()
    metad.must('metainit', ['d6', '1', '1', disks[0] ?? ''])
    metad.must('metaclear', ['d6'])
  })
}

t.test('a submirror that is detached is served by itself once nobody holds pages of it', async (t) => {
  metad.must('metainit', ['d1', '1', '1', disk('m1')])
  metad.must('metainit', ['d2', '1', '1', disk('m2')])
  metad.must('metainit', ['d0', '-m', 'd1'])
  metad.must('metattach', ['d0', 'd2'])
  await resynced(metad)
  const before = data(9)
  const { client, answer } = await hang(metad, 'd0', before)
  metad.must('metadetach', ['d0', 'd2'])
  await t.rejects(NbdClient.open(metad.socket, { name: 'd2' }), 'nobody may write to it yet')
  client.socket.resume()
  t.ok((await answer).data.equals(before), 'what it asked for')
  const open = async (): Promise<NbdClient | undefined> =>
    NbdClient.open(metad.socket, { name: 'd2' }).catch(() => undefined)
  let detached: NbdClient | undefined
  await until('d2 is served', async () => (detached = await open()) !== undefined)
  t.ok((await detached?.read(0n, MIB))?.data.equals(before), 'it has what the mirror had')
  t.equal((await client.read(0n, 512)).error, 0, 'the client of the mirror was not cut off')
  client.destroy()
  detached?.destroy()
  await Promise.all([client.closed, detached?.closed])
  t.equal(await metad.stop(), 0)
})
