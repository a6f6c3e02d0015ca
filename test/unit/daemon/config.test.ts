import t from 'tap'
import { DEFAULTS, parseConfig } from '../../../src/daemon/config.js'

t.test('an empty md.conf means the defaults', async (t) => {
  t.same(parseConfig('\n# nothing\n'), { ok: true, value: { ...DEFAULTS, ioOf: new Map() } })
})

t.test('every setting is taken', async (t) => {
  const parsed = parseConfig(`
threads = 3
queue_depth = 64      # comment
max_request_bytes = 65536
max_connections = 7
spin_micros = 0
io = direct
io /disks/a = buffered
nbd_tcp = [::1]:10809
resync_buffer_blocks = 2048
resync_bytes_per_second = 1000000
resync_checkpoint_seconds = 60
component_timeout = 0
component_read_errors = 3
region_clean_seconds = 1
raid5_cache_bytes = 8388608
log_level = debug
`)
  t.ok(parsed.ok)
  if (!parsed.ok) return
  const { ioOf, ...rest } = parsed.value
  t.same(rest, {
    threads: 3,
    queueDepth: 64,
    maxRequestBytes: 65536,
    maxConnections: 7,
    spinMicros: 0,
    io: 'direct',
    nbdTcp: { host: '::1', port: 10809 },
    resyncBufferBlocks: 2048,
    resyncBytesPerSecond: 1000000,
    resyncCheckpointSeconds: 60,
    componentTimeoutSeconds: 0,
    componentReadErrors: 3,
    regionCleanSeconds: 1,
    raid5CacheBytes: 8 << 20,
    logLevel: 'debug',
  })
  t.same([...ioOf], [['/disks/a', 'buffered']])
})

t.test('a wrong line is named, and nothing is taken by halves', async (t) => {
  for (const [text, error] of [
    ['threads = 0', 'line 1: threads must be 1 to 64'],
    ['\nthreads = 1e3', 'line 2: threads must be 1 to 64'],
    ['spin_micros = x', 'line 1: spin_micros must be 0 to 1000'],
    ['component_timeout = 3601', 'line 1: component_timeout must be 0 to 3600'],
    ['raid5_cache_bytes = 8388607', 'line 1: raid5_cache_bytes must be 8388608 to 68719476736'],
    ['region_clean_seconds = 0', 'line 1: region_clean_seconds must be 1 to 3600'],
    ['io = fast', 'line 1: io must be one of auto, buffered, direct'],
    ['nbd_tcp = 10809', 'line 1: nbd_tcp must be HOST:PORT or off'],
    ['nbd_tcp = localhost:0', 'line 1: nbd_tcp must be HOST:PORT or off'],
    ['colour = red', 'line 1: unknown setting colour'],
    ['threads', 'line 1: expected `name = value`'],
  ] as const)
    t.same(parseConfig(text), { ok: false, error }, text)
})
