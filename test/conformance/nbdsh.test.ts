/** Each command, flag and error through libnbd: nbdsh with and without its own strict checks. */
import t from 'tap'
import { startMetad } from '../tools/daemon.js'
import { everyKind, foreign, missingNbdsh } from '../tools/foreign.js'

const skip = missingNbdsh()
const metad = await startMetad(t)
const kinds = await everyKind(metad, 8)

/** Python that asserts; what it prints on failure is the diagnosis. */
const PRELUDE = `
import errno, os
def fails(number, what, f):
    try:
        f()
    except nbd.Error as e:
        assert e.errnum == number, "%s: %s instead of %s" % (what, errno.errorcode.get(e.errnum, e.errnum), errno.errorcode[number])
        return
    raise AssertionError(what + ": no error")
`

interface Script {
  readonly name: string
  readonly strict?: boolean
  readonly python: string
}

const script = async ({ name, strict = true, python }: Script): Promise<string> => {
  const open = [
    ...(strict ? [] : ['h.set_strict_mode(0)']),
    'h.add_meta_context("base:allocation")',
    'h.add_meta_context("metadisk:state")',
    `h.connect_uri(${JSON.stringify(metad.nbdUri(name))})`,
  ].join('\n')
  const ran = await foreign('nbdsh', ['-c', PRELUDE, '-c', open, '-c', python])
  return ran.status === 0 ? '' : `${ran.stdout}${ran.stderr}`
}

t.test('every kind: write, read, FUA, flush, trim, zero, cache', { skip }, async (t) => {
  for (const { name, kind } of kinds) {
    const said = await script({
      name,
      python: `
size = h.get_size()
assert h.get_structured_replies_negotiated()
for f in (h.can_fua, h.can_flush, h.can_trim, h.can_zero, h.can_fast_zero, h.can_cache, h.can_df, h.can_multi_conn):
    assert f(), f
assert not h.is_read_only() and not h.is_rotational()
# odd offsets and lengths, over component and interlace borders
for at, length in ((0, 1), (511, 2), (65535, 3), (131071, 70001), (size - 1, 1), (size - 300000, 300000), (size // 2 - 7, 4096)):
    data = os.urandom(length)
    h.pwrite(data, at, nbd.CMD_FLAG_FUA)
    assert h.pread(length, at) == data, (at, length)
    chunks = []
    h.pread_structured(length, at, lambda buf, o, kind, err: chunks.append((o, bytes(buf))), nbd.CMD_FLAG_DF)
    assert chunks == [(at, data)], "not one chunk"
    h.flush()
    h.cache(length, at)
big = os.urandom(4 << 20)
h.pwrite(big, 12345)
h.zero(100000, 20000)
h.zero(4096, 200003, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
want = bytearray(big)
want[20000-12345:120000-12345] = bytes(100000)
want[200003-12345:200003-12345+4096] = bytes(4096)
assert h.pread(len(big), 12345) == bytes(want)
try:
    h.zero(65536, 1 << 20, nbd.CMD_FLAG_FAST_ZERO)
    want[(1 << 20)-12345:(1 << 20)-12345+65536] = bytes(65536)
except nbd.Error as e:
    assert e.errnum == errno.ENOTSUP, e
assert h.pread(len(big), 12345) == bytes(want)
h.trim(65536, 2 << 20)
h.trim(512, 0, nbd.CMD_FLAG_FUA)
left = h.pread(len(big), 12345)
at = (2 << 20) - 12345
assert left[:at] == bytes(want[:at]) and left[at+65536:] == bytes(want[at+65536:]), "trim touched its neighbours"
`,
    })
    t.equal(said, '', kind)
  }
})

t.test('block status covers what was asked, in both contexts', { skip }, async (t) => {
  const said = await script({
    name: 'd0',
    python: `
seen = {}
def extents(context, offset, entries, err):
    seen[context] = (offset, entries)
h.block_status(1 << 20, 4096, extents)
assert set(seen) == {"base:allocation", "metadisk:state"}, seen
for context, (offset, entries) in seen.items():
    assert offset == 4096 and sum(entries[0::2]) >= 1, (context, entries)
    assert all(length > 0 for length in entries[0::2])
    assert entries[1] == 0, (context, entries)
one = []
h.block_status(1 << 20, 0, lambda c, o, e, err: one.append(len(e)), nbd.CMD_FLAG_REQ_ONE)
assert one == [2, 2], one
`,
  })
  t.equal(said, '')
})

t.test('errors past the end, and the connection lives on', { skip }, async (t) => {
  const said = await script({
    name: 'd3',
    strict: false,
    python: `
size = h.get_size()
edge = h.pread(512, size - 512)
for at in (size, size - 511, 1 << 62, (1 << 63) - 1):
    fails(errno.EINVAL, "read past the end", lambda: h.pread(512, at))
    fails(errno.ENOSPC, "write past the end", lambda: h.pwrite(b"x" * 512, at))
    fails(errno.EINVAL, "trim past the end", lambda: h.trim(512, at))
    fails(errno.ENOSPC, "zero past the end", lambda: h.zero(512, at))
    fails(errno.EINVAL, "cache past the end", lambda: h.cache(512, at))
    fails(errno.EINVAL, "status past the end", lambda: h.block_status(512, at, lambda *a: 0))
fails(errno.EINVAL, "no such flag on read", lambda: h.pread(512, 0, nbd.CMD_FLAG_NO_HOLE))
fails(errno.EINVAL, "no such flag on write", lambda: h.pwrite(b"x" * 512, 0, nbd.CMD_FLAG_FAST_ZERO))
fails(errno.EINVAL, "no such flag on flush", lambda: h.flush(nbd.CMD_FLAG_REQ_ONE))
fails(errno.EINVAL, "read of nothing", lambda: h.pread(0, 0))
assert h.pread(512, size - 512) == edge, "a refused write changed something"
h.pwrite(b"alive", 0)
assert h.pread(5, 0) == b"alive"
`,
  })
  t.equal(said, '')
})

t.test('rdsk: whole blocks only', { skip }, async (t) => {
  const said = await script({
    name: 'rdsk/d0',
    strict: false,
    python: `
assert h.get_block_size(nbd.SIZE_MINIMUM) == 512
data = os.urandom(1024)
h.pwrite(data, 512)
assert h.pread(1024, 512) == data
for at, length in ((1, 512), (511, 512), (0, 511), (0, 513), (512, 1)):
    fails(errno.EINVAL, "read", lambda: h.pread(length, at))
    fails(errno.EINVAL, "write", lambda: h.pwrite(b"x" * length, at))
    fails(errno.EINVAL, "trim", lambda: h.trim(length, at))
    fails(errno.EINVAL, "zero", lambda: h.zero(length, at))
assert h.pread(1024, 512) == data
`,
  })
  t.equal(said, '')
})

t.test('dsk and rdsk are one device; connections see each other', { skip }, async (t) => {
  const said = await script({
    name: 'd0',
    python: `
other = nbd.NBD()
other.connect_uri(${JSON.stringify(metad.nbdUri('rdsk/d0'))})
for i in range(50):
    data = os.urandom(4096)
    (h if i % 2 else other).pwrite(data, 8192 + 4096 * i)
    assert (other if i % 2 else h).pread(4096, 8192 + 4096 * i) == data
other.flush()
other.shutdown()
`,
  })
  t.equal(said, '')
})

t.test('many requests in flight keep their own answers', { skip }, async (t) => {
  const said = await script({
    name: 'd3',
    python: `
blocks = [os.urandom(8192) for _ in range(256)]
ids = [h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b)), i * 8192) for i, b in enumerate(blocks)]
while h.aio_in_flight() > 0: h.poll(-1)
for i in ids: assert h.aio_command_completed(i)
buffers = [nbd.Buffer(8192) for _ in blocks]
ids = [h.aio_pread(b, i * 8192) for i, b in enumerate(buffers)]
while h.aio_in_flight() > 0: h.poll(-1)
for i in ids: assert h.aio_command_completed(i)
for i, b in enumerate(buffers): assert bytes(b.to_bytearray()) == blocks[i], i
`,
  })
  t.equal(said, '')
})

t.test('old clients: EXPORT_NAME without structured replies', { skip }, async (t) => {
  const ran = await foreign('nbdsh', [
    '-c',
    PRELUDE,
    '-c',
    `
h.set_request_structured_replies(False)
h.set_handshake_flags(0)
h.connect_uri(${JSON.stringify(metad.nbdUri('d4'))})
assert not h.get_structured_replies_negotiated()
data = os.urandom(100001)
h.pwrite(data, 33)
assert h.pread(len(data), 33) == data
h.set_strict_mode(0)
fails(errno.EINVAL, "read past the end", lambda: h.pread(512, h.get_size()))
assert h.pread(1, 33) == data[:1]
`,
  ])
  t.equal(ran.status, 0, ran.stderr)
})
