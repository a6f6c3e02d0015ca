/**
 * Any sequence of errors, opens, commands, takeovers, jobs and writes beside a model that knows which version of
 * every part each disk holds: what is read is always the last version, and one column's worth can always be made from
 * the others. A failure prints its seed; SEED=n runs that one again.
 */
import { deepEqual, equal, ok } from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { decide, decideOpen } from '../../../src/meta/decide.js'
import { poke, refuse, settleSpares, take } from '../../../src/meta/hotspare.js'
import { IDLE, type Live } from '../../../src/meta/kind.js'
import { attach, metahs, type Outcome, param, replace } from '../../../src/meta/operations.js'
import { nextRaid5Job, type Raid5Target, raid5TargetIdentity } from '../../../src/meta/raid5jobs.js'
import { type Raid5Event, raid5Event } from '../../../src/meta/raid5state.js'
import type { Json } from '../../../src/meta/reader.js'
import { readTree, recordChanges } from '../../../src/meta/records.js'
import { membersOf } from '../../../src/meta/raid5tables.js'
import { standingSpares } from '../../../src/meta/standing.js'
import { poolsOf } from '../../../src/meta/tree.js'
import type { Column, Raid5Unit, Tree } from '../../../src/meta/types.js'
import type { MetaResult } from '../../../src/msg/errors.js'
import { raid5In, statesOf } from '../../unit/meta/raid5s.js'
import { CYLINDER, device, inventoryOf, name, treeOf } from '../../unit/meta/world.js'
import { seed } from '../../tools/seed.js'

// tap's 30 seconds for a whole file are short when the machine is busy.
t.setTimeout(240_000)

const settings = { seed }

const NAMES = Array.from({ length: 12 }, (_, i) => `/d${i}`)
const inventory = inventoryOf(NAMES.map((n) => device(n, 20 * CYLINDER)))
const UNIT = name('d5')
/** A column's data in so many parts, each with one version. */
const PARTS = 4
const STALE = -1

interface Model {
  tree: Tree
  now: number
  /** Versions of the parts of a line: what clients wrote last. */
  readonly current: number[]
  /** By identity of the disk, whatever it is used for. */
  readonly held: Map<string, number[]>
  readonly dead: Set<string>
  job: { readonly target: Raid5Target; readonly identity: string; at: number } | null
  tried: Raid5Target[]
  /** The device is served without what a column is copied to. */
  away: boolean
}
const counts = {
  covered: 0,
  spared: 0,
  grown: 0,
  resynced: 0,
  resumed: 0,
  lastErred: 0,
  back: 0,
  copied: 0,
  notCopied: 0,
  turned: 0,
}

const unit = (w: Model): Raid5Unit => raid5In(w.tree)
const partBlocks = (u: Raid5Unit): number => Math.ceil((u.lines * u.interlace) / PARTS)
const content = (w: Model, c: Column): number[] => {
  const found = w.held.get(c.identity) ?? Array.from({ length: PARTS }, () => STALE)
  w.held.set(c.identity, found)
  return found
}
const live = (w: Model): Live => ({ ...IDLE, isResyncing: () => w.job !== null })

const commit = (w: Model, done: Outcome): void => {
  const before = unit(w)
  w.tree = settleSpares(w.tree, done, w.now).tree
  const after = unit(w)
  if (before === after) return
  w.tried = []
  // The engine ends a job whose target is not the same any more.
  if (w.job !== null && raid5TargetIdentity(after, w.job.target) !== w.job.identity) w.job = null
  const { copy } = after
  if (copy !== null && copy.to.identity !== before.copy?.to.identity) {
    content(w, copy.to).fill(STALE)
    w.away = false
  }
  if (before.copy !== null && copy === null) {
    const now = after.columns[before.copy.of]
    if (now?.identity !== before.copy.to.identity) counts.notCopied++
    else if (now.state === 'resync') counts.turned++
    else counts.copied++
  }
  for (const [i, c] of after.columns.entries()) {
    const old = before.columns[i]
    // Other storage, or the same that is examined again: nothing on it is trusted.
    if (c.state === 'resync' && (old?.state !== 'resync' || old.identity !== c.identity)) content(w, c).fill(STALE)
    if (c.state === 'lastErred' && old?.state !== 'lastErred') counts.lastErred++
  }
}
const carry = (w: Model, r: MetaResult<Outcome>): boolean => {
  if (r.ok) commit(w, r.value)
  return r.ok
}
const happens = (w: Model, e: Raid5Event): void => {
  const next = raid5Event(w.tree, UNIT, e, w.now)
  ok(next.ok, `${e.event} in ${statesOf(unit(w))}`)
  commit(w, next.value.outcome)
}

/** As the engine serves writes: with one column missing, and none Last Erred. */
const write = (w: Model, part: number): void => {
  const serving = unit(w).columns.slice(0, unit(w).serving)
  const missing = serving.filter((c) => c.state !== 'okay').length
  if (missing > 1 || serving.some((c) => !['okay', 'erred', 'resync'].includes(c.state))) return
  const version = w.current[part] ?? 0
  w.current[part] = version + 1
  for (const c of serving) {
    const parts = content(w, c)
    // A small write does not bring a part in step that was not.
    if (c.state === 'okay' || (c.state === 'resync' && parts[part] === version)) parts[part] = version + 1
  }
  const { copy } = unit(w)
  if (copy === null || w.away || serving[copy.of]?.state !== 'okay') return
  const parts = content(w, copy.to)
  if (parts[part] === version) parts[part] = version + 1
}

const begin = (w: Model): void => {
  if (w.job !== null) return
  const plan = nextRaid5Job(unit(w), w.tried, (c) => w.away && c === unit(w).copy?.to)
  if (plan === null) return
  if (plan.from > 0) counts.resumed++
  const at = Math.floor(plan.from / partBlocks(unit(w)))
  w.job = { target: plan.target, identity: raid5TargetIdentity(unit(w), plan.target), at }
}

/** One part further, or the end; an error of a disk that it needs ends it, after that was decided. */
const advance = (w: Model, how: number): void => {
  begin(w)
  const { job } = w
  if (job === null) return
  const u = unit(w)
  const { target } = job
  const serving = u.columns.flatMap((_, i) => (i < u.serving ? [i] : []))
  const copied = target.kind === 'copy' ? [target.column, u.columns.length] : serving
  const touched = target.kind === 'initialise' ? target.columns : copied
  const failed = touched.find((i) => w.dead.has(membersOf(u)[i]?.identity ?? '')) ?? null
  const done = blocks(Math.min(job.at * partBlocks(u), u.lines * u.interlace))
  const end = (result: 'done' | 'failed'): void => {
    w.job = null
    w.tried.push(target)
    const { serving } = unit(w)
    if (target.kind === 'initialise') happens(w, { event: 'initEnd', columns: target.columns, result, failed })
    else if (target.kind === 'copy') happens(w, { event: 'copyEnd', column: target.column, result, failed })
    else if (target.kind === 'parity') happens(w, { event: 'regenEnd', result })
    else happens(w, { event: 'resyncEnd', column: target.column, result, done, failed })
    if (result === 'done' && target.kind === 'regenerate') counts.resynced++
    if (unit(w).serving > serving) counts.grown++
  }
  if (failed !== null) {
    broken(w, failed)
    // Its target is another one by now.
    if (w.job === null) return
    return end('failed')
  }
  if (job.at < PARTS) {
    for (const [i, c] of u.columns.entries()) {
      if (target.kind === 'initialise' && target.columns.includes(i)) content(w, c)[job.at] = w.current[job.at] ?? 0
      if (target.kind === 'regenerate' && target.column === i) content(w, c)[job.at] = w.current[job.at] ?? 0
    }
    const from = target.kind === 'copy' ? u.columns[target.column] : undefined
    if (u.copy !== null && from !== undefined) content(w, u.copy.to)[job.at] = content(w, from)[job.at] ?? STALE
    job.at++
    if ((target.kind === 'regenerate' || target.kind === 'copy') && how % 2 === 0)
      happens(w, {
        event: 'checkpoint',
        column: target.column,
        done: blocks(Math.min(job.at * partBlocks(u), u.lines * u.interlace)),
      })
    return
  }
  const lasts = u.columns.filter((c) => c.state === 'lastErred').length
  // What joins is zeroes, and so is its share of the parity, whatever was written meanwhile.
  if (target.kind === 'initialise')
    for (const i of target.columns) w.held.set(u.columns[i]?.identity ?? '', [...w.current])
  end('done')
  if (target.kind === 'regenerate' && lasts > 0 && !unit(w).columns.some((c) => c.state === 'lastErred'))
    counts.covered++
}

const broken = (w: Model, component: number): void => {
  const failure = { unit: UNIT, component, op: 'write', masked: false, repairFailed: false, readErrors: 0 } as const
  const { outcome, verdict } = decide(w.tree, UNIT, [failure], { now: w.now, readErrorLimit: 20 })
  equal(verdict, 'resume')
  commit(w, outcome)
}

const check = (w: Model): void => {
  const u = unit(w)
  const serving = u.columns.slice(0, u.serving)
  const held = (c: Column): boolean => content(w, c).every((v, i) => v === w.current[i])
  for (const c of serving)
    if (c.state === 'okay' || c.state === 'lastErred') ok(held(c), `${c.name} is ${c.state} and has missed something`)
  ok(serving.filter((c) => c.state === 'erred' || c.state === 'resync').length <= 1, 'one column at most is made')
  const c = u.checkpoint
  const target = c === null ? undefined : u.columns[c.column]
  if (c !== null && target !== undefined) {
    equal(target.state, 'resync')
    const below = Math.floor(c.done / partBlocks(u))
    for (let part = 0; part < below; part++) equal(content(w, target)[part], w.current[part], 'below the checkpoint')
  }
  if (u.copy !== null) {
    const below = Math.floor(u.copy.done / partBlocks(u))
    const [to, of] = [content(w, u.copy.to), u.columns[u.copy.of]]
    for (let part = 0; part < below && of !== undefined; part++)
      equal(to[part], content(w, of)[part], 'below the checkpoint of the copy')
  }
  // What a spare stood in for may be what the spare is copied to.
  const back = u.copy?.to.identity
  const slices = membersOf(u).flatMap((x) =>
    x.spare === null || x.spare.original.identity === back ? [x] : [x, x.spare.original],
  )
  equal(new Set(slices.map((s) => s.identity)).size, slices.length, 'every slice is in one place')
  const standing = standingSpares(w.tree)
  for (const pool of poolsOf(w.tree)) for (const s of pool.spares) if (standing.has(s.name)) equal(s.broken, false)
  for (const [, { component }] of standing) ok(component.state !== 'erred', 'no failed spare stands in')
  const records = recordChanges({ put: [...w.tree.values()], remove: [] })
  const read = readTree(new Map([...records].flatMap(([k, v]): [string, Json][] => (v === null ? [] : [[k, v]]))))
  deepEqual(read, { tree: w.tree, errors: [] })
}

const step = fc.tuple(
  fc.constantFrom(0, 1, 1, 2, 2, 3, 4, 4, 5, 6, 6, 6, 6, 6, 6, 7, 7, 8, 9, 10, 11, 12),
  fc.nat(11),
  fc.nat(11),
  fc.boolean(),
)
type Step = typeof step extends fc.Arbitrary<infer S> ? S : never

const apply = (w: Model, [what, a, b, flag]: Step): void => {
  const u = unit(w)
  const context = { tree: w.tree, inventory, namesOf: (word: string) => [word], live: live(w), now: w.now }
  const column = a % u.columns.length
  const c = u.columns[column]
  if (c === undefined) return
  switch (what) {
    case 0:
      w.dead.add(c.identity)
      return
    case 1:
      if (u.copy !== null && flag) broken(w, b % 2 === 0 ? u.copy.of : u.columns.length)
      else if (c.state !== 'erred' && c.state !== 'initErred') broken(w, column)
      return
    case 2: {
      // metad starts again, or the first client comes: what was running goes on from its checkpoint.
      w.job = null
      w.tried = []
      if (flag) w.dead.clear()
      w.away = u.copy !== null && b % 3 === 0
      if (w.away) happens(w, { event: 'copyMissed' })
      const lasts = u.columns.filter((x) => x.state === 'lastErred').length
      const opened = decideOpen(w.tree, UNIT, (x) => !w.dead.has(x.identity), w.now)
      if (opened.ok) commit(w, opened.value.outcome)
      if (unit(w).columns.filter((x) => x.state === 'lastErred').length < lasts) counts.back++
      return
    }
    case 3:
      w.dead.delete(c.identity)
      return
    case 4: {
      const old = (c.spare?.original ?? c).name
      const by = flag ? null : (NAMES[b] ?? null)
      carry(w, replace({ unit: 'd5', old, new: by, force: b > 4 }, context))
      return
    }
    case 5:
      carry(w, attach({ words: ['d5', NAMES[a] ?? ''], interlace: null, check: false }, context))
      return
    case 6:
      return advance(w, a)
    case 7:
      return write(w, a % PARTS)
    case 8: {
      const [p] = poke(w.tree, live(w))
      if (p === undefined) return
      const before = w.tree
      const taken = b > 9 ? refuse(w.tree, p, w.now) : take(w.tree, live(w), p, w.now)
      ok(taken !== null)
      commit(w, taken.outcome)
      ok(w.tree !== before)
      if (b <= 9) counts.spared++
      return
    }
    case 9:
      carry(
        w,
        metahs({ action: flag ? 'add' : 'enable', pool: flag ? 'hsp0' : null, words: [NAMES[b] ?? ''] }, context),
      )
      return
    case 10:
      if (membersOf(u).every((x) => x.state === 'okay')) happens(w, { event: 'regen' })
      return
    case 12: {
      // One that works, to the end if nothing is wrong.
      const old = (c.spare?.original ?? c).name
      const by = flag && c.spare !== null ? null : (NAMES[b] ?? null)
      if (!carry(w, replace({ unit: 'd5', old, new: by, force: false }, context))) return
      for (let i = 0; i < PARTS + 2 && b > 3; i++) {
        advance(w, a)
        write(w, (a + i) % PARTS)
      }
      return
    }
    default:
      carry(w, param({ name: 'd5', read: null, write: null, pass: null, hotSparePool: flag ? 'hsp0' : 'none' }, w.tree))
  }
}

const START = treeOf(['hsp0 /d10 /d11', 'd5 -r /d0 /d1 /d2 /d3 -i 512k -h hsp0'], { inventory })

t.test('columns through any sequence of events', async (t) => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120, size: 'max' }), (steps) => {
      const w: Model = {
        tree: START,
        now: 1000,
        current: Array.from({ length: PARTS }, () => 0),
        held: new Map(),
        dead: new Set(),
        job: null,
        tried: [],
        away: false,
      }
      while (unit(w).columns.some((c) => c.state === 'init')) advance(w, 0)
      for (const s of steps) {
        w.now++
        apply(w, s)
        check(w)
      }
      return true
    }),
    { ...settings, numRuns: 400 },
  )
  for (const [what, n] of Object.entries(counts)) t.ok(n > 10, `${what}: ${n}`)
})
