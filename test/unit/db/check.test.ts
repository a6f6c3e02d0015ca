/** The check that stands before LMDB: it may refuse too much, it may never throw, and it must catch what kills LMDB. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { checkReplica } from '../../../src/db/check.js'
import { makeReplicas, makeRig, must, randomOf, set } from '../../fault/db/rig.js'

const SEED = Number(process.env['SEED'] ?? 31)

t.test('a real replica and its damages', async (t) => {
  const rig = makeRig(1)
  t.teardown(() => rig.remove())
  const db = await makeReplicas(rig)
  for (let i = 0; i < 300; i++) must(await db.commit(set(`record/${i}`, { i, text: 'q'.repeat(i * 3) })))
  must(await db.commit(set('large', 'L'.repeat(30_000))))
  await db.close()
  const path = rig.replicas[0] ?? ''
  const whole = readFileSync(path)
  t.same(checkReplica(path), { ok: true, value: { bytes: whole.length } })

  const copy = join(rig.dir, 'copy')
  const problem = (bytes: Buffer): string => {
    writeFileSync(copy, bytes)
    const r = checkReplica(copy)
    return r.ok ? 'ok' : r.error
  }
  t.equal(problem(whole), 'ok', 'a tree of several levels and a large value')
  t.equal(problem(Buffer.alloc(0)), 'file is empty')
  t.equal(problem(Buffer.from('text\n'.repeat(9999))), 'not a state database')
  for (const bytes of [1, 167, 168, 4096, 4096 + 167, 8192, 40_000])
    t.equal(problem(whole.subarray(0, bytes)), 'file is truncated')
  for (const page of [0, 1]) {
    const zeroed = Buffer.from(whole)
    zeroed.fill(0, page * 4096, (page + 1) * 4096)
    t.equal(problem(zeroed), 'not a state database', `meta page ${page} zeroed`)
  }
  const holes = Buffer.from(whole)
  holes.fill(0, 8192)
  t.match(problem(holes), /is not a tree page/)

  const random = randomOf(SEED)
  let found = 0
  for (let round = 0; round < 400; round++) {
    const bad = Buffer.from(whole)
    for (let n = 0; n < 300; n++) bad[random.below(bad.length)] = random.below(256)
    if (round % 2 === 0)
      for (let n = 0; n < 20; n++) bad[random.below(168) + 4096 * random.below(2)] = random.below(256)
    if (problem(bad) !== 'ok') found++
  }
  t.ok(found > 150, `${found} of 400 random damages are seen already here, none throws (seed ${SEED})`)
})

t.test('what is no file at all', async (t) => {
  const rig = makeRig(0)
  t.teardown(() => rig.remove())
  const dir = join(rig.dir, 'd')
  mkdirSync(dir)
  t.same(checkReplica('/dev/null'), { ok: false, error: 'not a file or block device' })
  t.throws(() => checkReplica(join(dir, 'absent')), { code: 'ENOENT' })
})
