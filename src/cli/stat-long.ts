/**
 * The long report of metastat, byte for byte (commands.md 4.1 to 4.5, 4.7 and 4.10): blanks at line ends and
 * tabs included, because scripts have parsed them for thirty years. Devices with a parent are shown
 * under it; a submirror asked for by name is shown as a submirror.
 */
import type {
  ColumnsReport,
  ComponentReport,
  MirrorReport,
  PoolReport,
  Raid5Report,
  Raid5Work,
  RelocationReport,
  SpareReport,
  StatReport,
  StripeReport,
  SubmirrorReport,
  UnitReport,
} from '../msg/report.js'
import { unreachable } from '../base/result.js'
import { formatTime, humanSize, percentDone, tenthsDone } from '../msg/format.js'
import { column } from './columns.js'

type Lines = string[]

const size = (blocks: number): string => `    Size: ${blocks} blocks (${humanSize(blocks)})`
const state = (indent: string, text: string, changed: number, times: boolean): string =>
  `${indent}State: ${column(text, -12)} ${times ? formatTime(changed) : ''}`
const yesNo = (yes: boolean): string => (yes ? 'Yes' : 'No')
const reloc = (yes: boolean): string => (yes ? 'Yes' : 'No ')

/** Longest name of the table, the heading included, and two blanks. */
const deviceWidth = (names: readonly string[]): number => Math.max(6, ...names.map((n) => n.length)) + 2

const topRow = (c: ComponentReport, len: number): string =>
  `\t${column(c.device, -len)} ${column(String(c.startBlock), 8)}     ${column(yesNo(c.hasReplica), -5, 5)}\t${reloc(c.relocatable)}`

const subRow = (c: ComponentReport, len: number, times: boolean): string => {
  const spare = c.hotSpare ?? ''
  if (times) {
    const start = column(String(c.startBlock), 5)
    const middle = `${column(yesNo(c.hasReplica), -5)} ${column(c.state, -11)} ${column(reloc(c.relocatable), -5)}`
    return `\t${column(c.device, -len)} ${start} ${middle} ${column(spare, -9)} ${formatTime(c.changed)}`
  }
  const start = `${column(String(c.startBlock), 8)}     ${column(yesNo(c.hasReplica), -5, 5)}`
  return `\t${column(c.device, -len)} ${start} ${column(c.state, 12, 12)} ${column(reloc(c.relocatable), 5, 5)} ${spare}`
}

const heading = (len: number, sub: boolean, times: boolean): string => {
  const device = column('Device', -len, len)
  if (!sub) return `\t${device} ${column('Start Block', -12, 12)} ${column('Dbase', -5, 5)}\tReloc`
  if (!times) return `\t${device} ${column('Start Block', -12, 12)} Dbase ${column('State', 12, 12)} Reloc Hot Spare`
  return `\t${device} Start Dbase ${column('State', -11)} Reloc ${column('Hot Spare', -9)} Time`
}

const stripeBody = (s: StripeReport, sub: boolean, times: boolean): Lines => {
  const lines: Lines = []
  if (s.hotSparePool !== null) lines.push(`    Hot spare pool: ${s.hotSparePool}`)
  if (s.unavailable) lines.push('    State: Unavailable', '    Reconnect disk and invoke: metastat -i')
  lines.push(size(s.size))
  const len = deviceWidth(s.rows.flatMap((r) => r.components.map((c) => c.device)))
  for (const [i, row] of s.rows.entries()) {
    lines.push(`    Stripe ${i}:${row.components.length > 1 ? ` (interlace: ${row.interlace} blocks)` : ''}`)
    lines.push(heading(len, sub, times))
    for (const c of row.components) lines.push(sub ? subRow(c, len, times) : topRow(c, len))
  }
  return [...lines, '']
}

const submirror = (m: MirrorReport, sm: SubmirrorReport, s: StripeReport, times: boolean): Lines => {
  const lines: Lines = [`${s.name}: Submirror of ${m.name}`]
  if (!s.unavailable) {
    lines.push(state('    ', sm.state, sm.changed, times))
    if (sm.invoke !== null) lines.push(`    Invoke: ${sm.invoke}`)
  }
  return [...lines, ...stripeBody(s, true, times)]
}

const READ_OPTION = { roundrobin: 'default', geometric: '-g', first: '-r' } as const
const WRITE_OPTION = { parallel: 'default', serial: '-S' } as const

const mirror = (m: MirrorReport, find: Find, times: boolean): Lines => {
  const lines: Lines = [`${m.name}: Mirror`]
  for (const sm of m.submirrors) {
    lines.push(`    Submirror ${sm.slot}: ${sm.name}`, state('      ', sm.state, sm.changed, times))
  }
  if (m.resync !== null) {
    const title = m.resync.state === 'running' ? 'Resync in progress' : 'Resync cancelled'
    lines.push(`    ${title}: ${percentDone(m.resync.doneBlocks, m.resync.totalBlocks, m.size)} % done`)
  }
  lines.push(
    `    Pass: ${m.pass}`,
    `    Read option: ${m.read} (${READ_OPTION[m.read]})`,
    `    Write option: ${m.write} (${WRITE_OPTION[m.write]})`,
    size(m.size),
  )
  for (const sm of m.submirrors) {
    const s = find(sm.name)
    if (s?.kind === 'stripe') lines.push('', ...submirror(m, sm, s, times))
  }
  return [...lines, '']
}

const columnRow = (c: ComponentReport, len: number, times: boolean): string => {
  const spare = c.hotSpare ?? ''
  const dbase = yesNo(c.hasReplica)
  if (times) {
    const middle = `${column(String(c.startBlock), 5)} ${column(dbase, -5)} ${column(c.state, -11)}`
    return `\t${column(c.device, -len)} ${middle} ${column(reloc(c.relocatable), -5)} ${column(spare, -9)} ${formatTime(c.changed)}`
  }
  const start = `${column(String(c.startBlock), 8)}     ${column(dbase, 5, 5)}`
  return `\t${column(c.device, -len, len)} ${start} ${column(c.state, 12, 12)} ${column(reloc(c.relocatable), 5, 5)} ${spare}`
}

/** Original and concatenated columns have headings of their own. */
const columnHeading = (len: number, original: boolean, times: boolean): string => {
  if (times) {
    const names = ['Start', 'Dbase', column('State', -11)]
    return original
      ? `\t${column('Device', -len)}  ${names.join('  ')}  Reloc   Hot Spare  Time`
      : `\t${column('Device', -len)} ${names.join(' ')} ${column('Reloc', -9)} Hot Spare\tTime`
  }
  const start = `\t${column('Device', -len, len)} ${column('Start Block', -12, 12)} Dbase`
  return original
    ? `${start} ${column('State', 12)} Reloc  Hot Spare`
    : `${start} ${column('State', -12)} Reloc Hot Spare`
}

const columns = (of: ColumnsReport, original: boolean, len: number, times: boolean): Lines => [
  size(of.size),
  columnHeading(len, original, times),
  ...of.columns.map((c) => columnRow(c, len, times)),
]

export const WORK: Readonly<Record<Raid5Work['work'], string>> = {
  resync: 'Resync',
  initialisation: 'Initialization',
  regeneration: 'Parity regeneration',
}

const raid5 = (r: Raid5Report, times: boolean): Lines => {
  const attached = r.attached?.columns ?? []
  const len = deviceWidth([...r.original.columns, ...attached].map((c) => c.device))
  return [
    `${r.name}: RAID`,
    state('    ', r.state, r.changed, times),
    ...(r.invoke === null ? [] : [`    Invoke: ${r.invoke}`]),
    ...(r.work === null
      ? []
      : [`    ${WORK[r.work.work]} in progress: ${tenthsDone(r.work.doneBlocks, r.work.totalBlocks)}% done`]),
    ...(r.hotSparePool === null ? [] : [`    Hot spare pool: ${r.hotSparePool}`]),
    `    Interlace: ${r.interlace} blocks`,
    size(r.size),
    'Original device:',
    ...columns(r.original, true, len, times),
    ...(r.attached === null ? [] : ['Concatenated Devices:', ...columns(r.attached, false, len, times)]),
    '',
  ]
}

/** Blanks and tabs as commands.md 4.7 has them: the heading begins with a tab, the rows do not. */
const spareRow = (s: SpareReport, len: number, times: boolean): string => {
  const device = `        ${column(s.device, -len)}`
  if (!times) return `${device} ${column(s.state, -12)} ${s.size} blocks\t${reloc(s.relocatable)}`
  const length = column(String(s.size), 8)
  return `${device}\t    ${column(s.state, -11)} ${length} blocks${reloc(s.relocatable)}\t${formatTime(s.changed)}`
}

const pool = (p: PoolReport, times: boolean): Lines => {
  if (p.spares.length === 0) return [`${p.name}: is empty`, '']
  const len = deviceWidth(p.spares.map((s) => s.device))
  return [
    `${p.name}: ${p.spares.length === 1 ? '1 hot spare' : `${p.spares.length} hot spares`}`,
    `\t${column('Device', -len, len)} ${column('Status', -12, 12)}${column('Length', -8, 6)}\t\tReloc`,
    ...p.spares.map((s) => spareRow(s, len, times)),
    '',
  ]
}

export type Find = (name: string) => UnitReport | undefined
export const finder = (r: StatReport): Find => {
  const byName = new Map(r.units.map((u) => [u.name, u]))
  return (name) => byName.get(name)
}

const stripe = (s: StripeReport, find: Find, times: boolean): Lines => {
  const parent = s.parent === null ? undefined : find(s.parent)
  const slot = parent?.kind === 'mirror' ? parent.submirrors.find((sm) => sm.name === s.name) : undefined
  if (parent?.kind === 'mirror' && slot !== undefined) return submirror(parent, slot, s, times)
  return [`${s.name}: Concat/Stripe`, ...stripeBody(s, s.parent !== null, times)]
}

const unit = (u: UnitReport, find: Find, times: boolean): Lines => {
  switch (u.kind) {
    case 'stripe':
      return stripe(u, find, times)
    case 'mirror':
      return mirror(u, find, times)
    case 'raid5':
      return raid5(u, times)
    case 'pool':
      return pool(u, times)
    default:
      return unreachable(u)
  }
}

const relocationTable = (rows: readonly RelocationReport[]): Lines => {
  if (rows.length === 0) return []
  const width = deviceWidth(rows.map((r) => r.device))
  const line = (a: string, b: string, c: string): string => `${column(a, -width)} ${column(b, -5)}\t${c}`
  return [
    'Device Relocation Information:',
    line('Device', 'Reloc', 'Device ID'),
    ...rows.map((r) => line(r.device, reloc(r.relocatable), r.id ?? '-')),
  ]
}

const joined = (lines: Lines): string => lines.map((l) => `${l}\n`).join('')

export interface LongOptions {
  readonly times: boolean
  readonly relocation: boolean
}

export const longReport = (r: StatReport, o: LongOptions): string => {
  const find = finder(r)
  const units = r.show.flatMap((name) => {
    const u = find(name)
    return u === undefined ? [] : unit(u, find, o.times)
  })
  return joined([...units, ...(o.relocation ? relocationTable(r.relocation) : [])])
}
