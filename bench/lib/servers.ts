/** metad and its peers, each started on given files and stopped again; all listen on a unix socket. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { listens, must, run, Server, TOP, until } from './process.js'

/** What a workload is pointed at. */
export interface Target {
  /** As nbdload takes it. */
  readonly address: readonly string[]
  readonly pid: number
}
export interface Running {
  readonly target: Target
  stop(): Promise<void>
}

export const installed = async (program: string): Promise<boolean> => (await run(['which', program])).status === 0

const target = (socket: string, name: string, pid: number): Target => ({
  address: ['--unix', socket, '--export', name],
  pid,
})

const serve = async (dir: string, id: string, argv: readonly string[], name: string): Promise<Running> => {
  const socket = join(dir, `${id}.sock`)
  const server = new Server(argv, join(dir, `${id}.log`))
  await server.ready(() => listens(socket))
  return { target: target(socket, name, server.pid), stop: () => server.stop() }
}

export const nbdkitFile = (dir: string, file: string): Promise<Running> =>
  serve(dir, 'nbdkit', ['nbdkit', '-f', '-U', join(dir, 'nbdkit.sock'), 'file', file], '')

/** No storage at all: what the load generator and a socket can do at most. */
export const nbdkitNull = (dir: string): Promise<Running> =>
  serve(dir, 'null', ['nbdkit', '-f', '-U', join(dir, 'null.sock'), 'null', '1G'], '')

/** Its -d would serve a single client; without it the daemon is found by its pid file. */
export const nbdServer = async (dir: string, file: string): Promise<Running> => {
  const socket = join(dir, 'nbd-server.sock')
  const pidFile = join(dir, 'nbd-server.pid')
  // Below what the kernel gives to outgoing connections.
  const port = 20_000 + (process.pid % 12_000)
  writeFileSync(
    join(dir, 'nbd-server.conf'),
    `[generic]\nunixsock = ${socket}\nlistenaddr = 127.0.0.1\nport = ${port}\n[bench]\nexportname = ${file}\nflush = true\nfua = true\n`,
  )
  await must(['nbd-server', '-C', join(dir, 'nbd-server.conf'), '-p', pidFile])
  let pid = 0
  await until('nbd-server listens', async () => {
    if (existsSync(pidFile)) pid = Number(readFileSync(pidFile, 'utf8'))
    return pid > 0 && (await listens(socket))
  })
  const alive = (): boolean => existsSync(`/proc/${pid}`)
  const stop = async (): Promise<void> => {
    if (alive()) process.kill(pid)
    await until('nbd-server stops', () => !alive())
  }
  return { target: target(socket, 'bench', pid), stop }
}

const qemuFile = (node: string, file: string, direct: boolean): string[] => [
  '--blockdev',
  `driver=file,node-name=${node},filename=${file},aio=io_uring,cache.direct=${direct ? 'on' : 'off'},locking=off`,
]

const qemu = (dir: string, id: string, blockdevs: readonly string[], node: string): Promise<Running> => {
  const server = ['--nbd-server', `addr.type=unix,addr.path=${join(dir, `${id}.sock`)},max-connections=64`]
  const share = ['--export', `type=nbd,id=e,node-name=${node},name=bench,writable=on`]
  return serve(dir, id, ['qemu-storage-daemon', ...blockdevs, ...server, ...share], 'bench')
}

export const qemuStorageDaemon = (dir: string, file: string, direct: boolean): Promise<Running> =>
  qemu(dir, direct ? 'qemu-direct' : 'qemu', qemuFile('f', file, direct), 'f')

export const qemuQuorum = (dir: string, sides: readonly string[]): Promise<Running> => {
  const children = sides.map((_, i) => `children.${i}=f${i}`).join(',')
  return qemu(
    dir,
    'quorum',
    [
      ...sides.flatMap((file, i) => qemuFile(`f${i}`, file, false)),
      '--blockdev',
      `driver=quorum,node-name=q,vote-threshold=1,read-pattern=fifo,${children}`,
    ],
    'q',
  )
}

const engineId = (files: readonly string[], options: readonly string[]): string =>
  ['engine', basename(files[0] ?? ''), ...options].join('')

/** Where it writes. */
export const engineLog = (dir: string, files: readonly string[], options: readonly string[]): string =>
  join(dir, `${engineId(files, options)}.log`)

/** bench/engine.ts: the data plane without metad around it. */
export const engineOnly = (
  dir: string,
  shape: string,
  files: readonly string[],
  options: readonly string[],
): Promise<Running> => {
  const id = engineId(files, options)
  const script = join(import.meta.dirname, '../engine.js')
  const words = ['--socket', join(dir, `${id}.sock`), ...options, shape, ...files]
  return serve(dir, id, [process.execPath, script, ...words], 'd0')
}

/** One metad with its own root; commands are given as typed. */
export class Metad {
  readonly root: string
  readonly pid: number
  readonly #server: Server

  private constructor(root: string, server: Server) {
    this.root = root
    this.#server = server
    this.pid = server.pid
  }

  static async start(root: string, conf = ''): Promise<Metad> {
    mkdirSync(join(root, 'etc'), { recursive: true })
    writeFileSync(join(root, 'etc/md.conf'), conf)
    const argv = [process.execPath, join(TOP, 'build/js/cmd/metad.js'), '--root', root]
    let ready = false
    const env = { METADISK_ROOT: root, METAD_READY_FD: '3' }
    const server = new Server(argv, join(root, 'metad.log'), env, () => (ready = true))
    const metad = new Metad(root, server)
    await server.ready(() => ready)
    return metad
  }

  argv(...words: readonly string[]): readonly string[] {
    return [process.execPath, join(TOP, 'build/cli/meta.cjs'), ...words]
  }

  run(...words: readonly string[]): Promise<string> {
    return must(this.argv(...words), { METADISK_ROOT: this.root })
  }

  /** The first replica, then each command. */
  async configure(commands: readonly (readonly string[])[]): Promise<void> {
    await this.run('metadb', '-a', '-f', join(this.root, 'replica1'))
    for (const words of commands) await this.run(...words)
  }

  target(name: string): Target {
    return target(join(this.root, 'run/nbd.sock'), name, this.pid)
  }

  stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    return this.#server.stop(signal)
  }
}
