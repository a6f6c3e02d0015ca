/**
 * Every subset of 1 to 5 replicas is damaged under a running database. Permitted: what was acknowledged stays; with at
 * least half of the replicas usable commits go on; contents that are bad in a place that is ours are written anew from
 * memory, however many they are; with too few usable places a commit fails after its retries, the database becomes
 * stale and says so, and after a restart with the places back it has everything acknowledged. The process never dies.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import t from 'tap'
import type { Mddb } from '../../../src/db/mddb.js'
import {
  type Damage,
  FULL,
  type Rig,
  allGood,
  eventually,
  flipped,
  makeReplicas,
  makeRig,
  missing,
  must,
  randomOf,
  replaced,
  set,
  subsetsOf,
  truncated,
  zeroed,
} from './rig.js'
import { seed } from '../../tools/seed.js'

const random = randomOf(seed + 1)
t.comment(`SEED=${seed}`)
t.setTimeout(600_000)

interface State {
  readonly rig: Rig
  db: Mddb
  last: number
}

interface Checks {
  ok(value: unknown, message: string): boolean
  equal(a: unknown, b: unknown, message: string): boolean
}

const problems = async (db: Mddb): Promise<string> => (await db.status()).map((r) => r.problem ?? 'good').join(', ')

const scenario = async (t: Checks, s: State, damage: Damage, chosen: readonly number[]): Promise<void> => {
  const n = s.rig.replicas.length
  const where = `${damage.name} ${chosen.join('')} of ${n}`
  s.rig.notices.length = 0
  s.rig.healths.length = 0
  const undo = chosen.map((i) => damage.make(s.rig.replicas[i] ?? '', random))
  const enough = damage.rebuilt || n - chosen.length >= n / 2
  const result = await s.db.commit(set('count', s.last + 1))
  if (enough) {
    t.ok(result.ok, `${where}: commits go on`)
    s.last++
    t.equal(s.db.health, 'good', `${where}: good`)
    if (damage.rebuilt) {
      t.ok(await eventually(() => allGood(s.db)), `${where}: repaired; ${await problems(s.db)}`)
      return
    }
    const statuses = await s.db.status()
    for (const i of chosen) t.ok(statuses[i]?.flags.includes('M'), `${where}: flagged ${statuses[i]?.flags ?? ''}`)
    for (const u of undo) u()
    t.ok(await eventually(() => allGood(s.db)), `${where}: back when the place is back`)
    return
  }
  t.equal(result.ok ? 'ok' : result.error.code, 'commitFailed', `${where}: fails`)
  t.equal(s.db.health, 'stale', `${where}: stale`)
  t.ok(s.rig.notices.includes('panic md: state database problem'), `${where}: says so`)
  t.equal(s.db.records.get('count'), s.last, `${where}: state is the acknowledged one`)
  t.equal(s.db.epoch > 0 && (await s.db.commit(set('count', -1))).ok, false, `${where}: refuses from now on`)
  await s.db.close()
  for (const u of undo) u()
  s.db = await s.rig.open()
  t.equal(s.db.health, 'good', `${where}: good after restart`)
  const count = s.db.records.get('count')
  t.equal(count, s.last, `${where}: what failed for everybody to see is not there`)
  t.ok(await eventually(() => allGood(s.db)), `${where}: everybody is back`)
}

for (let n = 1; n <= 5; n++) {
  t.test(`${n} replicas`, async (t) => {
    const rig = makeRig(n)
    t.teardown(() => rig.remove())
    const s: State = { rig, db: await makeReplicas(rig), last: 1 }
    must(await s.db.commit(set('count', 1)))
    must(await s.db.commit(set('filling', 'x'.repeat(20_000))))
    const subsets = subsetsOf(n).filter((x) => x.length > 0)
    for (const chosen of n <= 3 || FULL ? subsets : subsets.filter(() => random.below(n) === 0))
      await scenario(t, s, missing, chosen)
    for (const damage of [truncated, zeroed, flipped, replaced]) {
      const some = FULL ? subsets : [subsets[random.below(subsets.length)] ?? [0]]
      for (const chosen of some) await scenario(t, s, damage, chosen)
    }
    await s.db.close()
  })
}

t.test('damage that no commit touches is found by reading back', async (t) => {
  const rig = makeRig(3)
  t.teardown(() => rig.remove())
  let db = await makeReplicas(rig)
  must(await db.commit(set('quiet', 'abcdefgh'.repeat(4000))))
  await db.close()
  db = await rig.open({ scrubMs: 80 })
  const path = rig.replicas[1] ?? ''
  const bytes = readFileSync(path)
  for (let at = bytes.indexOf('abcdefgh'.repeat(8)); at >= 0; at = bytes.indexOf('abcdefgh'.repeat(8), at + 512))
    bytes[at] = 0x5a
  const fd = await import('node:fs').then((fs) => fs.openSync(path, 'r+'))
  await import('node:fs').then((fs) => fs.writeSync(fd, bytes, 0, bytes.length, 0))
  t.ok(await eventually(async () => rig.notices.some((x) => /checksum|add up/.test(x))), 'found')
  t.ok(await eventually(() => allGood(db)), 'and repaired')
  await db.close()
  const again = await rig.open()
  t.ok(await allGood(again), 'for good')
  await again.close()
})

t.test('helpers that are killed or hang', async (t) => {
  const rig = makeRig(3)
  t.teardown(() => rig.remove())
  const db = await makeReplicas(rig)
  for (let i = 0; i < 3; i++) {
    const [victim = 0] = db.helperPids
    process.kill(victim, 'SIGKILL')
    must(await db.commit(set('count', i)))
    t.ok(await eventually(() => allGood(db)), 'a killed helper is replaced')
  }
  for (const pid of db.helperPids) for (const s of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.kill(pid, s)
  const pids = db.helperPids.join()
  must(await db.commit(set('count', 4)))
  t.equal(db.helperPids.join(), pids, 'signals of the process group do not end them')
  await db.close()

  const slow = await rig.open({ slowMs: 100, requestMs: 8_000 })
  const [stopped = 0] = slow.helperPids
  process.kill(stopped, 'SIGSTOP')
  const before = Date.now()
  must(await slow.commit(set('count', 5)))
  t.ok(Date.now() - before < 6_000, 'a silent replica delays a commit only a little')
  t.ok(await eventually(() => allGood(slow)), 'it is given up and started anew')
  for (const pid of slow.helperPids) process.kill(pid, 'SIGKILL')
  must(await slow.commit(set('count', 6)))
  t.equal(slow.health, 'good', 'all helpers killed at once: the retry brings them back')
  await slow.close()
  t.ok(await eventually(async () => !existsSync(`/proc/${stopped}`)), 'nobody stays behind')
})

t.test('an empty file put in the place of a replica stays empty', async (t) => {
  const rig = makeRig(3)
  t.teardown(() => rig.remove())
  const db = await makeReplicas(rig)
  const path = rig.replicas[2] ?? ''
  const { renameSync } = await import('node:fs')
  renameSync(path, `${path}.away`)
  writeFileSync(path, '')
  must(await db.commit(set('count', 1)))
  await eventually(async () => (await db.status())[2]?.flags.includes('M') === true)
  for (let i = 0; i < 10; i++) must(await db.commit(set('count', i)))
  t.equal(readFileSync(path).length, 0)
  must(await db.delete([{ path }], { force: false }))
  must(await db.add([{ path }], { force: false, count: 1, length: null }))
  t.ok(await allGood(db), 'metadb -d and -a take the new storage')
  await db.close()
})
