/**
 * Mirrors of one to four submirrors: what they are made of. What states do is in mirrorstate.ts.
 *
 * Invariants: submirrors are stripes with no other parent, in slot order; at least one is in step, and
 * only those are read; the mirror is never larger than its smallest submirror.
 */
import { assert, err, ok } from '../base/result.js'
import { type Blocks, blocks, roundDown } from '../base/units.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import type { NodeId } from '../plan/types.js'
import { cylinder } from './geometry.js'
import { getopt } from './getopt.js'
import type {
  BuildContext,
  Built,
  CompileContext,
  DeviceModule,
  Live,
  MirrorDefinition,
  ParseError,
  ParseResult,
  Warning,
} from './kind.js'
import { reportMirror } from './mirrorreport.js'
import { parseUnitName, rawPath } from './names.js'
import type { Reader } from './reader.js'
import { isRegionSize, MAX_REGIONS, MIN_REGION_BLOCKS, regionBlocksFor } from './regions.js'
import { inStep, isStale, isWritten } from './sources.js'
import { parentOf, stripeOf, submirrorStripes } from './tree.js'
import type {
  Checkpoint,
  MirrorUnit,
  ReadPolicy,
  Slot,
  StripeUnit,
  Submirror,
  Tree,
  UnitName,
  WritePolicy,
} from './types.js'

export const MAX_SUBMIRRORS = 4
export const READ_POLICIES = ['roundrobin', 'geometric', 'first'] as const satisfies readonly ReadPolicy[]
export const WRITE_POLICIES = ['parallel', 'serial'] as const satisfies readonly WritePolicy[]
const READ_OPTION = { roundrobin: '', geometric: ' -g', first: ' -r' } as const
const WRITE_OPTION = { parallel: '', serial: ' -S' } as const

const bad = (
  code: 'syntax' | 'illegalOption' | 'invalidReadOption' | 'invalidWriteOption' | 'invalidPass',
  name: UnitName,
  words: readonly string[],
  word: number,
): ParseError => ({ ...metaError(code, `${name}: "${words[word] ?? ''}"`), word })

/** `-m sub1 [sub2 [sub3 [sub4]]] [-g | -r] [-S] [pass]` (commands.md 2.4). */
const parse = (name: UnitName, words: readonly string[]): ParseResult<MirrorDefinition> => {
  if (words[0] !== '-m') return err(words.length === 0 ? metaError('syntax', name) : bad('syntax', name, words, 0))
  const submirrors: UnitName[] = []
  let next = 1
  for (; ; next++) {
    const word = words[next]
    if (word === undefined || /^[-0-9]/.test(word)) break
    const submirror = parseUnitName(word)
    if (!submirror.ok) return err({ ...submirror.error, word: next })
    if (submirrors.length === MAX_SUBMIRRORS) return err({ ...metaError('maxSubmirrors', name), word: next })
    submirrors.push(submirror.value)
  }
  if (submirrors.length === 0) return err({ ...metaError('notEnoughSubmirrors', name), word: next })

  const options = getopt(words, next, 'grS')
  if (!options.ok) return err(bad('illegalOption', name, words, options.error))
  let read: ReadPolicy | null = null
  let write: WritePolicy | null = null
  for (const { letter, at } of options.value.options) {
    if (letter === 'S') {
      if (write !== null) return err(bad('invalidWriteOption', name, words, at))
      write = 'serial'
    } else {
      if (read !== null) return err(bad('invalidReadOption', name, words, at))
      read = letter === 'g' ? 'geometric' : 'first'
    }
  }
  next = options.value.next
  let pass = 1
  const word = words[next]
  if (word !== undefined) {
    if (!/^\d+$/.test(word)) return err(bad('syntax', name, words, next))
    if (!/^\d$/.test(word)) return err(bad('invalidPass', name, words, next))
    pass = Number(word)
    if (next + 1 < words.length) return err(bad('syntax', name, words, next + 1))
  }
  return ok({ kind: 'mirror', name, submirrors, read: read ?? 'roundrobin', write: write ?? 'parallel', pass })
}

const text = (m: Pick<MirrorUnit, 'name' | 'read' | 'write' | 'pass'>, submirrors: readonly string[]): string =>
  `${m.name} -m ${submirrors.join(' ')}${READ_OPTION[m.read]}${WRITE_OPTION[m.write]} ${m.pass}`

const toTab = (m: MirrorUnit): string =>
  text(
    m,
    m.submirrors.map((s) => rawPath(s.unit)),
  )

/** The checks that creation and attachment share: exists, right kind, free, closed. */
export const freeSubmirror = (name: UnitName, tree: Tree, live: Live): MetaResult<StripeUnit> => {
  const unit = tree.get(name)
  const problem = (code: MetaError['code']): MetaResult<StripeUnit> => err(metaError(code, name))
  if (unit === undefined) return problem('unitNotSetUp')
  if (unit.kind !== 'stripe') return problem('invalidUnit')
  if (parentOf(tree, name) !== null) return problem('inUse')
  // A client of the submirror would write behind the mirror's back.
  if (live.isOpen(name)) return problem('isOpen')
  return ok(unit)
}

/** Size of a mirror of these: the smallest, in whole cylinders of the mirror. */
const smallest = (stripes: readonly StripeUnit[], geometry: MirrorUnit['geometry']): Blocks =>
  roundDown(blocks(Math.min(...stripes.map((s) => s.blocks))), cylinder(geometry))

const multiWayWarning = (name: UnitName): Warning => [
  `metainit: ${name}: WARNING: This form of metainit is not recommended.`,
  'The submirrors may not have the same data.',
  'Please see ERRORS in metainit(1M) for additional information.',
]

const build = (d: MirrorDefinition, context: BuildContext): MetaResult<Built<MirrorUnit>> => {
  const { tree, live, now } = context
  const stripes: StripeUnit[] = []
  for (const [i, name] of d.submirrors.entries()) {
    const free = freeSubmirror(name, tree, live)
    if (!free.ok) return free
    if (d.submirrors.indexOf(name) < i) return err(metaError('appearsTwice', name, d.name))
    stripes.push(free.value)
  }
  const first = stripes[0]
  if (first === undefined) return err(metaError('notEnoughSubmirrors', d.name))
  const labelledLater = stripes.find((s) => s.labelled && !first.labelled)
  if (labelledLater !== undefined) return err(metaError('labelledToUnlabelled', labelledLater.name))
  const size = smallest(stripes, first.geometry)
  if (size === 0) return err(metaError('sys', d.name, 'No space left on device'))
  return ok({
    unit: {
      kind: 'mirror',
      name: d.name,
      minor: context.minor,
      submirrors: d.submirrors.map((unit, slot) => ({
        slot: slot as Slot,
        unit,
        state: 'okay',
        changed: now,
      })),
      read: d.read,
      write: d.write,
      pass: d.pass,
      geometry: first.geometry,
      labelled: first.labelled,
      blocks: size,
      errors: 0,
      regionBlocks: regionBlocksFor(size),
      cancelled: false,
      checkpoint: null,
    },
    warnings: d.submirrors.length > 1 ? [multiWayWarning(d.name)] : [],
  })
}

/** The mirror with `stripe` in its lowest free slot, for a full resync. */
export const withSubmirror = (m: MirrorUnit, stripe: StripeUnit, now: number): MetaResult<MirrorUnit> => {
  const slot = ([0, 1, 2, 3] as const).find((n) => m.submirrors.every((s) => s.slot !== n))
  if (slot === undefined) return err(metaError('maxSubmirrors', m.name))
  if (stripe.blocks < m.blocks) return err(metaError('submirrorTooSmall', stripe.name))
  if (stripe.labelled && !m.labelled) return err(metaError('labelledToUnlabelled', stripe.name))
  const added: Submirror = { slot, unit: stripe.name, state: 'resync', changed: now }
  return ok({ ...m, cancelled: false, submirrors: [...m.submirrors, added].sort((a, b) => a.slot - b.slot) })
}

/** The size the submirrors allow now; never less than the mirror has. */
export const growthOf = (m: MirrorUnit, tree: Tree): Blocks => {
  const stripes = submirrorStripes(m, tree)
  assert(stripes.length === m.submirrors.length, `${m.name}: submirrors exist`)
  return blocks(Math.max(m.blocks, smallest(stripes, m.geometry)))
}

/** `m` with growth done and nothing pending; the same object when there is nothing to do. */
export const grown = (m: MirrorUnit, tree: Tree): MirrorUnit => {
  const size = growthOf(m, tree)
  if (size === m.blocks && m.growPending === undefined) return m
  const { growPending: _, ...rest } = m
  return { ...rest, blocks: size, regionBlocks: regionBlocksFor(size, m.regionBlocks) }
}

/**
 * The dirty region log stays in the plan of a read-only mirror: the regions in which a side is stale are
 * numbered by it.
 */
const compile = (m: MirrorUnit, { to, tree, child }: CompileContext): NodeId => {
  const sides = m.submirrors.map((s) => {
    const unit = stripeOf(tree, s.unit)
    assert(unit !== null, `${m.name}: submirror ${s.unit} exists`)
    return { child: child(unit), slot: s.slot, readable: inStep(s), writable: isWritten(s), stale: isStale(s) }
  })
  return to.addMirror(sides, m.blocks, m.read, m.write, blocks(m.submirrors.length > 1 ? m.regionBlocks : 0))
}

const decodeCheckpoint = (from: Reader | null): Checkpoint | null =>
  from === null
    ? null
    : {
        slot: from.integer('slot', 0, MAX_SUBMIRRORS - 1) as Slot,
        component: from.integerOrNull('component', 0, 1 << 30),
        identity: from.text('identity'),
        done: from.blocks('done'),
      }

const decode = (from: Reader, common: { readonly name: UnitName; readonly minor: number }): MirrorUnit => ({
  kind: 'mirror',
  ...common,
  submirrors: from.list('submirrors', 1, MAX_SUBMIRRORS, (s) => ({
    slot: s.integer('slot', 0, MAX_SUBMIRRORS - 1) as Slot,
    unit: s.name('unit'),
    state: s.word('state', ['okay', 'attached', 'resync', 'offline', 'offlineResync', 'optimized']),
    ...(s.has('unsynced') && s.boolean('unsynced') ? { unsynced: true as const } : {}),
    changed: s.time('changed'),
  })),
  read: from.word('read', READ_POLICIES),
  write: from.word('write', WRITE_POLICIES),
  pass: from.integer('pass', 0, 9),
  geometry: from.geometry('geometry'),
  labelled: from.boolean('labelled'),
  blocks: from.blocks('blocks', 1),
  errors: from.integer('errors', 0, Number.MAX_SAFE_INTEGER),
  regionBlocks: from.blocks('regionBlocks', MIN_REGION_BLOCKS),
  cancelled: from.boolean('cancelled'),
  checkpoint: decodeCheckpoint(from.objectOrNull('checkpoint')),
  ...(from.has('growPending') && from.boolean('growPending') ? { growPending: true } : {}),
})

const verify = (m: MirrorUnit, tree: Tree): string | null => {
  let slot = -1
  for (const s of m.submirrors) {
    if (s.slot <= slot) return 'submirrors are not in slot order'
    slot = s.slot
    const unit = stripeOf(tree, s.unit)
    if (unit === null) return `submirror ${s.unit} is not set up`
    if (m.submirrors.filter((other) => other.unit === s.unit).length > 1) return `submirror ${s.unit} appears twice`
    const parent = parentOf(tree, s.unit)
    if (parent !== null && parent.name !== m.name) return `submirror ${s.unit} is part of ${parent.name}`
    if (unit.blocks < m.blocks) return `submirror ${s.unit} is smaller than the mirror`
  }
  if (!isRegionSize(m.regionBlocks)) return 'regionBlocks is not a power of two'
  if (m.blocks > m.regionBlocks * MAX_REGIONS) return 'too many dirty regions'
  return m.submirrors.some(inStep) ? null : 'no submirror is readable'
}

export const mirror: DeviceModule<'mirror'> = {
  kind: 'mirror',
  driver: 'md_mirror',
  parse,
  print: (d) => text(d, d.submirrors),
  componentWords: () => [],
  build,
  toTab,
  compile,
  report: (m, tree, live) => reportMirror(m, tree, live, toTab(m)),
  decode,
  verify,
}
