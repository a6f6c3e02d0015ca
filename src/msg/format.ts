/**
 * How values and messages become text (commands.md 0.1, 3 and 4.2). Pure: the time zone aside, the
 * same input gives the same bytes, so that layouts can be held in tests.
 */
import { unreachable } from '../base/result.js'
import { BLOCK_BYTES } from '../base/units.js'
import { KIND_TITLES, type KindWord } from './report.js'
import { type MetaError, errorText } from './errors.js'

const UNITS = [' ', 'K', 'M', 'G', 'T', 'P', 'E'] as const

/** C rounds the exact value half to even and JavaScript half up; with one decimal only x.25 tells them apart. */
const oneDecimal = (n: number): string => (n % 1 === 0.25 ? `${Math.floor(n)}.2` : n.toFixed(1))

/** Divided by 1024 while it can be; one decimal below ten units, whole units (rounded down) above. */
export const humanSize = (sizeBlocks: number): string => {
  let whole = BigInt(sizeBlocks) * BigInt(BLOCK_BYTES)
  let exact = Number(whole)
  let unit = 0
  while (whole >= 1024n && unit < UNITS.length - 1) {
    whole /= 1024n
    exact /= 1024
    unit++
  }
  const number = unit > 0 && whole < 10n ? oneDecimal(exact) : whole.toString()
  return `${number} ${UNITS[unit] ?? ' '}B`
}

/** The form of `metastat -c`: no blanks, `-` for nothing. */
export const compactSize = (sizeBlocks: number): string =>
  sizeBlocks === 0 ? '-' : humanSize(sizeBlocks).replaceAll(' ', '')

const DAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'] as const
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'] as const
const two = (n: number): string => String(n).padStart(2, '0')

/** strftime `%a %b %e %T %Y` in the C locale; zero was never set. */
export const formatTime = (ms: number): string => {
  const d = new Date(ms)
  if (ms === 0 || Number.isNaN(d.getTime())) return '(invalid time)'
  const clock = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`
  const day = `${DAYS[d.getDay()] ?? ''} ${MONTHS[d.getMonth()] ?? ''} ${String(d.getDate()).padStart(2)}`
  return `${day} ${clock} ${d.getFullYear()}`
}

/** Tenths of a percent, rounded down: 100 % is only shown when all is done. */
export const permille = (done: number, total: number): number =>
  total <= 0 ? 0 : Math.max(0, Math.min(1000, Math.floor((done / total) * 1000)))

/** Mirrors above 1 TB (64-bit records) count tenths. */
const TENTHS_ABOVE_BLOCKS = 2 ** 31

/** `%2d.%1d`, as for RAID5 devices. */
export const tenthsDone = (done: number, total: number): string => {
  const p = permille(done, total)
  return `${String(Math.floor(p / 10)).padStart(2)}.${p % 10}`
}

export const percentDone = (done: number, total: number, mirrorBlocks: number): string => {
  return mirrorBlocks > TENTHS_ABOVE_BLOCKS ? tenthsDone(done, total) : String(Math.floor(permille(done, total) / 10))
}

/** Errors that SVM's commands print themselves: no host, no empty line (commands.md 0.1, second printer). */
const PLAIN: ReadonlySet<string> = new Set<MetaError['code']>(['invalidType'])

/** `<cmd>: <host>: [<context>: ][<object>: ]<message>` and an empty line after it. */
export const formatError = (command: string, host: string, e: MetaError): string => {
  if (PLAIN.has(e.code)) return printable(`${command}: ${e.object ?? ''}: ${errorText(e)}`) + '\n'
  const parts = [command, host]
  if (e.context !== undefined) parts.push(e.context)
  if (e.object !== undefined && e.object !== '') parts.push(e.object)
  return `${printable(`${parts.join(': ')}: ${errorText(e)}`)}\n\n`
}

/** Names and paths in messages come from files and other people: no control character reaches the terminal. */
export const printable = (s: string): string =>
  // The class is the point: every C0 and C1 control except tab and newline.
  s.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '?')

/** What a command reports as done: made by the operations, carried by the control protocol, worded here. */
export type Change =
  | { readonly change: 'setUp'; readonly kind: KindWord; readonly name: string }
  | { readonly change: 'cleared'; readonly kind: KindWord; readonly name: string }
  | { readonly change: 'submirrorAttached'; readonly name: string; readonly submirror: string; readonly check: boolean }
  | { readonly change: 'componentsAttached'; readonly name: string; readonly count: number; readonly check: boolean }
  | { readonly change: 'submirrorDetached'; readonly name: string; readonly submirror: string }
  | { readonly change: 'submirrorOfflined'; readonly name: string; readonly submirror: string }
  | { readonly change: 'submirrorOnlined'; readonly name: string; readonly submirror: string }
  | { readonly change: 'deviceReplaced'; readonly name: string; readonly device: string; readonly by: string }
  | { readonly change: 'deviceEnabled'; readonly name: string; readonly device: string }
  | { readonly change: 'sparesAdded'; readonly name: string; readonly count: number }
  | { readonly change: 'sparesDeleted'; readonly name: string; readonly count: number }
  | { readonly change: 'spareReplaced'; readonly name: string; readonly spare: string; readonly by: string }
  | { readonly change: 'spareEnabled'; readonly spare: string }
  | { readonly change: 'parameters'; readonly lines: readonly string[] }

/** Success lines, spelt as administrators' scripts expect them (`suceed` included). */
export const formatChange = (c: Change): string => {
  switch (c.change) {
    case 'setUp':
      return `${c.name}: ${KIND_TITLES[c.kind]} is setup\n`
    case 'cleared':
      return `${c.name}: ${KIND_TITLES[c.kind]} is cleared\n`
    case 'submirrorAttached':
      return `${c.name}: submirror ${c.submirror} ${c.check ? 'would attach' : 'is attached'}\n`
    case 'componentsAttached':
      if (c.check) return `${c.name}: attaching component${c.count === 1 ? '' : 's'} would suceed\n`
      return `${c.name}: ${c.count === 1 ? 'component is' : 'components are'} attached\n`
    case 'submirrorDetached':
      return `${c.name}: submirror ${c.submirror} is detached\n`
    case 'submirrorOfflined':
      return `${c.name}: submirror ${c.submirror} is offlined\n`
    case 'submirrorOnlined':
      return `${c.name}: submirror ${c.submirror} is onlined\n`
    case 'deviceReplaced':
      return `${c.name}: device ${c.device} is replaced with ${c.by}\n`
    case 'deviceEnabled':
      return `${c.name}: device ${c.device} is enabled\n`
    case 'sparesAdded':
      return `${c.name}: ${c.count === 1 ? 'Hotspare is' : 'Hotspares are'} added\n`
    case 'sparesDeleted':
      return `${c.name}: ${c.count === 1 ? 'Hotspare is' : 'Hotspares are'} deleted\n`
    case 'spareReplaced':
      return `${c.name}: Hotspare ${c.spare} is replaced with ${c.by}\n`
    case 'spareEnabled':
      return `hotspare ${c.spare} is enabled\n`
    case 'parameters':
      return c.lines.map((line) => `${line}\n`).join('')
    default:
      return unreachable(c)
  }
}

/** Blocks `first-last` or a single number, as badblocks and fsck list them. */
const rangeText = (r: { readonly block: number; readonly blocks: number }): string =>
  r.blocks === 1 ? String(r.block) : `${r.block}-${r.block + r.blocks - 1}`

/** What a comparison of a mirror's sides found: a line, and the ranges below it. */
export const formatVerify = (r: {
  readonly name: string
  readonly kind: 'mirror' | 'raid5'
  readonly repaired: boolean
  readonly mismatchBlocks: number
  readonly ranges: readonly { readonly block: number; readonly blocks: number }[]
}): string => {
  const parity = r.kind === 'raid5'
  if (r.mismatchBlocks === 0) return `${r.name}: ${parity ? 'parity is right' : 'submirrors are equal'}\n`
  const one = r.mismatchBlocks === 1
  const found = `${r.name}: ${r.mismatchBlocks} ${one ? 'block' : 'blocks'}`
  const listed = r.ranges.reduce((n, range) => n + range.blocks, 0)
  const was = one ? 'was' : 'were'
  const differed = parity ? `of parity ${was} wrong and ${was} made again` : `differed and ${was} made equal`
  const differs = parity ? `of parity ${one ? 'is' : 'are'} wrong` : one ? 'differs' : 'differ'
  return [
    `${found} ${r.repaired ? differed : differs}`,
    ...r.ranges.map((range) => `    ${rangeText(range)}`),
    ...(listed < r.mismatchBlocks ? [`    and ${r.mismatchBlocks - listed} more`] : []),
    '',
  ].join('\n')
}
