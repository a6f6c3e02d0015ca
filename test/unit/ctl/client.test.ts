import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { ask } from '../../../src/ctl/client.js'
import type { Reply } from '../../../src/ctl/protocol.js'
import { errorText } from '../../../src/msg/errors.js'

interface Fake {
  readonly path: string
  readonly received: string[]
}

/** A server that does what `act` says once a whole line has arrived. */
const serve = async (t: Test, act: (socket: Socket) => void): Promise<Fake> => {
  const dir = mkdtempSync(join(tmpdir(), 'ctl-'))
  const path = join(dir, 'admin.sock')
  const received: string[] = []
  const server = createServer((socket) => {
    let text = ''
    socket.on('error', () => undefined)
    socket.on('data', (d) => {
      text += d.toString()
      if (!text.endsWith('\n')) return
      received.push(text)
      act(socket)
    })
  })
  await new Promise<void>((done) => server.listen(path, () => done()))
  t.teardown(() => {
    server.close()
    rmSync(dir, { recursive: true })
  })
  return { path, received }
}

const ping = { op: 'ping' } as const
const collect = async (path: string, signal?: AbortSignal): Promise<{ replies: Reply[]; text: string }> => {
  const replies: Reply[] = []
  const answer = await ask(ping, (r) => replies.push(r), {
    socketPath: path,
    ...(signal === undefined ? {} : { signal }),
  })
  if (!answer.ok) return { replies, text: errorText(answer.error) }
  return { replies, text: answer.value.kind === 'done' ? `done ${answer.value.status}` : 'detached' }
}

t.test('one request line, replies in order, then the status', async (t) => {
  const fake = await serve(t, (s) => {
    s.write('{"reply":"progress","name":"d0","done":1,"total":2}\n{"reply":"warn')
    setTimeout(
      () => s.write('ing","lines":["careful"]}\n{"reply":"done","status":3}\n{"reply":"done","status":9}\n'),
      20,
    )
  })
  const got = await collect(fake.path)
  t.strictSame(got, {
    replies: [
      { reply: 'progress', name: 'd0', done: 1, total: 2 },
      { reply: 'warning', lines: ['careful'] },
    ],
    text: 'done 3',
  })
  t.strictSame(fake.received, ['{"op":"ping"}\n'])
})

t.test('an answer that does not end is an error, whatever it held', async (t) => {
  const bye = await serve(t, (s) => s.end())
  t.equal((await collect(bye.path)).text, 'control socket: metad hung up before it had answered')
  const cut = await serve(t, (s) => s.end('{"reply":"done","sta'))
  t.equal((await collect(cut.path)).text, 'control socket: answer cut short')
  const some = await serve(t, (s) => s.end('{"reply":"warning","lines":[]}\n'))
  const got = await collect(some.path)
  t.equal(got.replies.length, 1)
  t.match(got.text, /hung up/)
})

t.test('garbage is named', async (t) => {
  for (const [bytes, text] of [
    ['HTTP/1.1 400 Bad Request\r\n', 'line is not a JSON object'],
    [Buffer.from([0x7b, 0xff, 0x0a]), 'line is not UTF-8'],
    ['{"reply":"hello"}\n', 'not a reply'],
    ['{"reply":"toString"}\n', 'not a reply'],
    ['{"reply":"done"}\n', 'not a reply'],
    ['{"reply":"done","status":"0"}\n', 'not a reply'],
    ['{"reply":"stat","report":{"units":[]}}\n', 'not a reply'],
    ['{"reply":"warning","lines":[1]}\n', 'not a reply'],
    [`{"reply":"warning","lines":["${'x'.repeat(1 << 20)}"]}\n`, 'line too long'],
  ] as const) {
    const fake = await serve(t, (s) => s.write(bytes))
    t.match((await collect(fake.path)).text, text)
  }
})

t.test('no daemon, a dead socket and a forbidden one read differently', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'ctl-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  t.match(
    (await collect(join(dir, 'none'))).text,
    /^metad is not running \(no socket .*none; start it with: metad --daemon\)$/,
  )
  const fake = await serve(t, (s) => s.end())
  const stale = join(dir, 'stale')
  // A socket file that nobody listens on any more, as a killed metad leaves it.
  const { execFileSync } = await import('node:child_process')
  const script = `require('net').createServer().listen(${JSON.stringify(stale)},()=>process.kill(process.pid,'SIGKILL'))`
  t.throws(() => execFileSync(process.execPath, ['-e', script], { stdio: 'ignore' }))
  t.match((await collect(stale)).text, /^metad is not running \(nobody answers at/)
  t.equal(fake.received.length, 0)
})

t.test('hanging up detaches', async (t) => {
  const abort = new AbortController()
  const fake = await serve(t, () => setTimeout(() => abort.abort(), 10))
  t.equal((await collect(fake.path, abort.signal)).text, 'detached')
  t.equal((await collect(fake.path, abort.signal)).text, 'detached', 'also when aborted beforehand')
  t.equal(fake.received.length, 1)
})

t.test('a request that no server would take is not sent', async (t) => {
  const fake = await serve(t, (s) => s.end())
  const names = ['x'.repeat(1 << 20)]
  const answer = await ask({ op: 'stat', probe: false, names }, () => undefined, { socketPath: fake.path })
  t.equal(answer.ok ? '' : errorText(answer.error), 'control socket: request too long')
})

t.test('a printer that throws is a bug and comes out as one', async (t) => {
  const fake = await serve(t, (s) => s.write('{"reply":"warning","lines":[]}\n'))
  await t.rejects(
    ask(ping, () => { throw new Error('printer') }, { socketPath: fake.path }), // prettier-ignore
    { message: 'printer' },
  )
})
