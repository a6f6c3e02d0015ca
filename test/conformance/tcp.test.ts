/**
 * TCP, which is off unless md.conf asks for it: every sort of metadevice through foreign clients, and the ways in
 * which only TCP clients come and go: in pieces, by a reset, with one direction closed.
 */
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { CMD, CMD_FLAG, OPT } from '../../src/nbd/constants.js'
import { until } from '../../bench/lib/process.js'
import { startMetad } from '../tools/daemon.js'
import { everyKind, foreign, missing, missingNbdsh, mustRun, sizeOf } from '../tools/foreign.js'
import { NbdClient } from '../tools/nbdclient.js'
import { goData, MODERN, option, u32 } from '../tools/nbdsession.js'
import { freePort } from '../tools/ports.js'

const port = await freePort()
const metad = await startMetad(t, { conf: `nbd_tcp = 127.0.0.1:${port}\nthreads = 2\n` })
const kinds = await everyKind(metad, 16)
const uri = (name: string): string => `nbd://127.0.0.1:${port}/${name}`
const file = (name: string): string => join(metad.root, name)
const open = (name: string, structured = false): Promise<NbdClient> => NbdClient.open(port, { name, structured })

t.test('nbdcopy and qemu-img', { skip: missing('nbdcopy', 'qemu-img') }, async (t) => {
  for (const { name, kind } of kinds) {
    const size = sizeOf(metad, name)
    writeFileSync(file('in'), randomBytes(size))
    await mustRun('nbdcopy', ['--flush', file('in'), uri(name)])
    await mustRun('nbdcopy', [uri(name), file('out')])
    t.ok(readFileSync(file('out')).equals(readFileSync(file('in'))), `${kind}: nbdcopy`)
    const same = ['compare', '-f', 'raw', '-F', 'raw', file('in'), uri(name)]
    t.equal((await foreign('qemu-img', same)).status, 0, `${kind}: qemu-img`)
  }
})

t.test('qemu-io and fio', { skip: missing('qemu-io', 'fio') }, async (t) => {
  for (const { name, kind } of kinds) {
    const io = ['write -P 0x11 1 4M', 'write -f -P 0x22 65000 3000', 'write -z 1M 64k', 'discard 2M 64k', 'flush']
    const back = ['read -P 0x22 65000 3000', 'read -P 0 1M 64k', 'read -P 0x11 3M 1M']
    const said = await mustRun('qemu-io', ['-f', 'raw', ...[...io, ...back].flatMap((c) => ['-c', c]), uri(name)])
    t.notMatch(said, /failed|error/i, `${kind}: qemu-io`)
    const ran = await foreign('fio', [
      ...['--name=verify', '--ioengine=nbd', `--uri=${uri(name)}`, '--rw=randwrite', '--bsrange=512-64k'],
      ...['--blockalign=512', '--iodepth=32', '--size=8M', '--verify=crc32c', '--verify_fatal=1', '--fsync=64'],
      ...['--randrepeat=1', `--aux-path=${metad.root}`],
    ])
    t.equal(ran.status, 0, `${kind}: fio ${ran.status === 0 ? '' : ran.stdout + ran.stderr}`)
  }
})

t.test('nbdsh: odd ranges, FUA, several connections', { skip: missingNbdsh() }, async (t) => {
  for (const { name, kind } of kinds) {
    const python = `
import os
h.connect_uri(${JSON.stringify(uri(name))})
other = nbd.NBD()
other.connect_uri(${JSON.stringify(uri(name))})
size = h.get_size()
for at, length in ((0, 1), (511, 2), (65535, 3), (131071, 70001), (size - 300000, 300000)):
    data = os.urandom(length)
    h.pwrite(data, at, nbd.CMD_FLAG_FUA)
    assert other.pread(length, at) == data, (at, length)
h.flush()
h.shutdown()
`
    const ran = await foreign('nbdsh', ['-c', python])
    t.equal(ran.status, 0, `${kind} ${ran.stderr}`)
  }
})

t.test('a client whose bytes come one at a time', async (t) => {
  const client = await open('d3', true)
  const data = randomBytes(700)
  const message = client.encode({ command: CMD.write, flags: CMD_FLAG.fua, offset: 4099n, payload: data }, 1n)
  for (let at = 0; at < message.length;) {
    const n = at < 64 ? 1 : 97
    client.socket.write(message.subarray(at, at + n))
    at += n
    await new Promise((resolve) => setImmediate(resolve))
  }
  // Its answer belongs to a request the client object did not make: it is told apart by the data.
  client.destroy()
  const other = await open('d3')
  await until('the data is there', async () => (await other.read(4099n, 700)).data.equals(data))
  t.pass('byte by byte')
  await other.disconnect()
})

/** Everything that arrives until the server closes. */
const all = (socket: Socket): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    const parts: Buffer[] = []
    socket.on('data', (b: Buffer) => parts.push(b))
    socket.on('end', () => resolve(Buffer.concat(parts)))
    socket.on('error', reject)
  })

t.test('a client that closes its direction gets its answers', async (t) => {
  const writer = await open('d4')
  const data = randomBytes(4096)
  t.equal((await writer.write(8192n, data)).error, 0)
  // Handshake, request and goodbye at once, as `nc -N` sends them; and with the requests in pieces of their own.
  const names = option(OPT.list)
  for (const pieces of [...Array<number>(20).fill(0), 1, 2, 3]) {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
    const received = all(socket)
    const read = writer.encode({ command: CMD.read, offset: 8192n, length: 4096 }, 77n)
    const parts = [u32(MODERN), option(OPT.go, goData('d4')), read]
    if (pieces < 2) socket.end(Buffer.concat(pieces === 1 ? parts : parts.toSpliced(1, 0, names, names, names)))
    else {
      for (const part of parts) {
        socket.write(part)
        await sleep(pieces === 2 ? 0 : 30)
      }
      socket.end()
    }
    const answer = await received
    socket.destroy()
    t.ok(answer.subarray(-4096).equals(data), `in ${pieces} pieces: ${answer.length} bytes`)
    t.equal(answer.readBigUInt64BE(answer.length - 4096 - 8), 77n)
  }
  await writer.disconnect()
})

t.test('resets at every moment end only their own connection', async (t) => {
  const neighbour = await open('d0', true)
  const data = randomBytes(65536)
  t.equal((await neighbour.write(0n, data)).error, 0)
  for (let round = 0; round < 40; round++) {
    const socket = connect(port, '127.0.0.1')
    socket.on('error', () => {})
    const request = neighbour.encode({ command: CMD.read, offset: 0n, length: 1 << 20 }, 1n)
    const half = neighbour.encode({ command: CMD.write, offset: 1n << 20n, payload: randomBytes(100_000) }, 2n)
    const message = Buffer.concat([
      u32(MODERN),
      option(OPT.go, goData(kinds[round % kinds.length]?.name ?? 'd0')),
      ...Array.from({ length: 8 }, () => request),
      half,
    ])
    socket.write(message.subarray(0, 1 + Math.floor((message.length * round) / 40)))
    await new Promise((resolve) => socket.once('data', resolve))
    if (round % 3 !== 0) await sleep(round % 5)
    socket.resetAndDestroy()
  }
  t.ok((await neighbour.read(0n, data.length)).data.equals(data))
  // The engine has let go of them when nothing is in the way of metaclear.
  await neighbour.disconnect()
  await until('no connection is left behind', () => metad.run('metaclear', ['d5']).status === 0)
})

t.test('a port that is taken: metad says so and does not start', async (t) => {
  const root = file('second')
  mkdirSync(join(root, 'etc'), { recursive: true })
  writeFileSync(join(root, 'etc/md.conf'), `nbd_tcp = 127.0.0.1:${port}\n`)
  const ran = await foreign(process.execPath, [join(import.meta.dirname, '../../cmd/metad.js'), '--root', root])
  t.not(ran.status, 0)
  t.match(ran.stdout + ran.stderr, new RegExp(`EADDRINUSE.*127.0.0.1:${port}`))
})

const SIX = Object.values(networkInterfaces()).some((list) => list?.some((a) => a.address === '::1'))
t.test('IPv6', { skip: SIX ? false : 'no IPv6 loopback address' }, async (t) => {
  const other = await freePort()
  const six = await startMetad(t, { conf: `nbd_tcp = [::1]:${other}\n` })
  const greeting = await new Promise<string>((resolve) => {
    const socket = connect(other, '::1')
    socket.on('data', (b: Buffer) => {
      socket.destroy()
      resolve(b.subarray(0, 8).toString())
    })
    socket.on('error', (e) => resolve(e.message))
  })
  t.equal(greeting, 'NBDMAGIC')
  await t.rejects(NbdClient.open(other, { name: 'd0' }), 'the other loopback address was not asked for')
  await six.stop()
})

t.test('not asked for, not there', async (t) => {
  const off = await startMetad(t)
  t.match(off.log(), /nbd listening/)
  t.notMatch(off.log(), /"port"/)
})
