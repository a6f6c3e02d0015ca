import t from 'tap'
import { setImmediate as turn } from 'node:timers/promises'
import { err, ok } from '../../../src/base/result.js'
import { chunkKey, type LogShapes, RegionLogs } from '../../../src/db/regions.js'
import type { Durable, Json, RecordChanges } from '../../../src/db/types.js'
import type { UnitName } from '../../../src/meta/types.js'
import { type MetaResult, metaError } from '../../../src/msg/errors.js'
import { makeRig, must } from '../../fault/db/rig.js'

t.setTimeout(120_000)
const d0 = 'd0' as UnitName
const d1 = 'd1' as UnitName
const shapes = (regions: number, regionBlocks = 2048, name = d0): LogShapes =>
  new Map([[name, { regionBlocks, regions }]])

/** Commits wait until they are let through, so that what runs meanwhile can be looked at. */
class Gate {
  readonly records = new Map<string, Json>()
  readonly waiting: { readonly changes: RecordChanges; readonly answer: (r: MetaResult<Durable>) => void }[] = []
  commit(changes: RecordChanges): Promise<MetaResult<Durable>> {
    return new Promise((answer) => this.waiting.push({ changes, answer }))
  }
  async let(durable: boolean): Promise<readonly string[]> {
    for (let i = 0; i < 5; i++) await turn()
    const next = this.waiting.shift()
    if (next === undefined) throw new Error('nothing is committed')
    if (durable)
      for (const [key, value] of next.changes) {
        if (value === null) this.records.delete(key)
        else this.records.set(key, value)
      }
    next.answer(durable ? ok({ epoch: 1 } as Durable) : err(metaError('commitFailed')))
    for (let i = 0; i < 5; i++) await turn()
    return [...next.changes.keys()]
  }
}

const follow = async (gate: Gate, logs: RegionLogs, to: LogShapes, suspect?: ReadonlySet<UnitName>): Promise<void> => {
  const reshape = await logs.follow(to, suspect)
  const done = gate.commit(reshape.changes)
  await gate.let(true)
  reshape.settle((await done).ok)
}
const dirtyRegions = (logs: RegionLogs, mirror = d0): readonly number[] =>
  [...(logs.bitmap(mirror) ?? [])].flatMap((byte, i) =>
    [0, 1, 2, 3, 4, 5, 6, 7].filter((bit) => (byte & (1 << bit)) !== 0).map((bit) => i * 8 + bit),
  )

t.test('what is marked is found again by the next start, in a real database', async (t) => {
  const rig = makeRig(2)
  t.teardown(() => rig.remove())
  const db = await rig.open()
  must(
    await db.add(
      rig.replicas.map((path) => ({ path })),
      { force: true, count: 1, length: null },
    ),
  )
  const logs = new RegionLogs(db)
  const reshape = await logs.follow(shapes(5000))
  must(await db.commit(reshape.changes))
  reshape.settle(true)
  t.equal(db.records.size, 3, 'all chunks are there from the beginning')
  must(await logs.mark(d0, [0, 9, 2047, 2048, 4999], 2048))
  must(await logs.clean(d0, [9], 2048))
  await db.close()
  const again = await rig.open()
  const back = new RegionLogs(again)
  t.same(back.load(shapes(5000)), [])
  t.same(dirtyRegions(back), [0, 2047, 2048, 4999])
  t.equal(back.dirty(d0), 4)
  await again.close()
})

t.test('only chunks that change are committed, and a region that is dirty already costs nothing', async (t) => {
  const gate = new Gate()
  const logs = new RegionLogs(gate)
  await follow(gate, logs, shapes(5000))
  const marking = logs.mark(d0, [4100, 1], 2048)
  t.same(await gate.let(true), [chunkKey(d0, 0), chunkKey(d0, 2)])
  t.ok((await marking).ok)
  t.ok((await logs.mark(d0, [1], 2048)).ok)
  t.equal(gate.waiting.length, 0)
  await t.rejects(logs.mark(d0, [5000], 2048), RangeError)
  t.ok((await logs.mark(d0, [1], 2048)).ok, 'a refused mark stands in nobody’s way')
})

t.test('a failed commit leaves memory as it was; the next one does not build on it', async (t) => {
  const gate = new Gate()
  const logs = new RegionLogs(gate)
  await follow(gate, logs, shapes(10))
  const first = logs.mark(d0, [1], 2048)
  const second = logs.mark(d0, [2], 2048)
  await gate.let(false)
  t.notOk((await first).ok)
  await gate.let(true)
  t.ok((await second).ok)
  t.same(dirtyRegions(logs), [2])
})

t.test('commits of one mirror do not overtake each other, those of two run side by side', async (t) => {
  const gate = new Gate()
  const logs = new RegionLogs(gate)
  await follow(gate, logs, new Map([...shapes(10), ...shapes(10, 2048, d1)]))
  const all = [logs.mark(d0, [1], 2048), logs.clean(d0, [1], 2048), logs.mark(d1, [3], 2048)]
  for (let i = 0; i < 5; i++) await turn()
  t.equal(gate.waiting.length, 2)
  for (let i = 0; i < 3; i++) await gate.let(true)
  await Promise.all(all)
  t.same(dirtyRegions(logs), [])
  t.same(dirtyRegions(logs, d1), [3])
})

t.test('a log that ends takes its chunks along, and a mark that comes too late has nothing to record', async (t) => {
  const gate = new Gate()
  const logs = new RegionLogs(gate)
  await follow(gate, logs, shapes(3000))
  const marking = logs.mark(d0, [5], 2048)
  const going = logs.follow(new Map())
  const late = logs.mark(d0, [6], 2048)
  await gate.let(true)
  t.ok((await marking).ok)
  const reshape = await going
  t.same(
    [...reshape.changes],
    [
      [chunkKey(d0, 0), null],
      [chunkKey(d0, 1), null],
    ],
  )
  t.equal(gate.waiting.length, 0, 'the late mark waits for what becomes of the mirror')
  reshape.settle(true)
  t.ok((await late).ok)
  t.equal(gate.waiting.length, 0)
  t.equal(logs.bitmap(d0), null)
})

t.test('a deletion that was not committed changes nothing', async (t) => {
  const gate = new Gate()
  const logs = new RegionLogs(gate)
  await follow(gate, logs, shapes(3000))
  const reshape = await logs.follow(new Map())
  const marking = logs.mark(d0, [6], 2048)
  reshape.settle(false)
  await gate.let(true)
  t.ok((await marking).ok)
  t.same(dirtyRegions(logs), [6])
})

t.test('growth keeps the dirt; twice as large regions take two old ones together', async (t) => {
  const gate = new Gate()
  const logs = new RegionLogs(gate)
  await follow(gate, logs, shapes(4096))
  const marking = logs.mark(d0, [0, 7, 4095], 2048)
  await gate.let(true)
  await marking
  await follow(gate, logs, shapes(5000))
  t.same(dirtyRegions(logs), [0, 7, 4095])
  await follow(gate, logs, shapes(2500, 4096))
  t.same(dirtyRegions(logs), [0, 3, 2047])
  t.same([...gate.records.keys()].sort(), [chunkKey(d0, 0), chunkKey(d0, 1)])
  const old = logs.mark(d0, [4999], 2048)
  await gate.let(true)
  await old
  t.same(dirtyRegions(logs), [0, 3, 2047, 2499], 'a ticket from before the growth is translated')
  t.ok((await logs.clean(d0, [0], 2048)).ok, 'half of a region is not all of it')
  t.same(dirtyRegions(logs), [0, 3, 2047, 2499])
})

t.test('a damaged or missing chunk counts as dirty; no chunk at all is a log that was never made', async (t) => {
  const gate = new Gate()
  const logs = new RegionLogs(gate)
  await follow(gate, logs, shapes(2050))
  gate.records.delete(chunkKey(d0, 1))
  const missing = new RegionLogs(gate)
  t.equal(missing.load(shapes(2050)).length, 1)
  t.same(dirtyRegions(missing), [2048, 2049])
  for (const bad of [
    { version: 1, regionBlocks: 4096, bits: '' },
    'x',
    null,
    { version: 1, regionBlocks: 2048, bits: '=' },
  ]) {
    gate.records.set(chunkKey(d0, 1), bad)
    const damaged = new RegionLogs(gate)
    t.equal(damaged.load(shapes(2050)).length, 1)
    t.same(dirtyRegions(damaged), [2048, 2049])
  }
  const none = new RegionLogs(gate)
  t.same(none.load(shapes(10, 2048, d1)), [])
  t.notOk(none.has(d1))
  await follow(gate, none, shapes(10, 2048, d1), new Set([d1]))
  t.equal(none.dirty(d1), 10, 'made for a mirror that was in use: all dirty')
})
