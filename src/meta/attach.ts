/** metattach: submirrors to mirrors, rows to stripes, columns to RAID5 devices, growth of mirrors (commands.md 3.5). */
import { err, ok } from '../base/result.js'
import type { Blocks } from '../base/units.js'
import { type MetaResult, metaError } from '../msg/errors.js'
import { parseInterlace } from './interlace.js'
import type { Live, Warning } from './kind.js'
import { KINDS } from './kinds.js'
import { freeSubmirror, grown, growthOf, MAX_SUBMIRRORS, withSubmirror } from './mirror.js'
import { parseUnitName } from './names.js'
import { outcome, type Outcome, unchanged } from './operations.js'
import { attachColumns } from './raid5attach.js'
import { ALL_OPENABLE, blockWithoutSource, sidesIn } from './sources.js'
import { addRow } from './stripe.js'
import { parentOf, withUnits } from './tree.js'
import type { Inventory, MirrorUnit, StripeUnit, Tree, UnitName } from './types.js'

export interface AttachRequest {
  readonly words: readonly string[]
  readonly interlace: string | null
  /** Only says how the reply is worded. */
  readonly check: boolean
}
interface AttachContext {
  readonly tree: Tree
  readonly inventory: Inventory
  readonly live: Live
  readonly now: number
}

export const attach = (request: AttachRequest, context: AttachContext): MetaResult<Outcome> => {
  const [word, ...rest] = request.words
  if (word === undefined) return err(metaError('syntax'))
  const name = parseUnitName(word)
  if (!name.ok) return name
  const unit = context.tree.get(name.value)
  if (unit === undefined) return err(metaError('unitNotSetUp', name.value))
  if (unit.kind === 'stripe') return attachComponents(unit, rest, request, context)
  if (unit.kind === 'raid5') {
    const option = request.interlace !== null ? '-i' : request.check ? '-n' : null
    if (option !== null) return err(metaError('illegalOption', `${unit.name}: "${option}"`))
    return attachColumns(unit, rest, context)
  }
  if (unit.kind !== 'mirror') return err(metaError('invalidType', unit.name, KINDS[unit.kind].driver))
  if (request.interlace !== null) return err(metaError('illegalOption', `${unit.name}: "-i"`))
  const [submirror, extra] = rest
  if (extra !== undefined) return err(metaError('syntax', `${unit.name}: "${extra}"`))
  return submirror === undefined ? grow(unit, context) : attachSubmirror(unit, submirror, request.check, context)
}

const attachSubmirror = (m: MirrorUnit, word: string, check: boolean, context: AttachContext): MetaResult<Outcome> => {
  const name = parseUnitName(word)
  if (!name.ok) return name
  if (m.submirrors.length >= MAX_SUBMIRRORS) return err(metaError('maxSubmirrors', m.name))
  const free = freeSubmirror(name.value, context.tree, context.live)
  if (!free.ok) return free
  const unit = withSubmirror(m, free.value, context.now)
  if (!unit.ok) return unit
  return ok(
    outcome(context.tree, {
      put: [unit.value],
      changes: [{ change: 'submirrorAttached', name: m.name, submirror: name.value, check }],
    }),
  )
}

/**
 * Silent. A mirror that resyncs, or would get blocks that no submirror can be read for, grows when a resync ends; the
 * caller commits `growPending` and says so.
 */
const grow = (m: MirrorUnit, { tree, live }: AttachContext): MetaResult<Outcome> => {
  if (growthOf(m, tree) === m.blocks) return ok(unchanged(tree))
  if (live.isResyncing(m.name) || !canGrow(m, tree))
    return ok(outcome(tree, { put: [{ ...m, growPending: true }], warnings: [delayed(m.name)] }))
  return ok(outcome(tree, { put: [grown(m, tree)] }))
}

const delayed = (name: UnitName): Warning => [`metattach: ${name}: growing of metadevice delayed`]

const attachComponents = (
  unit: StripeUnit,
  words: readonly string[],
  request: AttachRequest,
  context: AttachContext,
): MetaResult<Outcome> => {
  if (words.length === 0) return err(metaError('notEnoughComponents', unit.name))
  let interlace: Blocks | null = null
  if (request.interlace !== null) {
    const parsed = parseInterlace(request.interlace, unit.name)
    if (!parsed.ok) return parsed
    interlace = parsed.value
  }
  const wider = addRow(unit, words, interlace, context)
  if (!wider.ok) return wider
  const changes = [
    { change: 'componentsAttached', name: unit.name, count: words.length, check: request.check },
  ] as const
  const parent = parentOf(context.tree, unit.name)
  if (parent?.kind !== 'mirror') return ok(outcome(context.tree, { put: [wider.value], changes }))
  const tree = withUnits(context.tree, [wider.value])
  const grownParent = grow(parent, { ...context, tree })
  if (!grownParent.ok) return grownParent
  const { put, warnings } = grownParent.value
  return ok(outcome(context.tree, { put: [wider.value, ...put], changes, warnings }))
}

/** Every block of the larger mirror has a source: what failed beyond its end was needed by nobody, and was given up. */
const canGrow = (m: MirrorUnit, tree: Tree): boolean =>
  blockWithoutSource(growthOf(m, tree), sidesIn(m, tree), ALL_OPENABLE) === null

/** When a resync of a mirror has ended: the growth that waited for it. */
export const finishGrowth = (tree: Tree, name: UnitName): Outcome => {
  const m = tree.get(name)
  if (m?.kind !== 'mirror' || m.growPending === undefined || !canGrow(m, tree)) return unchanged(tree)
  return outcome(tree, { put: [grown(m, tree)] })
}
