/** max_connections with a real metad: who comes too late is told so, nobody else notices, places come back. */
import { randomBytes } from 'node:crypto'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { OPT, REP } from '../../src/nbd/constants.js'
import { startMetad } from '../tools/daemon.js'
import { foreign, missing, mustRun } from '../tools/foreign.js'
import { NbdClient } from '../tools/nbdclient.js'
import { haggle, option, parseReplies } from '../tools/nbdsession.js'

const LIMIT = 4
const metad = await startMetad(t, { conf: `max_connections = ${LIMIT}\n` })
metad.must('metadb', ['-a', '-f', join(metad.root, 'disks/replica')])
metad.must('metainit', ['d1', '1', '1', metad.disk('disk1', 16)])
metad.must('metainit', ['d2', '1', '1', metad.disk('disk2', 16)])

const open = (name: string, oldGo = false): Promise<NbdClient> => NbdClient.open(metad.socket, { name, oldGo })
const POLICY = REP.errPolicy - 0x80000000

/** A place comes back when the engine has said that the client is gone. */
const place = async (name: string): Promise<NbdClient> => {
  for (const end = Date.now() + 60_000; Date.now() < end; await sleep(10)) {
    const client = await open(name).catch(() => undefined)
    if (client !== undefined) return client
  }
  throw new Error('no place came back')
}

t.test('of many at once as many get in as there are places', async (t) => {
  const tries = await Promise.allSettled(Array.from({ length: 60 }, (_, i) => open(i % 2 ? 'd1' : 'd2')))
  const clients = tries.flatMap((r) => (r.status === 'fulfilled' ? [r.value] : []))
  t.equal(clients.length, LIMIT, 'over all metadevices together')
  for (const r of tries) if (r.status === 'rejected') t.match(String(r.reason), new RegExp(`error ${POLICY}\\b`))
  await t.rejects(open('d1', true), /closed/, 'EXPORT_NAME knows no errors')

  const data = randomBytes(65536)
  for (const [i, c] of clients.entries()) {
    t.equal((await c.write(BigInt(i) * 65536n, data)).error, 0, 'a client that is in works on')
    t.ok((await c.read(BigInt(i) * 65536n, data.length)).data.equals(data))
  }
  if (missing('nbdinfo', 'nbdcopy') === false) {
    t.match(
      await mustRun('nbdinfo', ['--list', `nbd+unix:///?socket=${metad.socket}`]),
      /export="d2"/,
      'asking is free',
    )
    const refused = await foreign('nbdcopy', [metad.nbdUri('d1'), 'null:'])
    t.not(refused.status, 0)
    t.match(refused.stderr, /too many clients|policy/, 'nbdcopy can say why')
  }

  const [first, ...others] = clients
  await first?.disconnect()
  const next = await place('d1')
  await t.rejects(open('d2'), new RegExp(`error ${POLICY}\\b`), 'one left, one came')
  for (const c of others) c.destroy()
  const again = [await place('d2'), await place('d2'), await place('d2')]
  for (const c of [next, ...again]) t.equal((await c.flush()).error, 0)
  await Promise.all([next, ...again].map((c) => c.disconnect()))
})

t.test('a client in its handshake hears that metad stops', async (t) => {
  // Whoever asks again and again hears it, unless this process is held up for longer than metad waits.
  for (let attempt = 0; attempt < 5; attempt++) {
    const socket = connect(metad.socket)
    const parts: Buffer[] = []
    const closed = new Promise<void>((resolve) => socket.on('close', () => resolve()))
    socket.on('error', () => {})
    socket.on('data', (b: Buffer) => parts.push(b))
    socket.write(haggle())
    const told = (): number[] => {
      const all = Buffer.concat(parts)
      const whole = all.subarray(18)
      try {
        return parseReplies(whole).map((r) => r.type)
      } catch {
        return []
      }
    }
    const asking = setInterval(() => socket.write(option(OPT.structuredReply)), 2)
    while (told().length === 0) await sleep(1)
    t.equal(await metad.stop(), 0)
    await closed
    clearInterval(asking)
    t.notOk(told().includes(REP.errUnsup))
    const heard = told().includes(REP.errShutdown)
    await metad.start()
    if (heard) {
      t.pass('NBD_REP_ERR_SHUTDOWN')
      return
    }
  }
  t.fail('never told')
})
