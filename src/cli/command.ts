/**
 * What a command is, as data. Help, usage errors, completion and the test that compares commands with
 * their manual pages are all made from these tables.
 */
import type { Reply, Request } from '../ctl/protocol.js'
import type { MetaError } from '../msg/errors.js'
import type { ArgumentError } from '../msg/texts.js'
import type { Printer } from './print.js'

export interface OptionSpec {
  /** `f` for -f, `json` for --json. */
  readonly name: string
  /** Placeholder of the argument; absent: a switch. */
  readonly argument?: string
  /** Only for long options: the argument may be left out (`--watch`, `--watch=5`), and this is it then. */
  readonly optional?: string
  readonly text: string
}

/** What completion offers as operands; a unit is a metadevice or a hot spare pool. */
export type OperandKind = 'metadevice' | 'unit' | 'poolOrFile' | 'file' | 'both' | 'none'

export interface Command {
  readonly name: string
  readonly summary: string
  /** One per line of the usage block, without the command's name; a tab begins a continuation line. */
  readonly synopsis: readonly string[]
  readonly options: readonly OptionSpec[]
  readonly operands: OperandKind
  /** -h means help, unless it is in `options` with another meaning (metaparam). */
  readonly run: (call: Call) => Promise<number>
}

export type ReplyHandler = (reply: Exclude<Reply, { reply: 'done' }>) => boolean

/** One invocation, as a command sees it. */
export interface Call {
  readonly operands: readonly string[]
  readonly cwd: string
  readonly print: Printer
  /** Where mddb.cf and md.cf are. */
  readonly etc: string
  readonly interactive: boolean
  flag(name: string): boolean
  value(name: string): string | null
  /** Says what is wrong, if anything is given, prints the usage block; returns 1. */
  usage(code?: ArgumentError, ...args: readonly string[]): number
  /**
   * Sends a request and prints its replies: `handle` sees each first and returns true for those it took.
   * Returns the exit status: that of the daemon, or 1.
   */
  request(request: Request, handle?: ReplyHandler): Promise<number>
  /** Prints an error as the daemon's own are printed; returns 1. */
  fail(error: MetaError): number
  /** Seconds; false when interrupted. */
  sleep(seconds: number): Promise<boolean>
}

export const COMMON_OPTIONS: readonly OptionSpec[] = [
  { name: 's', argument: 'setname', text: 'work on a named set (this release has only the local one)' },
  { name: '?', text: 'print the usage and exit' },
  { name: 'root', argument: 'DIR', text: 'use the metad of DIR (default: METADISK_ROOT, else the host)' },
  { name: 'quiet', text: 'show no progress' },
  { name: 'help', text: 'print this help and exit' },
  { name: 'version', text: 'print the version and exit' },
]
const HELP_OPTION: OptionSpec = { name: 'h', text: 'print the usage and exit' }

export const allOptions = (c: Command): readonly OptionSpec[] => [
  ...c.options,
  ...(c.options.some((o) => o.name === 'h') ? [] : [HELP_OPTION]),
  ...COMMON_OPTIONS,
]

export const dashed = (o: OptionSpec): string => (o.name.length === 1 ? `-${o.name}` : `--${o.name}`)

export const usageText = (c: Command): string =>
  c.synopsis
    .map((line, i) => (line.startsWith('\t') ? `\t${line}\n` : `${i === 0 ? 'usage:' : ''}\t${c.name} ${line}\n`))
    .join('')

export const helpText = (c: Command): string => {
  const rows = allOptions(c).map((o): [string, string] => {
    if (o.argument === undefined) return [dashed(o), o.text]
    return [o.optional === undefined ? `${dashed(o)} ${o.argument}` : `${dashed(o)}[=${o.argument}]`, o.text]
  })
  const width = Math.max(...rows.map(([flag]) => flag.length))
  const options = rows.map(([flag, text]) => `  ${flag.padEnd(width)}  ${text}\n`).join('')
  return `${c.name} - ${c.summary}\n\n${usageText(c)}\nOptions come before operands.\n${options}\nSee also ${c.name}(8).\n`
}
