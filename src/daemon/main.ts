/**
 * metad: one per root. Start order: settings, lock, state database, engine, metadevices, then the
 * sockets, so that nothing is answered before everything remembered is back. Stop is the reverse,
 * by hand: Node runs no cleanup hooks on signals.
 */
import { spawn } from 'node:child_process'
import { mkdirSync, openSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { endWithin, sdNotify, setIoFlusher } from '../dataplane/native.js'
import { MAX_UNIX_PATH_BYTES } from '../nbd/unixpath.js'
import { places } from '../sys/inventory.js'
import { takeLock } from '../sys/lock.js'
import { type Config, readConfig } from './config.js'
import { type Logger, makeLogger } from './log.js'
import { Daemon } from './daemon.js'

const USAGE = `usage: metad [--root DIR] [--daemon] [--log FILE]
  --root DIR   keep everything under DIR (default: METADISK_ROOT, else /etc/metadisk and /run/metadisk)
  --daemon     go into the background; returns when metad serves or has failed
  --log FILE   write the log to FILE instead of standard error
  --help, --version
`

interface Options {
  readonly root: string | undefined
  readonly daemon: boolean
  readonly log: string | undefined
}

const fail = (text: string): never => {
  process.stderr.write(`metad: ${text}\n`)
  process.exit(1)
}

/** An exit that no hanging disk holds up for longer than this. */
const EXIT_PATIENCE_MS = 2000

const leave = (status: number): never => {
  endWithin(status, EXIT_PATIENCE_MS)
  return process.exit(status)
}

const options = (argv: readonly string[]): Options => {
  let values
  try {
    values = parseArgs({
      args: [...argv],
      options: {
        root: { type: 'string' },
        daemon: { type: 'boolean' },
        log: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
        version: { type: 'boolean' },
      },
    }).values
  } catch (e) {
    process.stderr.write(`metad: ${(e as Error).message}\n${USAGE}`)
    process.exit(1)
  }
  if (values.help === true) {
    process.stdout.write(USAGE)
    process.exit(0)
  }
  if (values.version === true) {
    process.stdout.write('metad 0.1.0\n')
    process.exit(0)
  }
  const root = values.root ?? (process.env['METADISK_ROOT'] || undefined)
  return {
    root: root === undefined ? undefined : resolve(root),
    daemon: values.daemon === true,
    log: values.log === undefined ? undefined : resolve(values.log),
  }
}

/** Starts a second metad without a terminal and waits for its one word on the pipe. */
const background = (o: Options, run: string): void => {
  mkdirSync(run, { recursive: true, mode: 0o700 })
  const log = openSync(o.log ?? join(run, 'metad.log'), 'a', 0o600)
  const script = process.argv[1]
  if (script === undefined) return fail('no script to start')
  const child = spawn(process.execPath, [...process.execArgv, script], {
    detached: true,
    stdio: ['ignore', log, log, 'pipe'],
    cwd: '/',
    env: { ...process.env, METADISK_ROOT: o.root ?? '', METAD_READY_FD: '3' },
  })
  const ready = child.stdio[3]
  ready?.on('data', () => process.exit(0))
  child.on('exit', () => fail(`did not start, see ${o.log ?? join(run, 'metad.log')}`))
}

/** Tells whoever started us (--daemon, systemd) that the sockets accept. */
const announce = async (): Promise<void> => {
  const fd = process.env['METAD_READY_FD']
  if (fd !== undefined) {
    const { createWriteStream } = await import('node:fs')
    createWriteStream('', { fd: Number(fd) }).end('ready\n')
  }
  if (process.env['NOTIFY_SOCKET'] !== undefined) sdNotify('READY=1')
}

const serve = async (o: Options, config: Config, log: Logger): Promise<void> => {
  const where = places(o.root)
  // The kernel would cut it, and the socket would lie somewhere else.
  if (Buffer.byteLength(join(where.run, 'admin.sock')) > MAX_UNIX_PATH_BYTES)
    return fail(`${where.run}: the path is too long for a socket in it (${MAX_UNIX_PATH_BYTES} bytes)`)
  mkdirSync(where.etc, { recursive: true, mode: 0o755 })
  // Private, whatever the modes of the sockets in it.
  mkdirSync(where.run, { recursive: true, mode: 0o700 })
  const lock = takeLock(join(where.run, 'metad.lock'))
  if (!lock.held) return fail(`another metad (pid ${lock.pid}) serves ${o.root ?? '/'}`)
  if (process.getuid?.() === 0) setIoFlusher()

  const daemon = new Daemon(where, config, log)
  let stopping = false
  const stop = (signal: NodeJS.Signals): void => {
    if (stopping) return
    stopping = true
    log.info({ signal }, 'stopping')
    daemon.stop().then(
      () => {
        lock.release()
        log.info('stopped')
        leave(0)
      },
      (e: unknown) => {
        log.fatal(e, 'stop failed')
        leave(1)
      },
    )
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, stop)
  process.on('SIGHUP', () => undefined)
  // A bug: nothing that was acknowledged depends on this process living on, so it ends loudly.
  const crash = (e: unknown): void => {
    log.fatal(e, 'metad failed')
    leave(70)
  }
  process.on('uncaughtException', crash)
  process.on('unhandledRejection', crash)
  await daemon.start()
  await announce()
  log.info({ root: o.root ?? '/', threads: config.threads }, 'metad serves')
}

export const main = async (argv: readonly string[]): Promise<void> => {
  const o = options(argv)
  const where = places(o.root)
  if (o.daemon) return background(o, where.run)
  const config = readConfig(join(where.etc, 'md.conf'))
  if (!config.ok) return fail(config.error)
  const log = makeLogger(config.value.logLevel, o.log)
  try {
    await serve(o, config.value, log)
  } catch (e) {
    log.fatal(e, 'metad did not start')
    process.exit(1)
  }
}
