/**
 * Mirrors under random events and commands, beside a model that knows block by block what every
 * component holds: what may be read is always what was written last. A failure prints its seed;
 * SEED=n runs that one again, RUNS=n runs more of them.
 *
 * Permitted faults: any error of any component at any time, metad's death at any moment with its dirty
 * regions kept or lost, components that cannot be opened at a start, copies that fail or are cancelled.
 */
import { deepEqual } from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { compilePlan } from '../../../src/meta/compile.js'
import { decide, decideOpen } from '../../../src/meta/decide.js'
import { IDLE } from '../../../src/meta/kind.js'
import { locate } from '../../../src/meta/layout.js'
import { advance, type MirrorEvent, type ResyncTarget, stateOf, stateOutcome } from '../../../src/meta/mirrorstate.js'
import { attach, detach, offline, online, type Outcome, replace } from '../../../src/meta/operations.js'
import type { Json } from '../../../src/meta/reader.js'
import { readTree, recordChanges } from '../../../src/meta/records.js'
import { nextResync, wantedResyncs } from '../../../src/meta/resyncs.js'
import {
  ALL_OPENABLE,
  blockWithoutSource,
  hasOtherSource,
  inStep,
  isSource,
  isStale,
  isWritten,
  type Openable,
  type Place,
  type Side,
  sidesIn,
  stripeComponents,
} from '../../../src/meta/sources.js'
import { withUnits } from '../../../src/meta/tree.js'
import type { Component, Member, MirrorUnit, Slot, Tree, UnitName } from '../../../src/meta/types.js'
import { encodePlan } from '../../../src/plan/encode.js'
import type { ComponentId } from '../../../src/plan/types.js'
import { decodePlan } from '../../../src/plan/verify.js'
import type { MetaResult } from '../../../src/msg/errors.js'
import { device, inventoryOf, mirrorIn, treeOf } from '../../unit/meta/world.js'
import { givenSeed, seed } from '../../tools/seed.js'

// tap's 30 seconds for a whole file are short when the machine is busy.
t.setTimeout(240_000)

const settings = {
  numRuns: Number(process.env['RUNS'] ?? 300),
  seed,
}

const CYLINDER = 16
const MIRROR = 'd0' as UnitName
/** Disks are numbered; those of an even number are larger. */
const DISKS = 40
const inventory = inventoryOf(
  Array.from({ length: DISKS }, (_, i) =>
    device(`/disks/${i}`, (10 + (i % 4)) * CYLINDER, { geometry: { heads: 1, sectors: CYLINDER } }),
  ),
)

/** What the copies, the log and the disks know. Blocks are the mirror's. */
interface Model {
  tree: Tree
  readonly size: number
  /** By identity: 1 where the component has what was written last. */
  readonly content: Map<string, Uint8Array>
  /** Regions of one block: finer than any real log, so it forgives less. */
  readonly dirty: Uint8Array
  readonly stale: Map<Slot, Uint8Array>
  job: { readonly target: ResyncTarget; at: number } | null
  tried: ResyncTarget[]
  nextDisk: number
  nextStripe: number
  now: number
}

const mirrorOf = (w: Model): MirrorUnit => mirrorIn(w.tree, 'd0')
const sidesOf = (w: Model): readonly Side[] => sidesIn(mirrorOf(w), w.tree)

const held = (w: Model, c: Component): Uint8Array => {
  const have = w.content.get(c.identity) ?? new Uint8Array(w.size)
  w.content.set(c.identity, have)
  return have
}

/** Component under every block of a side; layouts do not change here. */
const layouts = new WeakMap<Model['content'], Map<UnitName, Int16Array>>()
const layoutOf = (w: Model, { stripe }: Side): Int16Array => {
  const known = layouts.get(w.content) ?? new Map<UnitName, Int16Array>()
  layouts.set(w.content, known)
  const have = known.get(stripe.name)
  if (have !== undefined) return have
  const layout = Int16Array.from({ length: w.size }, (_, b) => {
    const at = locate(stripe.rows, blocks(b))
    if (at === null) return -1
    return stripe.rows.slice(0, at.row).reduce((n, r) => n + r.components.length, 0) + at.component
  })
  known.set(stripe.name, layout)
  return layout
}
const indexAt = (w: Model, side: Side, b: number): number => layoutOf(w, side)[b] ?? -1
const componentAt = (w: Model, side: Side, b: number): Component | undefined =>
  stripeComponents(side.stripe)[indexAt(w, side, b)]

/** Everything that must hold after every step; the first thing that does not. */
const violation = (w: Model): string | null => {
  const m = mirrorOf(w)
  const sides = sidesOf(w)
  const gap = blockWithoutSource(m.blocks, sides, ALL_OPENABLE)
  if (gap !== null) return `block ${gap} has no source`
  if (!sides.some((s) => s.submirror.state === 'okay')) return 'no side is in step beyond doubt'
  for (const side of sides) {
    const { submirror: s } = side
    const all = stripeComponents(side.stripe).map((c) => ({ c, source: isSource(s, c), has: held(w, c) }))
    for (let b = 0; b < w.size; b++) {
      const at = all[indexAt(w, side, b)]
      if (at === undefined) return `${s.unit} has no block ${b}`
      if (at.source && at.has[b] !== 1) return `${s.unit} (${s.state}) ${at.c.name} (${at.c.state}): old data at ${b}`
    }
    for (const [component, c] of stripeComponents(side.stripe).entries()) {
      if (c.erredOrder > m.errors) return `${c.name}: order ${c.erredOrder} after ${m.errors}`
      if (c.state !== 'lastErred') continue
      if (!inStep(s)) return `${c.name}: Last Erred in a side that is ${s.state}`
      if (hasOtherSource(m.blocks, sides, { slot: s.slot, component }, ALL_OPENABLE))
        return `${c.name}: needlessly Last Erred`
    }
  }
  if (
    m.cancelled &&
    wantedResyncs(m, w.tree).length === 0 &&
    !sides.some(
      (s) =>
        isStale(s.submirror) ||
        s.submirror.state === 'resync' ||
        stripeComponents(s.stripe).some((c) => c.state === 'resync'),
    )
  )
    return 'cancelled, and nothing to cancel'
  const point = m.checkpoint
  if (point !== null) {
    const side = sides.find((s) => s.submirror.slot === point.slot)
    const copied =
      point.component === null
        ? side?.submirror.state === 'resync'
        : side !== undefined && stripeComponents(side.stripe)[point.component]?.state === 'resync'
    if (!copied) return 'a checkpoint of nothing'
  }
  return planViolation(w, sides)
}

const planViolation = (w: Model, sides: readonly Side[]): string | null => {
  const ids = new Map<Member, number>()
  const component = (c: Member): ComponentId => {
    ids.set(c, ids.size + 1)
    return (ids.get(c) ?? 0) as ComponentId
  }
  const plan = compilePlan(mirrorOf(w), w.tree, { generation: 1, readOnly: false, component })
  const bytes = decodePlan(encodePlan(plan))
  if (!bytes.ok) return `plan refused: ${bytes.error}`
  const root = plan.nodes.at(-1)
  if (root?.kind !== 'mirror') return 'no mirror'
  for (const [i, side] of sides.entries()) {
    const flags = root.sides[i]
    if (flags?.readable !== inStep(side.submirror)) return `side ${i}: readable`
    if (flags.writable !== isWritten(side.submirror)) return `side ${i}: writable`
    if (flags.stale !== isStale(side.submirror)) return `side ${i}: stale`
    for (const c of stripeComponents(side.stripe)) {
      const node = plan.nodes.find((n) => n.kind === 'component' && n.component === ids.get(c))
      if (node?.kind !== 'component') return 'no node'
      if (node.readable !== (c.state === 'okay' || c.state === 'lastErred')) return `${c.name}: readable`
      if (node.writable !== (c.state !== 'erred')) return `${c.name}: writable`
    }
  }
  return null
}

/** The engine's view of stale regions follows the plan. */
const follow = (w: Model): void => {
  for (const { submirror: s } of sidesOf(w)) {
    if (!isStale(s)) w.stale.delete(s.slot)
    else if (!w.stale.has(s.slot)) w.stale.set(s.slot, w.dirty.slice())
  }
  for (const slot of w.stale.keys()) if (!mirrorOf(w).submirrors.some((s) => s.slot === slot)) w.stale.delete(slot)
}

const adopt = (w: Model, tree: Tree): void => {
  w.tree = tree
  // What is in Maintenance misses everything from now on; the error may have destroyed what it had.
  for (const side of sidesOf(w))
    for (const c of stripeComponents(side.stripe)) if (c.state === 'erred') held(w, c).fill(0)
  follow(w)
}
const carryOut = (w: Model, r: MetaResult<Outcome>): boolean => {
  if (!r.ok) return false
  const again = withUnits(w.tree, r.value.put, r.value.remove)
  deepEqual(again, r.value.tree, 'what is recorded is what was decided')
  adopt(w, r.value.tree)
  return true
}
const happen = (w: Model, e: MirrorEvent): boolean => {
  const next = advance(stateOf(mirrorOf(w), w.tree), e, w.now)
  return next.ok && carryOut(w, { ok: true, value: stateOutcome(w.tree, next.value.state) })
}

const write = (w: Model, from: number, length: number): void => {
  for (let b = from; b < Math.min(from + length, w.size); b++) {
    w.dirty[b] = 1
    for (const side of sidesOf(w)) {
      const c = componentAt(w, side, b)
      if (c !== undefined) held(w, c)[b] = isWritten(side.submirror) && c.state !== 'erred' ? 1 : 0
    }
  }
}

/** The log forgets only while every side has everything (contract of the dirty region log). */
const clean = (w: Model): void => {
  const whole = sidesOf(w).every(
    (s) =>
      s.submirror.state === 'okay' &&
      stripeComponents(s.stripe).every((c) => c.state === 'okay' || c.state === 'lastErred'),
  )
  if (whole) w.dirty.fill(0)
}

const begin = (w: Model): void => {
  if (w.job !== null) return
  const plan = nextResync(mirrorOf(w), w.tree, w.tried)
  if (plan !== null) w.job = { target: plan.target, at: plan.target.kind === 'optimized' ? 0 : plan.from }
}

/** What a copy does with one block of its target. */
const copy = (w: Model, target: ResyncTarget, b: number): void => {
  const sides = sidesOf(w)
  const side = sides.find((s) => s.submirror.slot === target.slot)
  const c = side === undefined ? undefined : componentAt(w, side, b)
  if (side === undefined || c === undefined || c.state === 'erred') return
  if (target.kind === 'component' && indexAt(w, side, b) !== target.component) return
  const stale = w.stale.get(target.slot)
  if (target.kind === 'optimized' && stale?.[b] !== 1) return
  const source = sides.find((s) => {
    const from = componentAt(w, s, b)
    return from !== undefined && from !== c && isSource(s.submirror, from) && w.stale.get(s.submirror.slot)?.[b] !== 1
  })
  const anySource = source ?? sides.find((s) => isSource(s.submirror, componentAt(w, s, b) ?? c))
  if (anySource === undefined) throw new Error(`copy of block ${b} without a source`)
  held(w, c)[b] = 1
  if (stale !== undefined && target.kind === 'optimized') stale[b] = 0
}

const end = (w: Model, result: 'done' | 'failed' | 'cancelled', failed: Place | null = null): void => {
  const { job } = w
  if (job === null) return
  w.job = null
  if (result === 'failed' && failed === null) w.tried.push(job.target)
  happen(w, { event: 'resyncEnd', target: job.target, result, done: blocks(job.at), failed })
}

const progress = (w: Model, step: number): void => {
  begin(w)
  const { job } = w
  if (job === null) return
  const to = Math.min(job.at + step, w.size)
  for (; job.at < to; job.at++) copy(w, job.target, job.at)
  if (job.at >= w.size) end(w, 'done')
  else if (step % 2 === 0) happen(w, { event: 'checkpoint', target: job.target, done: blocks(job.at) })
}

const pick = <T>(of: readonly T[], n: number): T | undefined => of[n % Math.max(of.length, 1)]
const places = (w: Model): readonly (Place & { readonly side: Side; readonly c: Component })[] =>
  sidesOf(w).flatMap((side) =>
    stripeComponents(side.stripe).map((c, component) => ({ slot: side.submirror.slot, component, side, c })),
  )

const error = (w: Model, numbers: readonly number[]): void => {
  const hit = numbers.map((n) => pick(places(w), n)).filter((p) => p !== undefined)
  const decided = decide(
    w.tree,
    MIRROR,
    hit.map(({ side, component }) => ({
      unit: side.stripe.name,
      component,
      op: 'write',
      masked: false,
      repairFailed: false,
      readErrors: 0,
    })),
    { now: w.now, readErrorLimit: 20 },
  )
  if (decided.verdict !== 'resume') throw new Error('nothing was decided')
  carryOut(w, { ok: true, value: decided.outcome })
  const onTarget = hit.find(
    (p) =>
      p.slot === w.job?.target.slot &&
      places(w).find((x) => x.slot === p.slot && x.component === p.component)?.c.state === 'erred',
  )
  if (onTarget !== undefined && (w.job?.target.kind !== 'component' || w.job.target.component === onTarget.component))
    end(w, 'failed', { slot: onTarget.slot, component: onTarget.component })
}

const freshDisk = (w: Model): string | null => (w.nextDisk < DISKS ? `/disks/${w.nextDisk++}` : null)

/** Other storage, or the same disk swapped: nothing of what was there is there any more. */
const wipe = (w: Model, identity: string): void => void w.content.set(identity, new Uint8Array(w.size))

const crash = (w: Model, log: number, closed: number): void => {
  w.job = null
  w.tried = []
  w.stale.clear()
  const lost = log % 5 === 0
  if (lost) w.dirty.fill(1)
  const out = places(w).filter((_, i) => closed % 3 === 0 && ((closed >> i) & 5) === 5)
  const openable: Openable = (c) => !out.some((p) => p.c.identity === c.identity)
  happen(w, { event: 'load', log: lost ? 'lost' : w.dirty.some((d) => d === 1) ? 'dirty' : 'clean', openable })
  // Otherwise the mirror stays closed, until everything can be opened again.
  const opened = decideOpen(w.tree, MIRROR, openable, w.now)
  if (opened.ok) carryOut(w, { ok: true, value: opened.value.outcome })
  if (mirrorOf(w).pass > 0) happen(w, { event: 'sync' })
}

const attachSide = (w: Model, n: number): void => {
  const free = [...w.tree.values()].find(
    (u) => u.kind === 'stripe' && u.name !== MIRROR && !mirrorOf(w).submirrors.some((s) => s.unit === u.name),
  )
  let name = free?.name
  if (name === undefined) {
    const disks = [freshDisk(w), freshDisk(w), freshDisk(w), freshDisk(w)].filter((d) => d !== null)
    if (disks.length < 4) return
    name = `d${w.nextStripe++}` as UnitName
    const line =
      n % 2 === 0 ? `${name} 1 4 ${disks.join(' ')} -i 16b` : `${name} 4 ${disks.map((d) => `1 ${d} -i 16b`).join(' ')}`
    w.tree = treeOf([line], { tree: w.tree, inventory, counter: w.nextStripe })
  }
  const stripe = w.tree.get(name)
  if (stripe?.kind !== 'stripe') return
  for (const c of stripeComponents(stripe)) wipe(w, c.identity)
  carryOut(w, attach({ words: ['d0', name], interlace: null, check: false }, { ...context(w), inventory }))
}

const context = (w: Model) => ({
  tree: w.tree,
  live: { ...IDLE, isResyncing: () => w.job !== null },
  now: w.now,
})

const replaceOne = (w: Model, n: number, enable: boolean): void => {
  const place = pick(places(w), n)
  const disk = enable ? null : freshDisk(w)
  if (place === undefined || (!enable && disk === null)) return
  const old = (place.c.spare?.original ?? place.c).name
  const done = carryOut(
    w,
    replace({ unit: 'd0', old, new: disk, force: false }, { ...context(w), inventory, namesOf: (word) => [word] }),
  )
  if (done) wipe(w, `file:1:${disk ?? old}`)
}

const spare = (w: Model, n: number): void => {
  const place = pick(
    places(w).filter((p) => p.c.state === 'erred' && p.c.spare === null),
    n,
  )
  const disk = w.job === null && place !== undefined ? freshDisk(w) : null
  const found = disk === null ? null : inventory(disk)
  if (place === undefined || found === null || !found.ok) return
  const { name, path, identity, extent, offset, size } = found.value
  const row = place.side.stripe.rows.find((r) => r.components.includes(place.c))
  if (row === undefined || size < row.blocks / row.components.length) return
  wipe(w, identity)
  const by = { name, path, identity, extent, offset, size, start: blocks(0) }
  happen(w, { event: 'spare', place: { slot: place.slot, component: place.component }, by, pool: 'hsp001' as UnitName })
}

const STEPS = [
  'write',
  'clean',
  'copy',
  'error',
  'errors',
  'crash',
  'fail',
  'cancel',
  'sync',
  'offline',
  'online',
  'detach',
  'attach',
  'replace',
  'enable',
  'spare',
  'odd',
  'heal',
] as const
type Step = { readonly what: (typeof STEPS)[number]; readonly a: number; readonly b: number; readonly flag: boolean }

/** Half of the time a side that something is the matter with. */
const unitAt = (w: Model, n: number): string => {
  const all = mirrorOf(w).submirrors
  const odd = all.filter((s) => s.state !== 'okay')
  return pick(n % 2 === 0 && odd.length > 0 ? odd : all, n >> 1)?.unit ?? 'd99'
}

const step = (w: Model, { what, a, b, flag }: Step): void => {
  w.now++
  const side = { mirror: 'd0', submirror: unitAt(w, a), force: flag }
  const before = w.tree
  switch (what) {
    case 'write':
      return write(w, a % w.size, 1 + (b % 64))
    case 'clean':
      return clean(w)
    case 'copy':
      return progress(w, flag ? w.size : 1 + (b % Math.ceil(w.size / 2)))
    case 'error':
      return error(w, [a])
    case 'errors':
      return error(w, [a, b, a + b])
    case 'crash':
      return crash(w, a, b)
    case 'fail':
      begin(w)
      return end(w, 'failed')
    case 'cancel':
      begin(w)
      for (const to = a % w.size; w.job !== null && w.job.at < to; w.job.at++) copy(w, w.job.target, w.job.at)
      return end(w, 'cancelled')
    case 'sync':
      happen(w, { event: 'sync' })
      break
    case 'offline':
      carryOut(w, offline(side, context(w)))
      break
    case 'online':
      carryOut(w, online(side, context(w)))
      break
    case 'detach':
      carryOut(w, detach(['d0', side.submirror], flag, w.tree, context(w).live, w.now))
      break
    case 'attach':
      attachSide(w, a)
      break
    case 'replace':
      replaceOne(w, a, false)
      break
    case 'enable':
      replaceOne(w, a, true)
      break
    case 'spare':
      spare(w, a)
      break
    case 'odd':
      return odd(w, a, b)
    case 'heal':
      return heal(w)
  }
  // What a command changed may be what a failed copy waited for.
  if (w.tree !== before) w.tried = []
}

/** What a careful administrator does, and then everything is Okay: no state is a dead end. */
const heal = (w: Model): void => {
  const finish = (): void => {
    happen(w, { event: 'sync' })
    w.tried = []
    while (w.job !== null || nextResync(mirrorOf(w), w.tree, w.tried) !== null) progress(w, w.size)
  }
  finish()
  for (const { submirror: s } of sidesOf(w))
    if (s.state === 'offline') carryOut(w, online({ mirror: 'd0', submirror: s.unit, force: false }, context(w)))
  finish()
  if (mirrorOf(w).submirrors.length === 1) return
  // Maintenance first; what is Last Erred is in Maintenance by then.
  for (let left = true; left;) {
    left = false
    for (const [i, p] of places(w).entries()) {
      if (p.c.state !== 'erred') continue
      replaceOne(w, i, true)
      finish()
      left = true
    }
  }
  const sick = places(w).find((p) => p.c.state !== 'okay' || p.side.submirror.state !== 'okay')
  if (sick !== undefined)
    throw new Error(`cannot be healed: ${sick.c.name} ${sick.c.state}, ${sick.side.submirror.state}`)
}

/** Events that fit or do not, on places that exist or do not: an answer each, and nothing is changed. */
const odd = (w: Model, a: number, b: number): void => {
  const place = { slot: (a % 4) as Slot, component: b % 9 }
  const target: ResyncTarget =
    b % 3 === 0 ? { kind: 'component', ...place } : { kind: b % 3 === 1 ? 'full' : 'optimized', slot: place.slot }
  const by = places(w)[0]?.c
  if (by === undefined) return
  const events: readonly MirrorEvent[] = [
    { event: 'error', place },
    { event: 'openError', place },
    { event: 'replace', place, by },
    { event: 'spare', place, by, pool: 'hsp001' as UnitName },
    { event: 'offline', slot: place.slot },
    { event: 'online', slot: place.slot },
    { event: 'detach', slot: place.slot },
    { event: 'checkpoint', target, done: blocks(a % w.size) },
    ...(['done', 'failed', 'cancelled'] as const).map((result): MirrorEvent => ({
      event: 'resyncEnd',
      target,
      result,
      done: blocks(0),
      failed: b % 2 === 0 ? place : null,
    })),
  ]
  const copyOf = structuredClone([...w.tree])
  for (const e of events) advance(stateOf(mirrorOf(w), w.tree), e, w.now)
  deepEqual([...w.tree], copyOf)
}

/** Sides of different rows, columns and interlaces over 12 disks at most. */
const shape = fc.array(
  fc.array(fc.record({ width: fc.integer({ min: 1, max: 3 }), interlace: fc.constantFrom(16, 32, 48) }), {
    minLength: 1,
    maxLength: 3,
  }),
  { minLength: 1, maxLength: 4, size: 'max' },
)
/** Only some kinds of steps in a run: long chains of the same few are where the odd states are. */
const steps: fc.Arbitrary<readonly Step[]> = fc
  .tuple(
    fc.subarray([...STEPS], { minLength: 3 }),
    fc.array(fc.record({ what: fc.nat(1000), a: fc.nat(1000), b: fc.nat(1000), flag: fc.boolean() }), {
      maxLength: 80,
      size: 'max',
    }),
  )
  .map(([some, all]) => {
    const kinds: readonly Step['what'][] = [...some, 'copy', 'write', 'heal']
    return all.map((s) => ({ ...s, what: kinds[s.what % kinds.length] ?? 'copy' }))
  })
type Shape = readonly (readonly { readonly width: number; readonly interlace: number }[])[]

const start = (sides: Shape, pass: number): Model | null => {
  let disk = 0
  const lines = sides.map((rows, i) => {
    const words = rows.map(
      (r) => `${r.width} ${Array.from({ length: r.width }, () => `/disks/${disk++}`).join(' ')} -i ${r.interlace}b`,
    )
    return `d${i + 1} ${rows.length} ${words.join(' ')}`
  })
  if (disk > DISKS - 8) return null
  const tree = treeOf([...lines, `d0 -m ${sides.map((_, i) => `d${i + 1}`).join(' ')} ${pass}`], { inventory })
  const size = mirrorIn(tree, 'd0').blocks
  const w: Model = {
    tree,
    size,
    content: new Map(),
    dirty: new Uint8Array(size),
    stale: new Map(),
    job: null,
    tried: [],
    nextDisk: disk,
    nextStripe: 10,
    now: 1000,
  }
  for (const { c } of places(w)) held(w, c).fill(1)
  return w
}

const roundTrip = (tree: Tree): void => {
  const records = new Map(
    [...recordChanges({ put: [...tree.values()], remove: [] })].map(([k, v]): [string, Json] => [
      k,
      JSON.parse(JSON.stringify(v)) as Json,
    ]),
  )
  const back = readTree(records)
  deepEqual(back.errors, [])
  deepEqual(new Map([...back.tree].sort()), new Map([...tree].sort()))
}

const seen = new Map<string, number>()
const note = (what: string): void => void seen.set(what, (seen.get(what) ?? 0) + 1)

t.test('what may be read is what was written last, whatever happens', async (t) => {
  fc.assert(
    fc.property(shape, fc.constantFrom(1, 1, 1, 0), steps, (sides, pass, all) => {
      const w = start(sides, pass)
      if (w === null) return
      for (const [i, s] of all.entries()) {
        step(w, s)
        const wrong = violation(w)
        if (wrong !== null) throw new Error(`after step ${i} (${JSON.stringify(s)}): ${wrong}`)
        for (const { submirror } of sidesOf(w)) note(submirror.state)
        for (const { c } of places(w)) note(`component ${c.state}${c.spare === null ? '' : ' spare'}`)
        if (w.job !== null) note(`job ${w.job.target.kind}${w.job.at > 0 ? ' under way' : ''}`)
        if (mirrorOf(w).checkpoint !== null) note('checkpoint')
      }
      roundTrip(w.tree)
    }),
    settings,
  )
  if (givenSeed !== null) return
  const states = ['okay', 'attached', 'resync', 'offline', 'offlineResync', 'optimized']
  const components = ['okay', 'erred', 'lastErred', 'resync', 'resync spare'].map((s) => `component ${s}`)
  const jobs = ['full', 'optimized', 'component'].map((k) => `job ${k} under way`)
  for (const what of [...states, ...components, ...jobs, 'checkpoint'])
    t.ok((seen.get(what) ?? 0) > 0, `${what} was seen ${seen.get(what) ?? 0} times`)
})

t.test('the model notices what it is there for', async (t) => {
  const fresh = (): Model => {
    const w = start([[{ width: 1, interlace: 16 }], [{ width: 1, interlace: 16 }]], 1)
    if (w === null) throw new Error('no mirror')
    return w
  }
  const forced = (w: Model, state: Component['state'], side: MirrorUnit['submirrors'][number]['state']): Model => {
    const m = mirrorOf(w)
    const d2 = w.tree.get('d2' as UnitName)
    if (d2?.kind !== 'stripe') throw new Error('no stripe')
    const rows = d2.rows.map((r) => ({ ...r, components: r.components.map((c) => ({ ...c, state })) }))
    const submirrors = m.submirrors.map((s) => (s.slot === 1 ? { ...s, state: side } : s))
    w.tree = withUnits(w.tree, [
      { ...d2, rows },
      { ...m, submirrors, errors: 1 },
    ])
    return w
  }
  t.equal(violation(fresh()), null)
  const missed = fresh()
  happen(missed, { event: 'offline', slot: 1 })
  write(missed, 0, 1)
  t.equal(violation(missed), null)
  t.match(violation(forced(missed, 'okay', 'okay')), /old data at 0/)
  t.match(violation(forced(missed, 'okay', 'optimized')), /old data at 0/)
  t.equal(violation(forced(missed, 'okay', 'offlineResync')), null)
  t.match(violation(forced(fresh(), 'lastErred', 'okay')), /needlessly Last Erred/)
  t.match(violation(forced(fresh(), 'lastErred', 'offline')), /Last Erred in a side/)
  const both = fresh()
  for (const slot of [0, 1] as const) happen(both, { event: 'error', place: { slot, component: 0 } })
  t.equal(violation(both), null)
  t.match(violation(forced(both, 'erred', 'okay')), /no source/)
})
