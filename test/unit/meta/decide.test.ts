import t from 'tap'
import { decide, decideOpen, type Failure, unopened } from '../../../src/meta/decide.js'
import type { Openable } from '../../../src/meta/sources.js'
import type { Tree, UnitName } from '../../../src/meta/types.js'
import { changed, componentStates, sideStates } from './mirrors.js'
import { mirrorIn, name, text, treeOf } from './world.js'

const TREE = treeOf(['d1 2 1 /disks/a 1 /disks/b', 'd2 2 1 /disks/c 1 /disks/d', 'd0 -m d1 d2', 'd7 1 1 /disks/e'])
const context = { now: 5000, readErrorLimit: 20 }
const failure = (unit: string, component: number, facts: Partial<Failure> = {}): Failure => ({
  unit: name(unit),
  component,
  op: 'write',
  masked: false,
  repairFailed: false,
  readErrors: 0,
  ...facts,
})
const decided = (failures: readonly Failure[], tree: Tree = TREE, device: UnitName = name('d0')) => {
  const d = decide(tree, device, failures, context)
  return {
    states: componentStates(d.outcome.tree),
    put: d.outcome.put.map((u) => u.name),
    notices: d.notices.map((n) => `${n.level} ${n.text}`),
    verdict: d.verdict,
  }
}

t.test('a dead disk with a queue of writes is one change', async (t) => {
  t.same(decided([failure('d1', 0), failure('d1', 0), failure('d1', 0, { op: 'flush' })]), {
    states: 'erred okay | okay okay',
    put: ['d0', 'd1'],
    notices: ['warning md: d1: /disks/a needs maintenance'],
    verdict: 'resume',
  })
})

t.test('both sides at once: one is Last Erred and keeps answering', async (t) => {
  t.same(decided([failure('d1', 0), failure('d2', 0)]), {
    states: 'erred okay | lastErred okay',
    put: ['d0', 'd1', 'd2'],
    notices: [
      'warning md: d1: /disks/a needs maintenance',
      'warning md: d2: /disks/c needs maintenance',
      'warning md: d2: /disks/c last erred',
    ],
    verdict: 'resume',
  })
})

t.test('read errors', async (t) => {
  const read = (facts: Partial<Failure>) => decided([failure('d1', 0, { op: 'read', ...facts })]).states.split(' ')[0]
  t.equal(read({ masked: true }), 'okay', 'answered from elsewhere, and rewritten')
  t.equal(read({ masked: true, readErrors: 20 }), 'okay')
  t.equal(read({ masked: true, readErrors: 21 }), 'erred', 'too many')
  t.equal(read({ masked: true, repairFailed: true }), 'erred')
  t.equal(read({ masked: false }), 'erred')
  t.equal(
    decided([failure('d1', 0, { op: 'read' })], changed(TREE, 'd0', { components: { c: 'erred' } })).states,
    'lastErred okay | erred okay',
  )
  t.same(decided([failure('d1', 0, { op: 'read', masked: true })]).put, [], 'nothing to commit')
})

t.test('what is decided already is not decided again, and what waits goes on', async (t) => {
  const erred = changed(TREE, 'd0', { components: { a: 'erred' } })
  t.match(decided([failure('d1', 0)], erred), { put: [], notices: [], verdict: 'resume' })
  t.match(decided([], TREE), { put: [], verdict: 'resume' }, 'a time limit that passed with nothing to say')
  t.match(decided([failure('d7', 0), failure('d1', 9)]), { put: [], verdict: 'resume' }, 'replaced meanwhile')
})

t.test('a stripe has no states', async (t) => {
  t.match(decided([failure('d7', 0)], TREE, name('d7')), { put: [], notices: [], verdict: 'fail' })
  t.match(decided([failure('d7', 0)], TREE, name('d9')), { put: [], verdict: 'fail' })
})

const closed =
  (...names: readonly string[]): Openable =>
  (c) =>
    !names.includes(c.name)

const opened = (tree: Tree, openable: Openable) => {
  const d = decideOpen(tree, name('d0'), openable, 5000)
  if (!d.ok) return text(d.error)
  return { states: componentStates(d.value.outcome.tree), notices: d.value.notices.map((n) => n.text) }
}

t.test('open failures: Maintenance when all of the mirror can be read without them', async (t) => {
  t.same(opened(TREE, closed('/disks/a')), {
    states: 'erred okay | okay okay',
    notices: ['md d0: open error on /disks/a', 'md: d1: /disks/a needs maintenance'],
  })
  t.match(opened(TREE, closed('/disks/a', '/disks/d')), { states: 'erred okay | okay erred' })
  t.match(opened(TREE, closed()), { states: 'okay okay | okay okay', notices: [] })
})

t.test('open failures: otherwise the open fails and nothing is recorded', async (t) => {
  const refused = 'd0: insufficient devices to open'
  t.equal(opened(TREE, closed('/disks/a', '/disks/c')), refused)
  t.equal(opened(changed(TREE, 'd0', { components: { c: 'erred' } }), closed('/disks/a')), refused)
  t.equal(opened(changed(TREE, 'd0', { components: { c: 'resync' } }), closed('/disks/a')), refused)
  t.equal(opened(changed(TREE, 'd0', { sides: { d2: 'resync' } }), closed('/disks/a')), refused)
  const last = changed(TREE, 'd0', { components: { a: 'lastErred', c: 'erred' } })
  t.equal(opened(last, closed('/disks/a')), refused)
  t.same(opened(last, closed('/disks/c')), { states: 'lastErred okay | erred okay', notices: [] }, 'known already')
})

t.test('what is not written need not be open', async (t) => {
  const tree = changed(TREE, 'd0', { sides: { d2: 'offline' } })
  t.same(unopened(mirrorIn(tree, 'd0'), tree, closed('/disks/c')), [])
  const copying = changed(TREE, 'd0', { sides: { d2: 'resync' } })
  const d = decideOpen(copying, name('d0'), closed('/disks/c'), 5000)
  t.ok(d.ok)
  if (d.ok)
    t.same(
      [componentStates(d.value.outcome.tree), sideStates(d.value.outcome.tree)],
      ['okay okay | erred okay', 'okay resync'],
    )
  t.ok(decideOpen(TREE, name('d7'), closed('/disks/e'), 1).ok, 'a stripe has nothing to decide')
})
