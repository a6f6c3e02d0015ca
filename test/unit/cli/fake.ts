/** A control server in the test's own process: answers scripted replies and remembers the requests. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { COMMANDS } from '../../../cmd/commands.js'
import { runCommand } from '../../../src/cli/run.js'
import { LineReader, encodeLine } from '../../../src/ctl/lines.js'
import type { Reply } from '../../../src/ctl/protocol.js'

export interface Ran {
  readonly status: number
  readonly out: string
  readonly err: string
  /** The requests, as sent. */
  readonly asked: readonly unknown[]
}
export interface RunOptions {
  readonly tty?: boolean
  readonly signal?: AbortSignal
  readonly onAsk?: () => void
  /** No daemon at all. */
  readonly absent?: boolean
}

/** `script` holds the replies to each request in turn; the last one serves all that follow. */
export const run = async (
  t: Test,
  line: string | readonly string[],
  script: readonly (readonly Reply[])[] = [[{ reply: 'done', status: 0 }]],
  options: RunOptions = {},
): Promise<Ran> => {
  const root = mkdtempSync(join(tmpdir(), 'cli-'))
  mkdirSync(join(root, 'run'))
  const asked: unknown[] = []
  const open = new Set<Socket>()
  const server = createServer((socket) => {
    open.add(socket)
    const reader = new LineReader()
    socket.on('error', () => undefined)
    socket.on('data', (chunk) => {
      for (const read of reader.push(chunk)) {
        const replies = script[Math.min(asked.length, script.length - 1)] ?? []
        asked.push(read.kind === 'object' ? read.value : read)
        for (const reply of replies) socket.write(encodeLine(reply))
        options.onAsk?.()
      }
    })
  })
  if (options.absent !== true)
    await new Promise<void>((done) => server.listen(join(root, 'run/admin.sock'), () => done()))
  t.teardown(() => {
    for (const socket of open) socket.destroy()
    server.close()
    rmSync(root, { recursive: true, force: true })
  })
  const [name, ...argv] = typeof line === 'string' ? line.split(' ') : line
  const command = COMMANDS.find((c) => c.name === name)
  if (command === undefined) throw new Error(`no command ${name ?? ''}`)
  const text = { out: '', err: '' }
  const sink = (to: 'out' | 'err'): { write: (s: string) => void; isTTY: boolean } => ({
    write: (s) => {
      text[to] += s
    },
    isTTY: options.tty === true,
  })
  const status = await runCommand(command, argv, {
    env: { METADISK_ROOT: root },
    cwd: '/here',
    host: 'ada',
    stdout: sink('out'),
    stderr: sink('err'),
    signal: options.signal ?? new AbortController().signal,
  })
  const clean = (s: string): string => s.replaceAll(root, 'ROOT')
  return { status, out: clean(text.out), err: clean(text.err), asked }
}

export const done = (status = 0): Reply => ({ reply: 'done', status })
