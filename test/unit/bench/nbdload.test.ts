/**
 * The load generator's verifying mode, against honest servers and lying ones: what was damaged on
 * purpose must be reported, each kind by its own name, and nothing else.
 */
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  writeSync,
  closeSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type Server as NetServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { load, loadInBackground, type LoadRun } from '../../../bench/lib/nbdload.js'
import { listens, Server, sleep, until } from '../../../bench/lib/process.js'
import { installed } from '../../../bench/lib/servers.js'

/** A socket's path must be short, which tap's own directories are not. */
const scratch = (t: Test): string => {
  const dir = mkdtempSync(join(tmpdir(), 'nbdload-'))
  t.teardown(() => {
    rmSync(dir, { recursive: true, force: true })
  })
  return dir
}

const SPAN = 1 << 20
const BLOCK = 4096

const skip = (await installed('nbdkit')) ? false : 'nbdkit is not installed'

const nbdkit = async (dir: string, ...words: readonly string[]): Promise<{ server: Server; unix: string[] }> => {
  const socket = join(dir, 'nbdkit.sock')
  rmSync(socket, { force: true })
  const server = new Server(['nbdkit', '-f', '-U', socket, ...words], join(dir, 'log'))
  await server.ready(() => listens(socket))
  return { server, unix: ['--unix', socket, '--journal', join(dir, 'journal')] }
}

const blank = (dir: string): string => {
  const file = join(dir, 'image')
  writeFileSync(file, '')
  truncateSync(file, SPAN)
  return file
}

const init = ['--init', '--bs', `${BLOCK}`, '--span', `${SPAN}`, '--qd', '8']
const kinds = (run: LoadRun): Readonly<Record<string, number>> => run.report?.wrong.kinds ?? { none: -1 }

t.test('an honest server is found honest, in every mode', { skip }, async (t) => {
  const dir = scratch(t)
  const { server, unix } = await nbdkit(dir, 'file', blank(dir))
  t.teardown(() => server.stop())
  t.equal((await load([...unix, ...init])).status, 0)
  for (const words of [
    ['--qd', '4'],
    ['--qd', '32', '--connections', '3', '--threads', '2', '--flush-every', '10'],
    ['--qd', '8', '--fua', '--handshake', 'export-name'],
    ['--qd', '8', '--structured', '--sequential'],
  ]) {
    const mix = await load([...unix, ...words, '--rw', 'mix', '--read-percent', '50', '--count', '3000'])
    t.equal(mix.status, 0, words.join(' '))
    t.ok((mix.report?.writes ?? 0) > 1000 && (mix.report?.reads ?? 0) > 1000, 'both directions were used')
    const verify = await load([
      ...unix,
      '--verify',
      '--qd',
      '8',
      ...(words.includes('--structured') ? ['--structured'] : []),
    ])
    t.equal(verify.status, 0)
    t.match(verify.report?.verified, {
      blocks: SPAN / BLOCK,
      exact: SPAN / BLOCK,
      uncertain: 0,
      torn: 0,
      ackedMissing: 0,
    })
  }
  const offline = await load(['--verify', '--journal', join(dir, 'journal'), '--file', join(dir, 'image')])
  t.equal(offline.status, 0, 'and the file behind it')
})

t.test('every kind of damage has its name', { skip }, async (t) => {
  const dir = scratch(t)
  const image = blank(dir)
  const journal = ['--journal', join(dir, 'journal'), '--verify', '--file', image]
  const { server, unix } = await nbdkit(dir, 'file', image)
  t.teardown(() => server.stop())
  await load([...unix, ...init])
  copyFileSync(image, join(dir, 'old'))
  t.equal((await load([...unix, '--rw', 'write', '--qd', '8', '--count', '5000'])).status, 0)
  copyFileSync(image, join(dir, 'good'))

  const damage = async (
    name: string,
    expected: Readonly<Record<string, number>>,
    how: (fd: number) => void,
  ): Promise<void> => {
    const fd = openSync(image, 'r+')
    how(fd)
    closeSync(fd)
    const offline = await load(journal)
    t.equal(offline.status, 1, name)
    t.strictSame(kinds(offline), expected, `${name}, and nothing else`)
    t.strictSame(kinds(await load([...unix, '--verify', '--qd', '8'])), expected, `${name}, through the server`)
    copyFileSync(join(dir, 'good'), image)
  }
  const copy = (from: string, to: number, at: number, length: number, source = at): void => {
    const fd = openSync(join(dir, from), 'r')
    const bytes = Buffer.alloc(length)
    readSync(fd, bytes, 0, length, source)
    closeSync(fd)
    writeSync(to, bytes, 0, length, at)
  }
  await damage('one flipped bit', { flipped: 1 }, (fd) => {
    const byte = Buffer.alloc(1)
    readSync(fd, byte, 0, 1, 70_000)
    writeSync(fd, Buffer.from([(byte[0] ?? 0) ^ 4]), 0, 1, 70_000)
  })
  await damage('a lost write', { stale: 8 }, (fd) => {
    copy('old', fd, 40 * BLOCK, BLOCK)
  })
  await damage('a torn write', { stale: 3 }, (fd) => {
    copy('old', fd, 41 * BLOCK + 5 * 512, 3 * 512)
  })
  await damage('a write to the wrong place', { misplaced: 8 }, (fd) => {
    copy('good', fd, 50 * BLOCK, BLOCK, 60 * BLOCK)
  })
  await damage('a hole', { zeroes: 2 }, (fd) => writeSync(fd, Buffer.alloc(1024), 0, 1024, 512))
  await damage('somebody else\u2019s data', { foreign: 1 }, (fd) =>
    writeSync(fd, Buffer.alloc(512, 7), 0, 512, 99 * 512),
  )
})

t.test('a server that drops acknowledged writes is caught while it runs', { skip }, async (t) => {
  const dir = scratch(t)
  const image = blank(dir)
  const { server, unix } = await nbdkit(
    dir,
    ...['eval', `get_size=echo ${SPAN}`, 'can_write=exit 0', 'can_flush=exit 0', 'flush=true'],
    `pread=dd if=${image} skip=$4 count=$3 iflag=skip_bytes,count_bytes,fullblock status=none`,
    // Acknowledges, and forgets every write that begins at 48 KiB or above.
    `pwrite=if [ $4 -lt 49152 ]; then dd of=${image} seek=$4 conv=notrunc oflag=seek_bytes status=none; else cat >/dev/null; fi`,
  )
  t.teardown(() => server.stop())
  const words = ['--init', '--bs', `${BLOCK}`, '--span', '65536', '--qd', '2']
  t.equal((await load([...unix, ...words])).status, 0, 'writes alone show nothing')
  const mix = await load([...unix, '--rw', 'mix', '--qd', '2', '--count', '100'])
  t.equal(mix.status, 1, 'reads under load do')
  t.ok((kinds(mix)['zeroes'] ?? 0) > 0)
  t.strictSame(kinds(await load([...unix, '--verify', '--qd', '2'])), { zeroes: (65536 - 49152) / 512 })
})

t.test('kill -9 of the server: kept, or lost and reported', { skip }, async (t) => {
  for (const honest of [true, false]) {
    const dir = scratch(t)
    const image = blank(dir)
    // The cow filter keeps writes in a temporary file: they are flushed, and gone with the process.
    const words = honest ? ['file', image] : ['--filter=cow', 'file', image, 'cow-on-cache=false']
    const before = await nbdkit(dir, ...words)
    t.equal((await load([...before.unix, ...init])).status, 0)
    const running = loadInBackground([
      ...[...before.unix, '--rw', 'write', '--qd', '16', '--flush-every', '20', '--seconds', '20', '--warmup', '0'],
      ...['--tolerate-disconnect', '--ready-file', join(dir, 'ready')],
    ])
    await until('load runs', () => existsSync(join(dir, 'ready')))
    await sleep(200)
    await before.server.stop('SIGKILL')
    const killed = await running.finished
    t.equal(killed.status, 0, 'a disconnection is expected')
    t.match(killed.report, { disconnects: 1, wrong: { total: 0 } })
    t.ok((killed.report?.unanswered ?? 0) > 0, 'requests were in flight')
    const after = await nbdkit(dir, ...words)
    t.teardown(() => after.server.stop())
    const verify = await load([...after.unix, '--verify', '--qd', '8', '--settle'])
    t.equal(verify.status, honest ? 0 : 1)
    if (!honest) {
      t.ok((kinds(verify)['zeroes'] ?? 0) > 0)
      continue
    }
    t.ok((verify.report?.verified.uncertain ?? 0) > 0, 'what was in flight may be old or new')
    const again = await load([...after.unix, '--verify', '--qd', '8'])
    t.match(
      again.report?.verified,
      { uncertain: again.report?.verified.torn ?? -1 },
      'settled: from now on only what was seen',
    )
    t.equal(again.status, 0)
  }
})

/** Speaks just enough NBD to get to transmission, then `answer` says what goes out. */
const liar = (path: string, answer: (request: Buffer) => Buffer | null): Promise<NetServer> => {
  const talk = (socket: Socket): void => {
    let state: 'flags' | 'option' | 'transmission' = 'flags'
    let seen = Buffer.alloc(0)
    socket.write(Buffer.from('NBDMAGICIHAVEOPT\0\x03', 'latin1'))
    socket.on('error', () => undefined)
    socket.on('data', (chunk) => {
      seen = Buffer.concat([seen, chunk])
      if (state === 'flags' && seen.length >= 4) {
        seen = seen.subarray(4)
        state = 'option'
      }
      if (state === 'option' && seen.length >= 16 && seen.length >= 16 + seen.readUInt32BE(12)) {
        seen = seen.subarray(16 + seen.readUInt32BE(12))
        state = 'transmission'
        const reply = Buffer.alloc(10)
        reply.writeBigUInt64BE(BigInt(SPAN), 0)
        reply.writeUInt16BE(1 | 4, 8)
        socket.write(reply)
      }
      for (; state === 'transmission' && seen.length >= 28; seen = seen.subarray(28)) {
        const reply = answer(seen.subarray(0, 28))
        if (reply === null) socket.end()
        else socket.write(reply)
      }
    })
  }
  return new Promise((resolve) => {
    const server = createServer(talk).listen(path, () => {
      resolve(server)
    })
  })
}

t.test('a server that breaks the protocol is never tolerated', async (t) => {
  const simple = (cookie: Buffer, error = 0): Buffer => {
    const head = Buffer.alloc(16)
    head.writeUInt32BE(0x67446698, 0)
    head.writeUInt32BE(error, 4)
    cookie.copy(head, 8)
    return head
  }
  const cases: readonly (readonly [string, RegExp, (request: Buffer) => Buffer | null])[] = [
    ['foreign cookie', /not in flight/, () => Buffer.concat([simple(Buffer.alloc(8, 9)), Buffer.alloc(BLOCK)])],
    ['no magic', /without magic/, () => Buffer.alloc(32)],
    [
      'same reply twice',
      /not in flight/,
      (r) => Buffer.concat([simple(r.subarray(8, 16), 5), simple(r.subarray(8, 16), 5)]),
    ],
    ['silence', /no reply for too long/, () => Buffer.alloc(0)],
  ]
  for (const [name, reason, answer] of cases) {
    const path = join(scratch(t), `${name.replaceAll(' ', '-')}.sock`)
    const server = await liar(path, answer)
    const words = ['--handshake', 'export-name', '--qd', '1', '--count', '5', '--stall', '0.5']
    const run = await load(['--unix', path, ...words, '--tolerate-disconnect', '--tolerate-errors'])
    t.equal(run.status, 1, name)
    t.match(run.report?.broken, reason, name)
    server.close()
  }
  const path = join(scratch(t), 'hangup.sock')
  const server = await liar(path, () => null)
  const run = await load(['--unix', path, '--handshake', 'export-name', '--count', '5'])
  t.equal(run.status, 3, 'a hang-up is a disconnection')
  server.close()
})

t.test('wrong words are refused', async (t) => {
  for (const words of [
    [],
    ['--unix', 'a', '--bs', '100'],
    ['--unix', 'a', '--qd', '0'],
    ['--unix', 'a', '--verify'],
    ['--bogus'],
  ])
    t.equal((await load(words)).status, 2, words.join(' '))
  t.equal((await load(['--unix', '/nonexistent'])).status, 2)
})
