import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { nextRaid5Job, raid5TargetIdentity, sameRaid5Target, wantedRaid5Jobs } from '../../../src/meta/raid5jobs.js'
import { afterRaid5, raid5, slice } from './raid5s.js'

const wanted = (states: string, regen = false): string =>
  wantedRaid5Jobs(raid5(states, { regen }))
    .map((j) => [j.kind, 'columns' in j ? j.columns.join() : 'column' in j ? j.column : ''].join(' ').trim())
    .join('; ')

t.test('what is wanted, in order', async (t) => {
  const rows: readonly (readonly [string, string])[] = [
    ['okay okay okay', ''],
    ['init init init', 'initialise 0,1,2'],
    ['init initErred init', ''],
    ['okay erred okay', ''],
    ['okay resync okay', 'regenerate 1'],
    ['lastErred resync okay', 'regenerate 1'],
    ['okay okay okay | init init', 'initialise 3,4'],
    ['okay okay okay | init initErred', ''],
    ['okay erred okay | init', 'initialise 3'],
    ['okay resync okay | init', 'regenerate 1; initialise 3'],
  ]
  for (const [states, jobs] of rows) t.equal(wanted(states), jobs, states)
  t.equal(wanted('okay okay okay', true), 'parity')
  t.equal(wanted('erred okay okay', true), '')
  t.equal(wanted('okay okay okay | init', true), 'initialise 3', 'it covers what joins as well, later')
})

t.test('what failed is not tried again, and a resync goes on where it was', async (t) => {
  const u = raid5('okay resync okay | init', {
    checkpoint: { column: 1, identity: 'file:1:/disks/b', done: blocks(4096) },
  })
  t.same(nextRaid5Job(u), { target: { kind: 'regenerate', column: 1 }, from: 4096 })
  t.same(nextRaid5Job(u, [{ kind: 'regenerate', column: 1 }]), {
    target: { kind: 'initialise', columns: [3] },
    from: 0,
  })
  t.equal(nextRaid5Job(raid5('okay okay okay')), null)
  const other = { column: 1, identity: 'file:1:/disks/z', done: blocks(4096) }
  t.equal(nextRaid5Job({ ...u, checkpoint: other })?.from, 0, 'other storage')
  t.equal(nextRaid5Job({ ...u, checkpoint: { ...other, column: 2, identity: 'file:1:/disks/b' } })?.from, 0)
})

t.test('a copy goes on where it was, unless it has missed something', async (t) => {
  const after = (...events: Parameters<typeof afterRaid5>[1][]) => {
    const x = afterRaid5(raid5('okay okay okay'), { event: 'copy', column: 1, by: slice('/new') }, ...events)
    if (typeof x === 'string') throw new Error(x)
    return x.unit
  }
  const checkpoint = { event: 'checkpoint', column: 1, done: blocks(4096) } as const
  const target = { kind: 'copy', column: 1 } as const
  t.same(nextRaid5Job(after()), { target, from: 0 })
  t.same(nextRaid5Job(after(checkpoint)), { target, from: 4096 })
  t.same(nextRaid5Job(after(checkpoint, { event: 'copyMissed' })), { target, from: 0 })
  const identity = raid5TargetIdentity(after(), target)
  t.equal(raid5TargetIdentity(after(checkpoint), target), identity)
  t.not(raid5TargetIdentity(after(checkpoint, { event: 'copyMissed' }), target), identity)
  t.same(wantedRaid5Jobs({ ...after(checkpoint), regen: true }), [target], 'parity made now would be missing in it')
})

t.test('a target is another one when its storage is, or when it failed in between', async (t) => {
  const u = raid5('okay resync okay')
  const target = { kind: 'regenerate', column: 1 } as const
  const of = (x: ReturnType<typeof afterRaid5>): string =>
    typeof x === 'string' ? x : raid5TargetIdentity(x.unit, target)
  const before = raid5TargetIdentity(u, target)
  t.equal(of(afterRaid5(u, { event: 'started', epoch: 1 })), before)
  t.equal(of(afterRaid5(u, { event: 'checkpoint', column: 1, done: blocks(64) })), before)
  t.not(
    of(afterRaid5(u, { event: 'error', column: 1 }, { event: 'replace', column: 1, by: slice('/disks/b') })),
    before,
  )
  t.not(of(afterRaid5(u, { event: 'replace', column: 1, by: slice('/disks/x') })), before)
  t.ok(sameRaid5Target({ kind: 'initialise', columns: [0, 1] }, { kind: 'initialise', columns: [0, 1] }))
  t.notOk(sameRaid5Target({ kind: 'initialise', columns: [0, 1] }, { kind: 'initialise', columns: [1] }))
  t.notOk(sameRaid5Target({ kind: 'regenerate', column: 0 }, { kind: 'initialise', columns: [0] }))
  t.ok(sameRaid5Target({ kind: 'parity' }, { kind: 'parity' }))
})
