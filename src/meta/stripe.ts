/**
 * Concatenations and stripes: rows of components, each row with its own interlace.
 *
 * Invariants: rows are never empty; a component's first `start` blocks (label, replica) hold no data;
 * geometry is the first component's for ever, so attached rows never move what is there.
 */
import { err, ok } from '../base/result.js'
import { type Blocks, blocks } from '../base/units.js'
import { type MetaResult, metaError } from '../msg/errors.js'
import type { ComponentReport, StripeReport } from '../msg/report.js'
import { IN_SERVICE } from '../plan/builder.js'
import type { ComponentService, NodeId } from '../plan/types.js'
import { checkComponents } from './check.js'
import { getopt } from './getopt.js'
import { DEFAULT_INTERLACE, MAX_INTERLACE, MIN_INTERLACE, parseInterlace, printInterlace } from './interlace.js'
import type {
  BuildContext,
  Built,
  CompileContext,
  DeviceModule,
  LiveStatus,
  ParseError,
  ParseResult,
  RowDefinition,
  StripeDefinition,
} from './kind.js'
import { blocksPerComponent, MAX_BLOCKS, rowBlocks, startBlock, stripeSize } from './layout.js'
import { parsePoolName, tabComponent } from './names.js'
import type { Reader } from './reader.js'
import { componentText, isUnavailable } from './mirrorreport.js'
import { decodeMember, sliceOf } from './slice.js'
import { configured } from './standing.js'
import { parentOf, poolOf } from './tree.js'
import type { Component, ComponentState, Device, Row, StripeUnit, Tree, UnitName } from './types.js'

const NUMBER = /^\d{1,15}$/

const at = (e: ParseError, word: number): ParseError => ({ ...e, word })
const bad = (code: 'syntax' | 'illegalOption', name: UnitName, words: readonly string[], word: number): ParseError =>
  at(metaError(code, `${name}: "${words[word] ?? ''}"`), word)

/** `nrows { width comp1 ... compW [-i interlace] }xnrows [-h hsp]` (commands.md 2.3). */
const parse = (name: UnitName, words: readonly string[]): ParseResult<StripeDefinition> => {
  const count = words[0]
  if (count === undefined) return err(metaError('syntax', name))
  if (!NUMBER.test(count)) return err(bad('syntax', name, words, 0))
  const wanted = Number(count)
  if (wanted === 0) return err(at(metaError('notEnoughStripes', name), 0))
  const rows: RowDefinition[] = []
  let hotSparePool: UnitName | null = null
  let next = 1
  while (rows.length < wanted) {
    const width = words[next]
    if (width === undefined) return err(metaError('notEnoughStripes', name))
    if (!NUMBER.test(width)) return err(bad('syntax', name, words, next))
    if (Number(width) === 0) return err(at(metaError('notEnoughComponents', name), next))
    next++
    const components: string[] = []
    while (components.length < Number(width)) {
      const word = words[next]
      // No component starts with a dash, so an option here means that components are missing.
      if (word === undefined || word.startsWith('-')) return err(at(metaError('notEnoughComponents', name), next))
      components.push(word)
      next++
    }
    const options = getopt(words, next, 'i:h:')
    if (!options.ok) return err(bad('illegalOption', name, words, options.error))
    let interlace: Blocks | null = null
    for (const { letter, value, at: word } of options.value.options) {
      if (letter === 'i') {
        if (interlace !== null) return err(bad('syntax', name, words, word))
        const parsed = parseInterlace(value ?? '', name)
        if (!parsed.ok) return err(at(parsed.error, word))
        interlace = parsed.value
      } else {
        if (hotSparePool !== null || rows.length + 1 < wanted) return err(bad('syntax', name, words, word))
        const pool = parsePoolName(value ?? '')
        if (!pool.ok) return err(at(pool.error, word))
        hotSparePool = pool.value
      }
    }
    next = options.value.next
    rows.push({ components, interlace })
  }
  if (next < words.length) return err(bad('syntax', name, words, next))
  return ok({ kind: 'stripe', name, rows, hotSparePool })
}

/** Rows of md.tab form; `always` prints the interlace of one-component rows too. */
const rowsText = (rows: readonly RowDefinition[], always: boolean): string =>
  rows
    .map(({ components, interlace }) => {
      const option = interlace !== null && (always || components.length > 1) ? ` -i ${printInterlace(interlace)}` : ''
      return ` ${components.length} ${components.join(' ')}${option}`
    })
    .join(' \\\n\t')

const print = (d: StripeDefinition): string =>
  `${d.name} ${d.rows.length}${rowsText(d.rows, true)}${d.hotSparePool === null ? '' : ` -h ${d.hotSparePool}`}`

const toTab = (u: StripeUnit): string => {
  const rows = u.rows.map((r) => ({ ...r, components: r.components.map((c) => tabComponent(configured(c).name)) }))
  return `${u.name} ${rows.length}${rowsText(rows, false)}${u.hotSparePool === null ? '' : ` -h ${u.hotSparePool}`}`
}

const component = (d: Device, start: Blocks, now: number): Component => ({
  ...sliceOf(d, start),
  state: 'okay',
  erredOrder: 0,
  spare: null,
  changed: now,
})

const row = (components: readonly Component[], interlace: Blocks): MetaResult<Row> => {
  const size = rowBlocks(components, interlace)
  if (!size.ok) return err(metaError('sys', size.error.name, 'No space left on device'))
  if (size.value > MAX_BLOCKS) return err(metaError('sizeOverflow', components[0]?.name, String(MAX_BLOCKS)))
  return ok({ interlace, components, blocks: blocks(size.value) })
}

const build = (d: StripeDefinition, context: BuildContext): MetaResult<Built<StripeUnit>> => {
  if (d.hotSparePool !== null && poolOf(context.tree, d.hotSparePool) === null)
    return err(metaError('invalidHsp', d.hotSparePool))
  const devices = checkComponents(
    d.name,
    d.rows.flatMap((r) => r.components),
    context,
  )
  if (!devices.ok) return devices
  const first = devices.value[0]
  if (first === undefined) return err(metaError('notEnoughComponents', d.name))

  const rows: Row[] = []
  let index = 0
  let labelled = false
  for (const definition of d.rows) {
    const components = devices.value.slice(index, index + definition.components.length).map((device, i) => {
      const start = startBlock(device, index + i === 0)
      labelled ||= start.labelled
      return component(device, start.start, context.now)
    })
    index += definition.components.length
    const made = row(components, definition.interlace ?? DEFAULT_INTERLACE)
    if (!made.ok) return made
    rows.push(made.value)
  }
  const size = stripeSize(rows, first.geometry)
  if (size === false) return err(metaError('sizeOverflow', d.name, String(MAX_BLOCKS)))
  if (size.blocks === 0) return err(metaError('sys', d.name, 'No space left on device'))
  return ok({
    unit: {
      kind: 'stripe',
      name: d.name,
      minor: context.minor,
      rows,
      hotSparePool: d.hotSparePool,
      geometry: { heads: first.geometry.heads, sectors: first.geometry.sectors },
      labelled,
      ...size,
    },
    warnings: [],
  })
}

/** One more row behind the others; without an interlace that of the last row is inherited. */
export const addRow = (
  unit: StripeUnit,
  words: readonly string[],
  interlace: Blocks | null,
  context: Pick<BuildContext, 'tree' | 'inventory' | 'now'>,
): MetaResult<StripeUnit> => {
  const devices = checkComponents(unit.name, words, { ...context, force: false })
  if (!devices.ok) return devices
  const components = devices.value.map((d) => component(d, startBlock(d, false).start, context.now))
  const made = row(components, interlace ?? unit.rows.at(-1)?.interlace ?? DEFAULT_INTERLACE)
  if (!made.ok) return made
  const rows = [...unit.rows, made.value]
  const size = stripeSize(rows, unit.geometry)
  if (size === false) return err(metaError('sizeOverflow', unit.name, String(MAX_BLOCKS)))
  return ok({ ...unit, rows, ...size })
}

const SERVICE: Readonly<Record<ComponentState, (c: Component) => ComponentService>> = {
  okay: () => IN_SERVICE,
  lastErred: (c) => ({ ...IN_SERVICE, lastErred: Math.max(1, c.erredOrder) }),
  resync: () => ({ readable: false, writable: true, lastErred: 0 }),
  erred: () => ({ readable: false, writable: false, lastErred: 0 }),
}

/** States mean something only below a mirror, where there may be other data. */
const compile = (u: StripeUnit, { to, tree, component: number }: CompileContext): NodeId => {
  const mirrored = parentOf(tree, u.name)?.kind === 'mirror'
  const rows = u.rows.map((r) => ({
    interlace: r.interlace,
    blocks: r.blocks,
    children: r.components.map((c) =>
      to.addComponent(
        number(c),
        blocks(c.offset + c.start),
        blocksPerComponent(r),
        mirrored ? SERVICE[c.state](c) : IN_SERVICE,
      ),
    ),
  }))
  return to.addStripe(rows, u.blocks)
}

const report = (u: StripeUnit, tree: Tree, live: LiveStatus): StripeReport => {
  const parent = parentOf(tree, u.name)
  const side = parent?.kind === 'mirror' ? (parent.submirrors.find((s) => s.unit === u.name) ?? null) : null
  const unavailable = isUnavailable(u, live)
  const one = (c: Component): ComponentReport => {
    const shown = configured(c)
    return {
      device: shown.name,
      startBlock: shown.start,
      hasReplica: live.hasReplica(shown),
      state: unavailable ? '-' : componentText(c, side, live),
      changed: c.changed,
      relocatable: live.deviceId(shown) !== null,
      hotSpare: c.spare === null ? null : c.name,
    }
  }
  return {
    kind: 'stripe',
    name: u.name,
    parent: parent?.name ?? null,
    size: u.blocks,
    hotSparePool: u.hotSparePool,
    unavailable,
    rows: u.rows.map((r) => ({ interlace: r.interlace, components: r.components.map(one) })),
    tab: toTab(u),
  }
}

const decodeComponent = (c: Reader): Component => ({
  ...decodeMember(c),
  state: c.word('state', ['okay', 'erred', 'lastErred', 'resync']),
})

const decode = (from: Reader, common: { readonly name: UnitName; readonly minor: number }): StripeUnit => ({
  kind: 'stripe',
  ...common,
  rows: from.list('rows', 1, 1 << 16, (r) => ({
    interlace: blocks(r.integer('interlace', MIN_INTERLACE, MAX_INTERLACE)),
    components: r.list('components', 1, 1 << 16, decodeComponent),
    blocks: r.blocks('blocks', 1),
  })),
  hotSparePool: from.nameOrNull('hotSparePool'),
  geometry: from.geometry('geometry'),
  labelled: from.boolean('labelled'),
  actualBlocks: from.blocks('actualBlocks', 1),
  blocks: from.blocks('blocks', 1),
})

const isWhole = (r: Row): boolean => {
  const each = r.blocks / r.components.length
  return Number.isInteger(each) && (r.components.length === 1 || each % r.interlace === 0)
}

/** A layout that does not follow from its own parts would serve blocks from the wrong place. */
const verify = (u: StripeUnit): string | null => {
  for (const [i, r] of u.rows.entries()) {
    for (const c of r.components)
      if (!Number.isSafeInteger(c.offset + c.size)) return `rows[${i}]: component beyond the last block number`
    // What was replaced may be larger, and so may a spare: the layout stays as it was made.
    const size = rowBlocks(r.components.map(configured), r.interlace)
    if (!size.ok || size.value < r.blocks || !isWhole(r)) return `rows[${i}]: size does not follow from its components`
    if (r.components.some((c) => c.size - c.start < blocksPerComponent(r))) return `rows[${i}]: hot spare is too small`
  }
  const size = stripeSize(u.rows, u.geometry)
  if (size === false || size.actualBlocks !== u.actualBlocks || size.blocks !== u.blocks)
    return 'size does not follow from the rows'
  return null
}

export const stripe: DeviceModule<'stripe'> = {
  kind: 'stripe',
  driver: 'md_stripe',
  parse,
  print,
  componentWords: (d) => d.rows.flatMap((r) => r.components),
  build,
  toTab,
  compile,
  report,
  decode,
  verify,
}
