/**
 * metareplace: a component of a mirror gets other storage, or its own again, and is copied from the
 * other sides (commands.md 3.9, checks in that order). What that means for a hot spare that stood in is
 * said by settleSpares (hotspare.ts), with the commit.
 */
import { err, ok } from '../base/result.js'
import type { Blocks } from '../base/units.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import type { Change } from '../msg/format.js'
import { checkReplacement, lookUp } from './check.js'
import type { Live } from './kind.js'
import { blocksPerComponent, startBlock } from './layout.js'
import { advance, stateOf, stateOutcome } from './mirrorstate.js'
import { parseUnitName } from './names.js'
import { configuredName } from './operands.js'
import type { Outcome } from './operations.js'
import { replaceColumn } from './raid5replace.js'
import { optimizedPending } from './resyncs.js'
import { sliceOf } from './slice.js'
import { hasOtherSource, type Place, type Side, sidesIn, stripeComponents } from './sources.js'
import { configured } from './standing.js'
import { metadeviceOf } from './tree.js'
import type { Component, Inventory, MirrorUnit, Slice, StripeUnit, Tree } from './types.js'

export interface ReplaceRequest {
  readonly unit: string
  readonly old: string
  /** null: the same component again (-e). */
  readonly new: string | null
  /** RAID5: also what is Last Erred, when nothing is worse. */
  readonly force: boolean
}
export interface ReplaceContext {
  readonly tree: Tree
  readonly inventory: Inventory
  /** Names under which a word may be configured, also when the device is gone. */
  readonly namesOf: (word: string) => readonly string[]
  readonly live: Live
  /** ms since the epoch. */
  readonly now: number
}

interface Found {
  readonly side: Side
  readonly place: Place
  readonly component: Component
}

const find = (word: string, sides: readonly Side[], context: ReplaceContext): Found | null => {
  const all = sides.flatMap((side) =>
    stripeComponents(side.stripe).map((component, i): Found => {
      return { side, component, place: { slot: side.submirror.slot, component: i } }
    }),
  )
  const index = configuredName(
    word,
    all.map((f) => f.component),
    context,
  )
  return all[index] ?? null
}

/** Blocks that every component of the row gives to it. */
const share = (stripe: StripeUnit, index: number): Blocks => {
  let before = 0
  for (const row of stripe.rows) {
    before += row.components.length
    if (index < before) return blocksPerComponent(row)
  }
  throw new Error(`${stripe.name} has no component ${index}`)
}

const named = (m: MirrorUnit, code: MetaError['code'], name: string): MetaError => metaError(code, `${m.name}: ${name}`)

/** What is there but does not answer is a failure of the device; what is not there is a word mistyped. */
const unreachable = (m: MirrorUnit, name: string, e: MetaError): MetaError =>
  e.code === 'sys' && e.args?.[0] !== 'No such file or directory' ? named(m, 'componentOpen', name) : e

const newSlice = (
  m: MirrorUnit,
  found: Found,
  word: string,
  enable: boolean,
  context: ReplaceContext,
): MetaResult<Slice> => {
  const { side, place, component } = found
  const { stripe } = side
  const device = lookUp(word, stripe.name, context.tree, context.inventory)
  if (!device.ok) return err(unreachable(m, word, device.error))
  const d = device.value
  const { start } = startBlock(d, place.component === 0 && stripe.labelled)
  if (d.size - start < share(stripe, place.component)) return err(named(m, 'replaceTooSmall', d.name))
  const own = enable ? { unit: stripe.name, name: configured(component).name, held: component.state !== 'erred' } : null
  const checked = checkReplacement(stripe.name, word, own, context)
  return checked.ok ? ok(sliceOf(checked.value, start)) : checked
}

export const replace = (r: ReplaceRequest, context: ReplaceContext): MetaResult<Outcome> => {
  const name = parseUnitName(r.unit)
  if (!name.ok) return name
  const unit = metadeviceOf(context.tree, name.value)
  if (unit === null) return err(metaError('unitNotSetUp', name.value))
  if (unit.kind === 'mirror') return replaceComponent(unit, r, context)
  return unit.kind === 'raid5' ? replaceColumn(unit, r, context) : err(metaError('unknownType', unit.name))
}

const replaceComponent = (m: MirrorUnit, r: ReplaceRequest, context: ReplaceContext): MetaResult<Outcome> => {
  const { tree, live, now } = context
  if (live.isUnavailable(m.name)) return err(metaError('unavailable', m.name))
  if (live.isResyncing(m.name) || optimizedPending(m)) return err(metaError('resyncInProgress', m.name))
  const sides = sidesIn(m, tree)
  const found = find(r.old, sides, context)
  if (found === null) return err(named(m, 'componentNotFound', r.old))
  const { place, side, component } = found
  const old = configured(component).name
  if (sides.length === 1) return err(metaError('replaceLast', m.name))
  if (!hasOtherSource(m.blocks, sides, place, (c) => !live.isMissing(c))) return err(named(m, 'replaceOrder', old))
  if (side.submirror.state === 'offline') return err(metaError('submirrorState', m.name))
  const by = newSlice(m, found, r.new ?? old, r.new === null, context)
  if (!by.ok) return by
  const next = advance(stateOf(m, tree), { event: 'replace', place, by: by.value }, now)
  if (!next.ok) return err(metaError('submirrorState', m.name))
  const change: Change =
    r.new === null
      ? { change: 'deviceEnabled', name: m.name, device: old }
      : { change: 'deviceReplaced', name: m.name, device: old, by: by.value.name }
  return ok(stateOutcome(tree, next.value.state, { changes: [change] }))
}
