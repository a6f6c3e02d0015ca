/** md.conf: `name = value` lines, `#` comments. A missing file means the defaults. */
import { availableParallelism } from 'node:os'
import { readFileSync } from 'node:fs'
import { DEFAULT_LIMITS } from '../nbd/limits.js'
import { err, ok, type Result } from '../base/result.js'

export type IoMode = 'auto' | 'buffered' | 'direct'

export interface Config {
  /** I/O threads, 1-64. */
  readonly threads: number
  /** Requests in flight per connection, 1-1024. */
  readonly queueDepth: number
  /** NBD clients at once, 1-65536. */
  readonly maxConnections: number
  /** Largest NBD request in bytes, 64 KiB - 64 MiB. */
  readonly maxRequestBytes: number
  /** Busy wait before sleeping in microseconds, 0-1000. */
  readonly spinMicros: number
  /** auto: O_DIRECT for block devices, page cache for files. */
  readonly io: IoMode
  /** Per component path: `io /dev/sdb = buffered`. */
  readonly ioOf: ReadonlyMap<string, IoMode>
  /** `host:port` to listen on besides the unix socket; null: none. */
  readonly nbdTcp: { readonly host: string; readonly port: number } | null
  /** Blocks copied at a time by a resync, 1-2048. */
  readonly resyncBufferBlocks: number
  /** Bytes per second per resync, 0: unlimited. */
  readonly resyncBytesPerSecond: number
  /** Seconds between records of how far a resync has come, 1-3600. */
  readonly resyncCheckpointSeconds: number
  /** Seconds after which an operation of a component counts as failed, 0-3600; 0: never. */
  readonly componentTimeoutSeconds: number
  /** Read errors of one open component that are repaired before the next one takes it out of service, 0-1000000. */
  readonly componentReadErrors: number
  /** A dirty region becomes clean one to two of these after its last write, 1-3600 seconds. */
  readonly regionCleanSeconds: number
  /** Memory for the stripes of each RAID5 metadevice in bytes, 8 MiB - 64 GiB. */
  readonly raid5CacheBytes: number
  readonly logLevel: 'trace' | 'debug' | 'info' | 'warn' | 'error'
}

export const DEFAULTS: Config = {
  threads: Math.min(availableParallelism(), 64),
  queueDepth: 128,
  maxConnections: DEFAULT_LIMITS.maxConnections,
  maxRequestBytes: 32 << 20,
  spinMicros: 20,
  io: 'auto',
  ioOf: new Map(),
  nbdTcp: null,
  resyncBufferBlocks: 1024,
  resyncBytesPerSecond: 0,
  resyncCheckpointSeconds: 30,
  componentTimeoutSeconds: 30,
  componentReadErrors: 20,
  regionCleanSeconds: 10,
  raid5CacheBytes: 64 << 20,
  logLevel: 'info',
}

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error'] as const
const MODES = ['auto', 'buffered', 'direct'] as const

const oneOf = <T extends string>(all: readonly T[], word: string): T | undefined => all.find((x) => x === word)

/** Numbers: setting name -> [field, lowest, highest]. */
const NUMBERS = {
  threads: ['threads', 1, 64],
  queue_depth: ['queueDepth', 1, 1024],
  max_connections: ['maxConnections', 1, 65536],
  max_request_bytes: ['maxRequestBytes', 64 << 10, 64 << 20],
  spin_micros: ['spinMicros', 0, 1000],
  resync_buffer_blocks: ['resyncBufferBlocks', 1, 2048],
  resync_bytes_per_second: ['resyncBytesPerSecond', 0, Number.MAX_SAFE_INTEGER],
  resync_checkpoint_seconds: ['resyncCheckpointSeconds', 1, 3600],
  component_timeout: ['componentTimeoutSeconds', 0, 3600],
  component_read_errors: ['componentReadErrors', 0, 1_000_000],
  region_clean_seconds: ['regionCleanSeconds', 1, 3600],
  raid5_cache_bytes: ['raid5CacheBytes', 8 << 20, 2 ** 36],
} as const satisfies Record<string, readonly [keyof Config, number, number]>

const address = (value: string): Config['nbdTcp'] | undefined => {
  const m = /^(?:\[([0-9a-f:.]+)\]|([^:\s]+)):(\d{1,5})$/i.exec(value)
  const host = m?.[1] ?? m?.[2]
  const port = Number(m?.[3])
  return host !== undefined && port > 0 && port < 65536 ? { host, port } : undefined
}

/** @returns the settings, or one sentence naming the line that is wrong. */
export const parseConfig = (text: string): Result<Config, string> => {
  let config = DEFAULTS
  const ioOf = new Map<string, IoMode>()
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.replace(/#.*/, '').trim()
    if (line === '') continue
    const bad = (why: string): Result<Config, string> => err(`line ${index + 1}: ${why}`)
    const m = /^([a-z][a-z0-9_]*)(?:\s+(\/\S+))?\s*=\s*(\S+)$/.exec(line)
    const name = m?.[1] ?? ''
    const value = m?.[3] ?? ''
    if (name === '' || value === '') return bad('expected `name = value`')
    if (name in NUMBERS) {
      const [field, low, high] = NUMBERS[name as keyof typeof NUMBERS]
      const n = Number(value)
      if (!Number.isSafeInteger(n) || n < low || n > high) return bad(`${name} must be ${low} to ${high}`)
      config = { ...config, [field]: n }
    } else if (name === 'io') {
      const mode = oneOf(MODES, value)
      if (mode === undefined) return bad(`io must be one of ${MODES.join(', ')}`)
      if (m?.[2] === undefined) config = { ...config, io: mode }
      else ioOf.set(m[2], mode)
    } else if (name === 'nbd_tcp') {
      const nbdTcp = value === 'off' ? null : address(value)
      if (nbdTcp === undefined) return bad('nbd_tcp must be HOST:PORT or off')
      config = { ...config, nbdTcp }
    } else if (name === 'log_level') {
      const logLevel = oneOf(LEVELS, value)
      if (logLevel === undefined) return bad(`log_level must be one of ${LEVELS.join(', ')}`)
      config = { ...config, logLevel }
    } else return bad(`unknown setting ${name}`)
  }
  return ok({ ...config, ioOf })
}

export const readConfig = (path: string): Result<Config, string> => {
  let text
  try {
    text = readFileSync(path, 'utf8')
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'ENOENT') return ok(DEFAULTS)
    return err(`${path}: ${(e as Error).message}`)
  }
  const parsed = parseConfig(text)
  return parsed.ok ? parsed : err(`${path}: ${parsed.error}`)
}
