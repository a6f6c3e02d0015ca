/**
 * What every command does before and after its own few lines: options, places, the request and its
 * replies, the exit status (commands.md 0). Commands return a status; only cmd/meta.ts ends the process.
 */
import { isAbsolute, join, resolve } from 'node:path'
import { type Outcome, ask } from '../ctl/client.js'
import type { Reply } from '../ctl/protocol.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import { formatChange, formatError, percentDone, printable } from '../msg/format.js'
import { argumentError, detachedText } from '../msg/texts.js'
import { unreachable } from '../base/result.js'
import { type Call, type Command, type ReplyHandler, helpText, usageText } from './command.js'
import { type Words, parseWords } from './getopt.js'
import { Printer, type Sink } from './print.js'
import { VERSION } from './version.js'

/** Everything a command takes from its surroundings; tests bring their own. */
export interface Surroundings {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  readonly host: string
  readonly stdout: Sink
  readonly stderr: Sink
  /** Aborted by SIGINT. */
  readonly signal: AbortSignal
}

export const INTERRUPTED = 130

interface Places {
  readonly etc: string
  readonly socket: string
}

const placesOf = (root: string | null | undefined, cwd: string): Places => {
  if (root === null || root === undefined || root === '') {
    return { etc: '/etc/metadisk', socket: '/run/metadisk/admin.sock' }
  }
  const dir = isAbsolute(root) ? root : resolve(cwd, root)
  return { etc: join(dir, 'etc'), socket: join(dir, 'run', 'admin.sock') }
}

const sleep = (seconds: number, signal: AbortSignal): Promise<boolean> =>
  new Promise((done) => {
    if (signal.aborted) return done(false)
    const stop = (): void => {
      clearTimeout(timer)
      done(false)
    }
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stop)
      done(true)
    }, seconds * 1000)
    signal.addEventListener('abort', stop, { once: true })
  })

/** One reply in words. */
const show = (command: Command, host: string, print: Printer, reply: Exclude<Reply, { reply: 'done' }>): void => {
  switch (reply.reply) {
    case 'change':
      return print.out(printable(formatChange(reply.change)))
    case 'warning':
      return print.error(reply.lines.map((line) => `${printable(line)}\n`).join(''))
    case 'error':
      return print.error(formatError(command.name, host, reply.error))
    case 'progress':
      return print.progress(`${reply.name}: ${percentDone(reply.done, reply.total, 0)} % done`)
    case 'verified':
    case 'stat':
    case 'replicas':
    case 'pong':
      return
    default:
      return unreachable(reply)
  }
}

export const runCommand = async (command: Command, argv: readonly string[], around: Surroundings): Promise<number> => {
  const parsed = parseWords(command, argv)
  const words: Words = parsed.ok ? parsed.value : { operands: [], flags: new Set(), values: new Map() }
  const print = new Printer(around.stdout, around.stderr, !words.flags.has('quiet'))
  const usage: Call['usage'] = (code, ...args) => {
    if (code !== undefined) print.error(`${command.name}: ${printable(argumentError(code, ...args))}\n`)
    print.error(usageText(command))
    return 1
  }
  if (!parsed.ok) return usage(parsed.error.code, parsed.error.option)
  const helpLetter = words.flags.has('h') && !command.options.some((o) => o.name === 'h')
  if (words.flags.has('help')) {
    print.out(helpText(command))
    return 0
  }
  if (words.flags.has('version')) {
    print.out(`${command.name} (metadisk) ${VERSION}\n`)
    return 0
  }
  if (helpLetter || words.flags.has('?')) {
    print.error(usageText(command))
    return 0
  }
  const places = placesOf(words.values.get('root') ?? around.env['METADISK_ROOT'], around.cwd)
  const fail = (e: MetaError): number => {
    print.error(formatError(command.name, around.host, e))
    return 1
  }
  const request = async (...[request, handle]: Parameters<Call['request']>): Promise<number> => {
    const take: ReplyHandler = handle ?? (() => false)
    const answer: MetaResult<Outcome> = await ask(
      request,
      (reply) => {
        if (!take(reply)) show(command, around.host, print, reply)
      },
      { socketPath: places.socket, signal: around.signal },
    )
    print.wipe()
    if (!answer.ok) {
      // The same road as an error of the daemon's own, so that a command can word it in its way.
      if (!take({ reply: 'error', error: answer.error })) fail(answer.error)
      return 1
    }
    if (answer.value.kind === 'done') return answer.value.status
    print.error(detachedText(command.name))
    return INTERRUPTED
  }
  const set = words.values.get('s')
  // The combination is wrong whatever the set is called, so commands that know it speak first.
  if (set !== undefined && !(command.name === 'metastat' && words.flags.has('a'))) {
    return fail(metaError('noSuchSet', `setname "${printable(set)}"`))
  }
  return command.run({
    operands: words.operands,
    cwd: around.cwd,
    etc: places.etc,
    print,
    interactive: around.stdout.isTTY === true,
    flag: (name) => words.flags.has(name),
    value: (name) => words.values.get(name) ?? null,
    usage,
    request,
    fail,
    sleep: (seconds) => sleep(seconds, around.signal),
  })
}
