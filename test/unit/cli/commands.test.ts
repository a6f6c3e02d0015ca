import t from 'tap'
import type { Reply } from '../../../src/ctl/protocol.js'
import { metaError } from '../../../src/msg/errors.js'
import { done, run } from './fake.js'

t.test('what each command line asks for', async (t) => {
  const init = { op: 'init', cwd: '/here', check: false, force: false, all: false, words: [] }
  const clear = {
    op: 'clear',
    check: false,
    all: false,
    force: false,
    recursive: false,
    softPartitions: false,
    names: [],
  }
  const attach = { op: 'attach', cwd: '/here', check: false, interlace: null }
  const param = { op: 'param', name: 'd0', read: null, write: null, pass: null, hotSparePool: null }
  const replace = { op: 'replace', cwd: '/here', force: false, unit: 'd0', old: '/a' }
  const sync = { op: 'sync', cancel: false, parity: false, restart: false, verify: null, bufferBlocks: null }
  for (const [line, want] of [
    ['metainit d0 1 2 a b -i 32k', { ...init, words: ['d0', '1', '2', 'a', 'b', '-i', '32k'] }],
    ['metainit -n -f d0', { ...init, check: true, force: true, words: ['d0'] }],
    ['metainit -na', { ...init, check: true, all: true }],
    ['metainit d0 -m d1 -r -S 0', { ...init, words: ['d0', '-m', 'd1', '-r', '-S', '0'] }],
    ['metaclear d0 d1', { ...clear, names: ['d0', 'd1'] }],
    ['metaclear -f d0', { ...clear, force: true, names: ['d0'] }],
    ['metaclear -r d0', { ...clear, force: true, recursive: true, names: ['d0'] }],
    ['metaclear -a', { ...clear, force: true, all: true }],
    ['metaclear -p /a', { ...clear, softPartitions: true, names: ['/a'] }],
    ['metattach d0 d2', { ...attach, words: ['d0', 'd2'] }],
    ['metattach d0', { ...attach, words: ['d0'] }],
    ['metattach -n -i 16k d1 a b', { ...attach, check: true, interlace: '16k', words: ['d1', 'a', 'b'] }],
    ['metadetach d0 d2', { op: 'detach', force: false, words: ['d0', 'd2'] }],
    ['metadetach -f d0 d2', { op: 'detach', force: true, words: ['d0', 'd2'] }],
    ['metaoffline d0 d2', { op: 'offline', force: false, mirror: 'd0', submirror: 'd2' }],
    ['metaoffline -f d0 d2', { op: 'offline', force: true, mirror: 'd0', submirror: 'd2' }],
    ['metaonline d0 d2', { op: 'online', force: false, mirror: 'd0', submirror: 'd2' }],
    ['metareplace -e d0 /a', { ...replace, new: null }],
    ['metareplace d0 /a b', { ...replace, new: 'b' }],
    ['metareplace -f -e d0 /a', { ...replace, force: true, new: null }],
    ['metaparam d0', param],
    ['metaparam -r first -w serial -p 3 d0', { ...param, read: 'first', write: 'serial', pass: '3' }],
    ['metaparam -h none d0', { ...param, hotSparePool: 'none' }],
    ['metasync d0 d1', { ...sync, names: ['d0', 'd1'] }],
    ['metasync 2048 d0', { ...sync, bufferBlocks: 2048, names: ['d0'] }],
    ['metasync 0 d0', { ...sync, names: ['d0'] }],
    ['metasync --verify d0', { ...sync, verify: 'check', names: ['d0'] }],
    ['metasync --verify --repair 64 d0', { ...sync, verify: 'repair', bufferBlocks: 64, names: ['d0'] }],
    ['metasync -p d5', { ...sync, parity: true, names: ['d5'] }],
    ['metasync -c d0', { ...sync, cancel: true, names: ['d0'] }],
    ['metadb', { op: 'dbList' }],
    ['metadb -a -f /a /b', { op: 'dbAdd', cwd: '/here', force: true, count: 1, length: null, words: ['/a', '/b'] }],
    ['metadb -ac3 -l 16 mddb01', { op: 'dbAdd', cwd: '/here', force: false, count: 3, length: 16, words: ['mddb01'] }],
    ['metadb -d -f /a', { op: 'dbDelete', cwd: '/here', force: true, words: ['/a'] }],
    ['metadb -p', { op: 'dbLocations', cwd: '/here', file: null }],
    ['metadb -p x.cf', { op: 'dbLocations', cwd: '/here', file: 'x.cf' }],
    ['metastat -i d0', { op: 'stat', probe: true, names: ['d0'] }],
  ] as const) {
    const ran = await run(t, line)
    t.strictSame(ran, { status: 0, out: '', err: '', asked: [want] }, line)
  }
})

t.test('wrong words: usage on stderr, status 1, nothing asked', async (t) => {
  for (const [line, first] of [
    ['metainit', 'usage:\tmetainit '],
    ['metainit -a d0', 'usage:\tmetainit '],
    ['metainit -r d0', 'usage:\tmetainit '],
    ['metainit -q d0', 'metainit: illegal option -- q\nusage:\tmetainit '],
    ['metaclear', 'usage:\tmetaclear '],
    ['metaclear -a d0', 'usage:\tmetaclear '],
    ['metaclear -ap', 'usage:\tmetaclear '],
    ['metattach', 'usage:\tmetattach '],
    ['metattach -i', 'metattach: option requires an argument -- i\nusage:'],
    ['metadetach d0', 'usage:\tmetadetach '],
    ['metadetach d0 d1 d2', 'usage:\tmetadetach '],
    ['metaoffline d0', 'usage:\tmetaoffline '],
    ['metaoffline d0 d1 d2', 'usage:\tmetaoffline '],
    ['metaonline', 'usage:\tmetaonline '],
    ['metaonline -f d0 d1', 'metaonline: illegal option -- f\nusage:'],
    ['metareplace d0 /a', 'usage:\tmetareplace '],
    ['metareplace -e d0', 'usage:\tmetareplace '],
    ['metareplace -e d0 /a /b', 'usage:\tmetareplace '],
    ['metaparam', 'usage:\tmetaparam '],
    ['metaparam -h none -r first d0', 'usage:\tmetaparam '],
    ['metaparam -h', 'metaparam: option requires an argument -- h\nusage:'],
    ['metasync', 'usage:\tmetasync '],
    ['metasync 1024', 'usage:\tmetasync '],
    ['metasync --repair d0', 'usage:\tmetasync '],
    ['metasync --json d0', 'usage:\tmetasync '],
    ['metasync -c --verify d0', 'usage:\tmetasync '],
    ['metasync --verify', 'usage:\tmetasync '],
    ['metasync -pr', 'usage:\tmetasync '],
    ['metasync -cr', 'usage:\tmetasync '],
    ['metasync -r d0', 'usage:\tmetasync '],
    ['metasync -- -5 d0', 'metasync: illegal buffer size -5\nusage:'],
    ['metasync 99999999999999999999 d0', 'metasync: illegal buffer size 99999999999999999999\nusage:'],
    ['metadb -a', 'metadb: no devices specified to attach or detach\nusage:'],
    ['metadb -d', 'metadb: no devices specified to attach or detach\nusage:'],
    ['metadb -ad /a', 'metadb: unknown command\nusage:'],
    ['metadb /a', 'metadb: too many arguments\nusage:'],
    ['metadb -p a b', 'metadb: too many arguments\nusage:'],
    ['metadb -ac0 /a', 'metadb: count (-c) must be 1 or more\nusage:'],
    ['metadb -acx /a', 'metadb: x: bad format\nusage:'],
    ['metadb -al8193 /a', 'metadb: size (-l) is too big\nusage:'],
    ['metadb -al15 /a', 'metadb: size (-l) is too small\nusage:'],
    ['metadb -al1e3 /a', 'metadb: 1e3: bad format\nusage:'],
    ['metastat -a -s x', 'metastat: incompatible options: -a and -s\nusage:'],
    ['metastat --watch=0', 'metastat: 0: the interval must be 1 to 3600 seconds\nusage:'],
    ['metastat --watch=abc', 'metastat: abc: the interval'],
  ] as const) {
    const ran = await run(t, line)
    t.equal(ran.status, 1, line)
    t.equal(ran.err.slice(0, first.length), first, line)
    t.strictSame([ran.out, ran.asked], ['', []], line)
  }
})

t.test('help: -h and -? on stderr, --help and --version on stdout, all status 0', async (t) => {
  const h = await run(t, 'metaclear -h')
  t.match(h, { status: 0, out: '', asked: [] })
  t.match(h.err, /^usage:\tmetaclear \[-f\].* -a\n\tmetaclear .*\n/)
  t.strictSame(await run(t, 'metaclear -?'), h)
  t.strictSame((await run(t, 'metaparam -?')).status, 0)
  const help = await run(t, 'metaclear --help')
  t.match(help, { status: 0, err: '' })
  t.match(help.out, /^metaclear - delete metadevices and hot spare pools\n[^]*\n {2}-r +also clear what/)
  t.match(await run(t, 'metadb --version'), { status: 0, out: /^metadb \(metadisk\) \d+\.\d+\.\d+\n$/, err: '' })
})

t.test('replies are printed where they belong, in order, and the status is the daemon’s', async (t) => {
  const script: Reply[] = [
    { reply: 'warning', lines: ['metainit: d0: WARNING: This form of metainit is not recommended.', 'Second line.'] },
    { reply: 'change', change: { change: 'setUp', kind: 'mirror', name: 'd0' } },
    { reply: 'error', error: { ...metaError('unitExists', 'd1'), context: '/etc/metadisk/md.tab line 4' } },
    { reply: 'change', change: { change: 'setUp', kind: 'stripe', name: 'd2' } },
    { reply: 'progress', name: 'd0', done: 1, total: 2 },
    done(66),
  ]
  t.strictSame(await run(t, 'metainit -a', [script]), {
    status: 66,
    out: 'd0: Mirror is setup\nd2: Concat/Stripe is setup\n',
    err:
      'metainit: d0: WARNING: This form of metainit is not recommended.\nSecond line.\n' +
      'metainit: ada: /etc/metadisk/md.tab line 4: d1: unit already set up\n\n',
    asked: [{ op: 'init', cwd: '/here', check: false, force: false, all: true, words: [] }],
  })
})

t.test('progress is for terminals, and can be silenced', async (t) => {
  const script: Reply[] = [
    { reply: 'progress', name: 'd0', done: 37, total: 100 },
    { reply: 'change', change: { change: 'submirrorAttached', name: 'd0', submirror: 'd2', check: false } },
    { reply: 'progress', name: 'd0', done: 38, total: 100 },
    done(),
  ]
  const W = '\r\u001b[K'
  const shown = await run(t, 'metattach d0 d2', [script], { tty: true })
  t.equal(shown.err, `${W}d0: 37 % done${W}${W}d0: 38 % done${W}`)
  t.equal(shown.out, 'd0: submirror d2 is attached\n')
  t.equal((await run(t, 'metattach --quiet d0 d2', [script], { tty: true })).err, '')
  t.equal((await run(t, 'metattach d0 d2', [script])).err, '')
})

t.test('no daemon', async (t) => {
  t.strictSame(await run(t, 'metaclear d0', [], { absent: true }), {
    status: 1,
    out: '',
    err: 'metaclear: ada: metad is not running (no socket ROOT/run/admin.sock; start it with: metad --daemon)\n\n',
    asked: [],
  })
})

t.test('--root beats METADISK_ROOT and may be relative', async (t) => {
  const ran = await run(t, 'metaclear --root elsewhere d0')
  t.strictSame(ran.asked, [])
  t.match(ran.err, '(no socket /here/elsewhere/run/admin.sock;')
})

t.test('named sets do not exist', async (t) => {
  for (const line of ['metainit -s blue d0', 'metastat -s blue', 'metasync -s blue d0', 'metadb -s blue -i']) {
    const ran = await run(t, line)
    t.match(ran, { status: 1, out: '', asked: [] })
    t.equal(ran.err, `${line.split(' ')[0] ?? ''}: ada: setname "blue": no such set\n\n`)
  }
})

t.test('an interrupt detaches', async (t) => {
  const abort = new AbortController()
  const options = { tty: true, signal: abort.signal, onAsk: () => setTimeout(() => abort.abort(), 20) }
  const ran = await run(t, 'metattach d0 d2', [[{ reply: 'progress', name: 'd0', done: 1, total: 9 }]], options)
  t.equal(ran.status, 130)
  t.match(ran.err, /\r\u001b\[Kmetattach: interrupted; what metad has begun goes on without this command\n$/)
})

t.test('metasync fails with 255 for a device, with 1 without metad', async (t) => {
  const script = (status: number): Reply[][] => [
    [{ reply: 'error', error: metaError('unknownType', 'd3') }, done(status)],
  ]
  t.strictSame(await run(t, 'metasync d3', script(255)), {
    status: 255,
    out: '',
    err: 'metasync: ada: d3: unknown metadevice type\n\n',
    asked: [
      { op: 'sync', cancel: false, parity: false, restart: false, verify: null, bufferBlocks: null, names: ['d3'] },
    ],
  })
  t.equal((await run(t, 'metasync d3', script(66))).status, 66)
  t.equal((await run(t, 'metasync d3', [], { absent: true })).status, 1)
})

t.test('control characters of names do not reach the terminal', async (t) => {
  const ran = await run(t, 'metaclear x', [
    [{ reply: 'error', error: metaError('unitNotSetUp', 'x\u001b]0;y\u0007') }, done(1)],
  ])
  t.equal(ran.err, 'metaclear: ada: x?]0;y?: unit not set up\n\n')
})
