import t from 'tap'
import { err, ok } from '../../../src/base/result.js'
import { State } from '../../../src/daemon/state.js'
import { outcome } from '../../../src/meta/operations.js'
import { stripeComponents } from '../../../src/meta/sources.js'
import type { Tree } from '../../../src/meta/types.js'
import { metaError } from '../../../src/msg/errors.js'
import { changed } from '../meta/mirrors.js'
import { mirrorIn, name, stripeIn, treeOf } from '../meta/world.js'
import { Gate, settled } from './gate.js'

const TREE = treeOf(['d1 1 1 /disks/a', 'd2 1 1 /disks/b', 'd0 -m d1 d2'])
const start = async (tree = TREE): Promise<{ gate: Gate; state: State }> => {
  const gate = Gate.of(tree)
  const state = new State(gate)
  state.load()
  const made = state.change((now) => ok({ outcome: outcome(now, {}) }))
  await gate.let(true)
  await made
  return { gate, state }
}
const pass = (tree: Tree, n: number) => ok(outcome(tree, { put: [{ ...mirrorIn(tree, 'd0'), pass: n }] }))
const passOf = (state: State): number => mirrorIn(state.tree, 'd0').pass

t.test('the first change makes the dirty region logs that are missing', async (t) => {
  const { gate } = await start()
  t.same(
    [...gate.records.keys()].filter((k) => k.startsWith('dirty/')),
    ['dirty/d0/0'],
  )
})

t.test('the tree is the tree of the last durable commit', async (t) => {
  const { gate, state } = await start()
  const first = state.perform((tree) => pass(tree, 3))
  await settled()
  t.equal(passOf(state), 1, 'not before it is durable')
  await gate.let(true)
  t.ok((await first).ok)
  t.equal(passOf(state), 3)
  const second = state.perform((tree) => pass(tree, 4))
  await gate.let(false)
  t.notOk((await second).ok)
  t.equal(passOf(state), 3)
})

t.test('whoever comes later decides on what the one before made durable', async (t) => {
  const { gate, state } = await start()
  const more = (tree: Tree) => pass(tree, mirrorIn(tree, 'd0').pass + 1)
  const all = [state.perform(more), state.perform(more), state.perform(more)]
  await settled()
  t.equal(gate.waiting.length, 1, 'one at a time')
  await gate.let(true)
  await gate.let(false)
  await gate.let(true)
  t.same(
    (await Promise.all(all)).map((r) => r.ok),
    [true, false, true],
  )
  t.equal(passOf(state), 3)
})

t.test('a refusal, and what changes nothing, are not committed', async (t) => {
  const { gate, state } = await start()
  t.notOk((await state.perform(() => err(metaError('syntax')))).ok)
  t.ok((await state.perform((tree) => ok(outcome(tree, {})))).ok)
  t.equal(gate.waiting.length, 0)
  t.equal(await state.still(() => passOf(state)), 1)
})

t.test('a mirror that goes takes its dirty regions along in the same commit', async (t) => {
  const { gate, state } = await start()
  const gone = state.perform((tree) => ok(outcome(tree, { remove: [name('d0')] })))
  t.same(await gate.let(true), ['unit/d0', 'dirty/d0/0'])
  await gone
  t.notOk(state.logs.has(name('d0')))
})

t.test('marks do not wait for a change under way, and survive one that fails', async (t) => {
  const { gate, state } = await start()
  const slow = state.perform((tree) => pass(tree, 3))
  await settled()
  const marked = state.logs.mark(name('d0'), [7], 2048)
  await settled()
  t.equal(gate.waiting.length, 2)
  const mark = gate.waiting.pop()
  if (mark === undefined) throw new Error('no mark')
  gate.waiting.unshift(mark)
  await gate.let(true)
  t.ok((await marked).ok)
  await gate.let(false)
  t.notOk((await slow).ok)
  t.equal(state.logs.dirty(name('d0')), 1)
})

t.test('an error of a spare gives the component its own slice back in the same commit', async (t) => {
  const pooled = treeOf(['hsp1 /disks/h', 'd1 1 1 /disks/a -h hsp1', 'd2 1 1 /disks/b', 'd0 -m d1 d2'])
  const [c] = stripeComponents(stripeIn(pooled, 'd1'))
  if (c === undefined) throw new Error('no component')
  const { name: own, path, identity, extent, offset, size, start: first } = c
  const original = { name: own, path, identity, extent, offset, size, start: first }
  const h = { name: '/disks/h', path: '/disks/h', identity: 'file:1:/disks/h' }
  const spared = changed(pooled, 'd0', { components: { a: { ...h, spare: { pool: name('hsp1'), original } } } })
  const { gate, state } = await start(spared)
  const failed = state.perform((tree) => {
    const erred = changed(tree, 'd0', { components: { h: 'erred' } })
    return ok(outcome(tree, { put: [...erred.values()].filter((u) => tree.get(u.name) !== u) }))
  })
  t.ok((await gate.let(true)).includes('unit/hsp1'))
  await failed
  t.match(stripeComponents(stripeIn(state.tree, 'd1'))[0], { name: '/disks/a', spare: null, state: 'erred' })
})
