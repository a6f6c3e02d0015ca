import t from 'tap'
import { decide, decideOpen, type Failure, unopened } from '../../../src/meta/decide.js'
import type { Openable } from '../../../src/meta/sources.js'
import type { Tree, UnitName } from '../../../src/meta/types.js'
import { changed, componentStates, sideStates } from './mirrors.js'
import { raid5, raid5In, statesOf, treeWith } from './raid5s.js'
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

const RAID = raid5('okay okay okay okay')
const raidDecided = (states: string, failures: readonly Failure[]) => {
  const d = decide(treeWith(raid5(states)), name('d5'), failures, context)
  return { states: statesOf(raid5In(d.outcome.tree)), put: d.outcome.put.length, verdict: d.verdict }
}

t.test('RAID5: one column is out, every further one Last Erred, in one change', async (t) => {
  const dead = [failure('d5', 1), failure('d5', 1), failure('d5', 1, { op: 'flush' })]
  t.same(raidDecided('okay okay okay', dead), { states: 'okay erred okay', put: 1, verdict: 'resume' })
  t.same(raidDecided('okay okay okay', [failure('d5', 2), failure('d5', 0)]), {
    states: 'lastErred okay erred',
    put: 1,
    verdict: 'resume',
  })
  t.same(raidDecided('lastErred okay erred', [failure('d5', 0)]), {
    states: 'lastErred okay erred',
    put: 0,
    verdict: 'resume',
  })
  t.same(raidDecided('init init init', [failure('d5', 0)]).states, 'initErred init init')
  t.same(
    decide(treeWith(RAID), name('d5'), [failure('d5', 0)], context).notices.map((n) => n.text),
    ['md: d5: /disks/a needs maintenance'],
  )
})

t.test('RAID5: read errors that were repaired count only when there are too many', async (t) => {
  const read = (facts: Partial<Failure>) => raidDecided('okay okay okay', [failure('d5', 1, { op: 'read', ...facts })])
  t.same(read({ masked: true, readErrors: 20 }), { states: 'okay okay okay', put: 0, verdict: 'resume' })
  t.equal(read({ masked: true, readErrors: 21 }).states, 'okay erred okay')
  t.equal(read({ masked: true, readErrors: Infinity }).states, 'okay erred okay', 'it hangs')
  t.equal(read({ masked: true, repairFailed: true }).states, 'okay erred okay')
  t.equal(read({ masked: false }).states, 'okay erred okay')
  const degraded = (facts: Partial<Failure>) =>
    raidDecided('erred okay okay', [failure('d5', 1, { op: 'read', ...facts })])
  t.equal(degraded({ readErrors: 20 }).put, 0, 'a bad block costs what it held, and not all writes')
  t.equal(degraded({ readErrors: 21 }).states, 'erred lastErred okay')
  t.equal(degraded({ readErrors: Infinity }).states, 'erred lastErred okay', 'it hangs')
  t.equal(raidDecided('erred okay okay', [failure('d5', 1)]).states, 'erred lastErred okay', 'a write')
})

t.test('RAID5: what is not a column is nobody', async (t) => {
  t.match(raidDecided('okay okay okay', [failure('d5', 9), failure('d1', 0)]), { put: 0, verdict: 'resume' })
})

const raidOpened = (states: string, missing: string) => {
  const tree = treeWith(raid5(states))
  const d = decideOpen(tree, name('d5'), closed(...missing.split(' ').map((c) => `/disks/${c}`)), 5000)
  if (!d.ok) return text(d.error)
  const { outcome, notices } = d.value
  return { states: statesOf(raid5In(outcome.tree)), put: outcome.put.length, notices: notices.map((n) => n.text) }
}

t.test('RAID5: one column that cannot be opened', async (t) => {
  t.same(raidOpened('okay okay okay', 'b'), {
    states: 'okay erred okay',
    put: 1,
    notices: ['md: d5 failed to open. open error on /disks/b', 'md: d5: /disks/b needs maintenance'],
  })
  t.match(raidOpened('okay okay okay', ''), { put: 0, notices: [] })
  t.match(raidOpened('okay erred okay', 'b'), { put: 0, notices: [] }, 'known already')
  t.match(raidOpened('okay resync okay', 'b'), { states: 'okay erred okay' })
  t.match(raidOpened('okay okay okay | init', 'd'), { put: 0 }, 'it does not serve yet')
})

t.test('RAID5: two that cannot be opened, and nothing is recorded', async (t) => {
  const refused = 'd5: insufficient devices to open'
  t.equal(raidOpened('okay okay okay', 'a b'), refused)
  t.equal(raidOpened('okay erred okay', 'a'), refused)
  t.equal(raidOpened('okay resync okay', 'a'), refused)
  t.equal(raidOpened('lastErred erred okay', 'a'), refused)
  t.equal(raidOpened('init init init', 'a'), refused, 'it may be a cable')
  t.match(raidOpened('init initErred init', 'a'), { put: 0 })
})

t.test('RAID5: Last Erred columns that can be opened are Okay again', async (t) => {
  t.match(raidOpened('lastErred erred okay', ''), { states: 'okay erred okay', put: 1, notices: [] })
  t.match(raidOpened('lastErred erred lastErred', ''), { states: 'okay erred okay' })
  t.match(raidOpened('lastErred okay lastErred', 'a'), { states: 'erred okay okay' })
  t.match(raidOpened('lastErred resync okay', ''), { states: 'okay resync okay' })
})
