/**
 * RAID5 devices: what they are made of. Where blocks lie is in raid5geometry.ts, what states do in raid5state.ts.
 *
 * Invariants: the first `originals` columns are striped with parity, the others hold data alone; all have the same
 * layout, each behind its own start; no label is inside the device; geometry is the first column's for ever.
 */
import { err, ok } from '../base/result.js'
import { type Blocks, blocks } from '../base/units.js'
import { type MetaResult, metaError } from '../msg/errors.js'
import { IN_SERVICE } from '../plan/builder.js'
import type { ComponentService, NodeId } from '../plan/types.js'
import { checkComponents } from './check.js'
import { getopt } from './getopt.js'
import { DEFAULT_INTERLACE, MAX_INTERLACE, MIN_RAID5_INTERLACE, parseInterlace, printInterlace } from './interlace.js'
import type {
  BuildContext,
  Built,
  CompileContext,
  DeviceModule,
  ParseError,
  ParseResult,
  Raid5Definition,
  Warning,
} from './kind.js'
import { MAX_BLOCKS, startBlock } from './layout.js'
import { parsePoolName, tabComponent } from './names.js'
import {
  columnBlocks,
  columnData,
  type ColumnLayout,
  columnLayout,
  DEFAULT_SLOTS,
  leastPrewrite,
  MAX_COLUMNS,
  MAX_SLOTS,
  MIN_COLUMNS,
  MIN_SLOTS,
  raid5Size,
  usable,
} from './raid5geometry.js'
import { reportRaid5 } from './raid5report.js'
import { membersOf } from './raid5tables.js'
import type { Reader } from './reader.js'
import { decodeMember, sliceOf } from './slice.js'
import { configured } from './standing.js'
import { poolOf } from './tree.js'
import type { Column, ColumnCheckpoint, ColumnCopy, ColumnState, Device, Raid5Unit, UnitName } from './types.js'

type RaidError = 'syntax' | 'illegalOption'
const at = (e: ParseError, word: number): ParseError => ({ ...e, word })
const bad = (code: RaidError, name: UnitName, words: readonly string[], word: number): ParseError =>
  at(metaError(code, `${name}: "${words[word] ?? ''}"`), word)

const NUMBER = /^\d{1,15}$/
const within = (word: string | null, min: number, max: number): number | null =>
  word !== null && NUMBER.test(word) && Number(word) >= min && Number(word) <= max ? Number(word) : null

/** `-r comp1 comp2 comp3 [...] [-i interlace] [-h hsp] [-k] [-o ncol] [-w n]` (commands.md 2.5). */
const parse = (name: UnitName, words: readonly string[]): ParseResult<Raid5Definition> => {
  if (words[0] !== '-r') return err(words.length === 0 ? metaError('syntax', name) : bad('syntax', name, words, 0))
  const end = words.findIndex((word, i) => i > 0 && word.startsWith('-'))
  const columns = words.slice(1, end < 0 ? words.length : end)
  const next = columns.length + 1
  if (columns.length < MIN_COLUMNS) return err(at(metaError('invalidRaid', name), next))
  if (columns.length > MAX_COLUMNS) return err(at(metaError('tooManyColumns', name, String(MAX_COLUMNS)), next - 1))
  const options = getopt(words, next, 'i:h:ko:w:')
  if (!options.ok) return err(bad('illegalOption', name, words, options.error))
  let interlace: Blocks | null = null
  let hotSparePool: UnitName | null = null
  let originals: number | null = null
  let slots: number | null = null
  const seen = new Set<string>()
  for (const { letter, value, at: word } of options.value.options) {
    if (seen.has(letter)) return err(bad('syntax', name, words, word))
    seen.add(letter)
    if (letter === 'i') {
      const parsed = parseInterlace(value ?? '', name, MIN_RAID5_INTERLACE)
      if (!parsed.ok) return err(at(parsed.error, word))
      interlace = parsed.value
    } else if (letter === 'h') {
      const pool = parsePoolName(value ?? '')
      if (!pool.ok) return err(at(pool.error, word))
      hotSparePool = pool.value
    } else if (letter === 'o') {
      originals = within(value, MIN_COLUMNS, columns.length)
      if (originals === null) return err(at(metaError('invalidColumns', name), word))
    } else if (letter === 'w') {
      slots = within(value, MIN_SLOTS, MAX_SLOTS)
      if (slots === null) return err(at(metaError('invalidSlots', name), word))
    }
  }
  if (options.value.next < words.length) return err(bad('syntax', name, words, options.value.next))
  return ok({ kind: 'raid5', name, columns, interlace, hotSparePool, keep: seen.has('k'), originals, slots })
}

type Printed = Omit<Raid5Definition, 'kind' | 'columns'> & { readonly columns: readonly string[] }
/** The order of metastat -p (commands.md 4.8). */
const print = (d: Printed): string =>
  [
    `${d.name} -r ${d.columns.join(' ')}`,
    ...(d.keep ? ['-k'] : []),
    ...(d.interlace === null ? [] : [`-i ${printInterlace(d.interlace)}`]),
    ...(d.slots === null ? [] : [`-w ${d.slots}`]),
    ...(d.hotSparePool === null ? [] : [`-h ${d.hotSparePool}`]),
    ...(d.originals === null ? [] : [`-o ${d.originals}`]),
  ].join(' ')

/** With -k, so that a device made from it keeps its data. Columns that do not serve yet are not part of it. */
const toTab = (u: Raid5Unit): string =>
  print({
    name: u.name,
    columns: u.columns.slice(0, u.serving).map((c) => tabComponent(configured(c).name)),
    interlace: u.interlace,
    hotSparePool: u.hotSparePool,
    keep: true,
    originals: u.serving > u.originals ? u.originals : null,
    slots: u.slots === DEFAULT_SLOTS ? null : u.slots,
  })

/** A column as it joins: `start` as of every component but the first of a stripe (driver.md 4.2). */
export const newColumn = (d: Device, state: ColumnState, now: number): Column => ({
  ...sliceOf(d, startBlock(d, false).start),
  state,
  erredOrder: 0,
  spare: null,
  changed: now,
})

interface Wanted {
  readonly name: UnitName
  readonly devices: readonly Device[]
  readonly columns: readonly Column[]
  readonly originals: number
  readonly interlace: Blocks
  readonly slots: number | null
}

interface Kept extends ColumnLayout {
  readonly generation: number
  /** The column that missed what the others got, as it had failed when the device was cleared. */
  readonly behind: number | null
  /** The number of the journal that is to be replayed; 0: of none. */
  readonly journal: number
  /** What it has of older epochs is in place. */
  readonly epoch: number
}

/**
 * What the columns' headers say, when all say the same and it fits what is asked for and what is there. One column
 * may be behind: the others have all of the data.
 */
const kept = (w: Wanted, { headers }: BuildContext): MetaResult<Kept> => {
  const refused = err(metaError('notRaided', w.name))
  let first: (ColumnLayout & { readonly unit: number }) | null = null
  const generations: number[] = []
  const journals: number[] = []
  const epochs: number[] = []
  for (const [i, device] of w.devices.entries()) {
    const found = headers(device)
    if (!found.ok) return found
    const c = w.columns[i]
    if (found.value === null || c === undefined) return refused
    const { header: h, live } = found.value
    first ??= { lines: h.lines, prewrite: h.prewrite, slots: h.slots, unit: h.unit }
    const asked =
      h.column === i &&
      h.originals === w.originals &&
      h.columns === w.devices.length &&
      h.interlace === w.interlace &&
      (w.slots === null || h.slots === w.slots)
    const same = h.lines === first.lines && h.prewrite === first.prewrite && h.slots === first.slots
    const there = h.prewriteStart === c.start && h.dataStart === c.start + h.prewrite
    const sound = h.lines >= 1 && h.slots >= 1 && h.prewrite >= leastPrewrite(w.interlace)
    if (!asked || !same || h.unit !== first.unit || !there || !sound) return refused
    if (usable(c) < h.prewrite || Math.floor((usable(c) - h.prewrite) / w.interlace) < h.lines) return refused
    if (live) return err(metaError('solarisJournal', `${w.name}: ${device.name}`))
    generations.push(h.generation)
    journals.push(h.journal)
    epochs.push(h.epoch)
  }
  if (first === null) return refused
  const generation = Math.max(...generations)
  const behind = generations.flatMap((g, i) => (g < generation ? [i] : []))
  if (behind.length > 1) return refused
  const { lines, prewrite, slots } = first
  // Columns that are in step have one journal, unless it ended while their headers were written.
  const [journal = 0, ...others] = journals.filter((_, i) => i !== behind[0])
  const one = others.every((j) => j === journal)
  const replayed = one && journal !== 0 ? { journal, epoch: Math.max(1, ...epochs) } : { journal: 0, epoch: 1 }
  return ok({ lines, prewrite, slots, generation, behind: behind[0] ?? null, ...replayed })
}

const fresh = ({ columns, interlace, slots }: Wanted): MetaResult<Kept> => {
  const smallest = columns.reduce((a, b) => (usable(b) < usable(a) ? b : a))
  const layout = columnLayout(usable(smallest), interlace, slots ?? DEFAULT_SLOTS)
  if (layout === null) return err(metaError('sys', smallest.name, 'No space left on device'))
  return ok({ ...layout, generation: 0, behind: null, journal: 0, epoch: 1 })
}

const behindWarning = (unit: UnitName, column: string): Warning => [
  `metainit: ${unit}: WARNING: ${column} is behind the other columns.`,
  'It is in Maintenance until metareplace has filled it again.',
]

const build = (d: Raid5Definition, context: BuildContext): MetaResult<Built<Raid5Unit>> => {
  if (d.hotSparePool !== null && poolOf(context.tree, d.hotSparePool) === null)
    return err(metaError('invalidHsp', d.hotSparePool))
  // Not even with -f: what is mounted there would be zeroed under the file system.
  const devices = checkComponents(d.name, d.columns, { ...context, force: false })
  if (!devices.ok) return devices
  const [first] = devices.value
  if (first === undefined) return err(metaError('invalidRaid', d.name))
  const columns = devices.value.map((device) => newColumn(device, d.keep ? 'okay' : 'init', context.now))
  const originals = d.originals ?? columns.length
  const interlace = d.interlace ?? DEFAULT_INTERLACE
  const wanted: Wanted = { name: d.name, devices: devices.value, columns, originals, interlace, slots: d.slots }
  const found = d.keep ? kept(wanted, context) : fresh(wanted)
  if (!found.ok) return found
  const { generation, behind, journal, epoch, ...layout } = found.value
  const errors = behind === null ? generation : generation + 1
  const geometry = { heads: first.geometry.heads, sectors: first.geometry.sectors }
  const shape = { originals, serving: columns.length, interlace, ...layout }
  const size = raid5Size(shape, geometry)
  if (!size.ok) return err(metaError('sizeOverflow', d.name, String(MAX_BLOCKS)))
  if (size.value.blocks === 0) return err(metaError('sys', d.name, 'No space left on device'))
  return ok({
    unit: {
      kind: 'raid5',
      name: d.name,
      minor: context.minor,
      columns: columns.map((c, i) => (i === behind ? { ...c, state: 'erred', erredOrder: errors } : c)),
      ...shape,
      hotSparePool: d.hotSparePool,
      geometry,
      ...size.value,
      errors,
      // A number of its own: entries of another device on these columns are never replayed here. With -k that of the
      // columns, so that what was lost with the record is: the newest epoch there is. None that is older than their
      // headers: since then a column may have become another disk, without those groups.
      journal: { unit: journal === 0 ? context.random : journal, epoch },
      checkpoint: null,
      regen: false,
      copy: null,
    },
    warnings: columns.flatMap((c, i) => (i === behind ? [behindWarning(d.name, c.name)] : [])),
  })
}

const NOT: ComponentService = { readable: false, writable: false, lastErred: 0 }
const SERVICE: Readonly<Record<ColumnState, (c: Column) => ComponentService>> = {
  okay: () => IN_SERVICE,
  lastErred: (c) => ({ ...IN_SERVICE, lastErred: Math.max(1, c.erredOrder) }),
  resync: () => ({ ...NOT, writable: true }),
  init: () => ({ ...NOT, writable: true }),
  initErred: () => NOT,
  erred: () => NOT,
}

const compile = (u: Raid5Unit, { to, component, replay }: CompileContext): NodeId => {
  const columns = membersOf(u).map((c) =>
    to.addComponent(component(c), blocks(c.offset + c.start), columnBlocks(u), SERVICE[c.state](c)),
  )
  const { blocks: size, interlace, lines, originals, serving, prewrite, journal } = u
  return to.addRaid5({
    blocks: size,
    interlace,
    lines,
    originals,
    serving,
    prewrite,
    ...journal,
    replay,
    copied: u.copy?.of ?? null,
    columns,
  })
}

const STATES: readonly [ColumnState, ...ColumnState[]] = ['okay', 'init', 'initErred', 'erred', 'lastErred', 'resync']

const decodeCheckpoint = (from: Reader | null): ColumnCheckpoint | null =>
  from === null
    ? null
    : {
        column: from.integer('column', 0, MAX_COLUMNS - 1),
        identity: from.text('identity'),
        done: from.blocks('done'),
      }

const decodeColumn = (c: Reader): Column => ({ ...decodeMember(c), state: c.word('state', STATES) })

const decodeCopy = (from: Reader | null): ColumnCopy | null =>
  from === null
    ? null
    : {
        of: from.integer('of', 0, MAX_COLUMNS - 1),
        to: decodeColumn(from.object('to')),
        done: from.has('done') ? from.blocks('done') : blocks(0),
      }

const decode = (from: Reader, common: { readonly name: UnitName; readonly minor: number }): Raid5Unit => {
  const journal = from.object('journal')
  return {
    kind: 'raid5',
    ...common,
    columns: from.list('columns', MIN_COLUMNS, MAX_COLUMNS, decodeColumn),
    originals: from.integer('originals', MIN_COLUMNS, MAX_COLUMNS),
    serving: from.integer('serving', MIN_COLUMNS, MAX_COLUMNS),
    interlace: blocks(from.integer('interlace', MIN_RAID5_INTERLACE, MAX_INTERLACE)),
    lines: from.integer('lines', 1, Number.MAX_SAFE_INTEGER),
    prewrite: from.blocks('prewrite', 1),
    slots: from.integer('slots', 1, Number.MAX_SAFE_INTEGER),
    hotSparePool: from.nameOrNull('hotSparePool'),
    geometry: from.geometry('geometry'),
    actualBlocks: from.blocks('actualBlocks', 1),
    blocks: from.blocks('blocks', 1),
    errors: from.integer('errors', 0, Number.MAX_SAFE_INTEGER),
    journal: {
      unit: journal.integer('unit', 1, Number.MAX_SAFE_INTEGER),
      epoch: journal.integer('epoch', 1, Number.MAX_SAFE_INTEGER),
    },
    checkpoint: decodeCheckpoint(from.objectOrNull('checkpoint')),
    regen: from.boolean('regen'),
    copy: from.has('copy') ? decodeCopy(from.objectOrNull('copy')) : null,
  }
}

/** A layout that does not follow from its own parts would serve blocks from the wrong place. */
const verify = (u: Raid5Unit): string | null => {
  if (u.originals > u.serving || u.serving > u.columns.length) return 'columns are not original, serving and others'
  if (u.prewrite < leastPrewrite(u.interlace)) return 'prewrite area is too small'
  const size = raid5Size(u, u.geometry)
  if (!size.ok || size.value.actualBlocks !== u.actualBlocks || size.value.blocks !== u.blocks)
    return 'size does not follow from the columns'
  for (const [i, c] of u.columns.entries()) {
    if (!Number.isSafeInteger(c.offset + c.size)) return `columns[${i}]: beyond the last block number`
    if (usable(c) < columnBlocks(u)) return `columns[${i}]: too small`
  }
  const { checkpoint, copy } = u
  if (copy !== null) {
    if (copy.to.state !== 'resync' || u.columns[copy.of]?.state !== 'okay') return 'copy is of no column that works'
    if (u.serving < u.columns.length || u.columns.length >= MAX_COLUMNS) return 'copy has no place'
    if (usable(copy.to) < columnBlocks(u)) return 'copy: too small'
    if (copy.done > columnData(u)) return 'copy: done is beyond the end'
  }
  if (checkpoint !== null && (checkpoint.column >= u.columns.length || checkpoint.done > columnData(u)))
    return 'checkpoint is beyond the columns'
  return null
}

/** All its columns are in step, and nothing is to be done about parity. */
export const isWhole = (u: Raid5Unit): boolean => !u.regen && membersOf(u).every((c) => c.state === 'okay')

export const raid5: DeviceModule<'raid5'> = {
  kind: 'raid5',
  driver: 'md_raid',
  parse,
  print,
  componentWords: (d) => d.columns,
  build,
  toTab,
  compile,
  report: (u, tree, live) => reportRaid5(u, tree, live, toTab(u)),
  decode,
  verify,
}
