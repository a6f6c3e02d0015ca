/**
 * Every subset of 1 to 5 replicas is damaged while nothing runs, then the database is opened. Permitted: nothing but
 * what was acknowledged may be read; with more than half intact everything works and what is ours is written anew;
 * otherwise it says so and no byte anywhere changes. `truncated` runs over all subsets of 1 to 4, the others over
 * a seeded sample (FULL=1: all).
 */
import { join } from 'node:path'
import t from 'tap'
import type { Mddb } from '../../../src/db/mddb.js'
import {
  type Damage,
  FULL,
  type Rig,
  allGood,
  canReadOnly,
  eventually,
  flipped,
  hashOf,
  makeReplicas,
  makeRig,
  missing,
  must,
  randomOf,
  readOnly,
  replaced,
  set,
  subsetsOf,
  truncated,
  zeroed,
} from './rig.js'
import { seed } from '../../tools/seed.js'

const random = randomOf(seed)
t.comment(`SEED=${seed}`)
t.setTimeout(600_000)

const everywhere = (rig: Rig): string => [...rig.replicas, join(rig.etc, 'mddb.cf')].map(hashOf).join()

interface Shared {
  readonly t: Checks
  readonly rig: Rig
  /** What was acknowledged last. */
  last: number
}
interface Checks {
  ok(value: unknown, message: string): boolean
  equal(a: unknown, b: unknown, message: string): boolean
  match(a: string, b: RegExp, message: string): boolean
}

const stale = async (s: Shared, db: Mddb, intact: number, where: string): Promise<void> => {
  s.t.equal(db.health, 'stale', `${where}: stale`)
  s.t.ok(s.rig.notices.includes('warning md: state database is stale'), `${where}: says so`)
  s.t.equal(db.records.get('count'), intact > 0 ? s.last : undefined, `${where}: readable, nothing invented`)
  const refused = await db.commit(set('count', -1))
  s.t.equal(refused.ok ? 'ok' : refused.error.code, 'stale', `${where}: refuses`)
}

const good = async (
  s: Shared,
  db: Mddb,
  damage: Damage,
  chosen: readonly number[],
  undo: () => void,
  where: string,
): Promise<void> => {
  s.t.equal(db.health, 'good', `${where}: good`)
  s.t.equal(db.records.get('count'), s.last, `${where}: nothing lost`)
  must(await db.commit(set('count', ++s.last)))
  const bad = chosen.map((i) => s.rig.replicas[i] ?? '')
  if (damage.rebuilt) {
    s.t.ok(await eventually(() => allGood(db)), `${where}: repaired`)
    return
  }
  const before = bad.map(hashOf).join()
  await db.commit(set('count', s.last))
  const letter = damage === readOnly ? 'W' : 'M'
  for (const r of await db.status()) {
    if (bad.includes(r.path)) s.t.match(r.flags, new RegExp(`^[^a]*${letter}`), `${where}: flagged`)
  }
  s.t.equal(bad.map(hashOf).join(), before, `${where}: what is not ours is left alone`)
  undo()
  s.t.ok(await eventually(() => allGood(db)), `${where}: back when the place is back`)
}

const scenario = async (s: Shared, damage: Damage, chosen: readonly number[]): Promise<void> => {
  const n = s.rig.replicas.length
  const where = `${damage.name} ${chosen.join('')} of ${n}`
  s.rig.notices.length = 0
  const undos = chosen.map((i) => damage.make(s.rig.replicas[i] ?? '', random))
  const undo = (): void => {
    for (const u of undos) u()
  }
  const before = everywhere(s.rig)
  const db = await s.rig.open()
  const intact = n - chosen.length
  const works = intact > n / 2
  if (works) await good(s, db, damage, chosen, undo, where)
  else await stale(s, db, damage === readOnly ? n : intact, where)
  await db.close()
  if (works) return
  s.t.equal(everywhere(s.rig), before, `${where}: no byte changed`)
  undo()
}

for (let n = 1; n <= 5; n++) {
  t.test(`${n} replicas`, async (t) => {
    const rig = makeRig(n)
    t.teardown(() => rig.remove())
    const db = await makeReplicas(rig)
    const s: Shared = { t, rig, last: 1 }
    must(await db.commit(set('count', s.last)))
    must(await db.commit(set('filling', 'x'.repeat(20_000))))
    await db.close()
    const subsets = subsetsOf(n).filter((x) => x.length > 0)
    const readable = canReadOnly(rig.dir)
    if (!readable) t.comment('read-only: cannot be made here, skipped')
    for (const chosen of n <= 4 || FULL ? subsets : subsets.filter(() => random.below(4) === 0))
      await scenario(s, truncated, chosen)
    for (const damage of [missing, zeroed, flipped, replaced, ...(readable ? [readOnly] : [])]) {
      const some = FULL ? subsets : [subsets[random.below(subsets.length)] ?? [0]]
      for (const chosen of some) await scenario(s, damage, chosen)
    }
    const last = await rig.open()
    t.equal(last.records.get('count'), s.last, 'and after all of it')
    t.ok(await eventually(() => allGood(last)), 'everybody is back')
    await last.close()
  })
}
