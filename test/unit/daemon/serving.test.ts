/** What of a mirror has to be open, and how it is served without what cannot be; the rest needs an engine. */
import t from 'tap'
import { asServed, inService } from '../../../src/daemon/inservice.js'
import { stripeComponents } from '../../../src/meta/sources.js'
import { metadeviceOf } from '../../../src/meta/tree.js'
import type { Metadevice, Tree } from '../../../src/meta/types.js'
import { changed } from '../meta/mirrors.js'
import { name, stripeIn, treeOf } from '../meta/world.js'

const TREE = treeOf(['d1 2 1 /disks/a 1 /disks/b', 'd2 2 1 /disks/c 1 /disks/d', 'd0 -m d1 d2', 'd9 1 1 /disks/e'])
const unit = (tree: Tree, s: string): Metadevice => {
  const found = metadeviceOf(tree, name(s))
  if (found === null) throw new Error(s)
  return found
}
const open = (tree: Tree, s = 'd0'): string =>
  inService(unit(tree, s), tree)
    .map((c) => c.name.slice(-1))
    .join('')

t.test('everything that is read or written is open', async (t) => {
  t.equal(open(TREE), 'abcd')
  t.equal(open(TREE, 'd9'), 'e')
  t.equal(open(changed(TREE, 'd0', { components: { a: 'erred', c: 'lastErred', d: 'resync' } })), 'bcd')
  for (const d2 of ['attached', 'offline'] as const) t.equal(open(changed(TREE, 'd0', { sides: { d2 } })), 'ab', d2)
  for (const d2 of ['resync', 'offlineResync', 'optimized'] as const)
    t.equal(open(changed(TREE, 'd0', { sides: { d2 } })), 'abcd', d2)
})

t.test('the plan of a mirror asks for nothing of a side that is not written', async (t) => {
  const tree = changed(TREE, 'd0', { sides: { d2: 'offline' } })
  const served = asServed(unit(tree, 'd0'), tree, () => false)
  t.same(
    ['d1', 'd2'].map((s) => stripeComponents(stripeIn(served, s)).map((c) => c.state)),
    [
      ['okay', 'okay'],
      ['erred', 'erred'],
    ],
  )
})

t.test('what cannot be opened is served as if it were in Maintenance, and nothing else is', async (t) => {
  const served = asServed(unit(TREE, 'd0'), TREE, (c) => c.name === '/disks/b')
  const states = (s: string): readonly string[] => stripeComponents(stripeIn(served, s)).map((c) => c.state)
  t.same(
    [states('d1'), states('d2')],
    [
      ['okay', 'erred'],
      ['okay', 'okay'],
    ],
  )
  t.equal(served.get(name('d2')), TREE.get(name('d2')))
  t.equal(
    asServed(unit(TREE, 'd9'), TREE, () => true),
    TREE,
    'a stripe has no states: it is not served',
  )
})

t.test('a RAID5 device needs its columns, and no other that waits to join', async (t) => {
  const made = treeOf(['d5 -r /disks/a /disks/b /disks/c /disks/d'])
  const d5 = unit(made, 'd5')
  if (d5.kind !== 'raid5') throw new Error(d5.kind)
  const states = ['okay', 'erred', 'lastErred', 'init'] as const
  const columns = d5.columns.map((c, i) => ({ ...c, state: states[i] ?? c.state }))
  const tree = new Map(made).set(d5.name, { ...d5, originals: 3, serving: 3, columns })
  t.equal(open(tree, 'd5'), 'acd')
  const served = (missing: string): readonly string[] => {
    const after = unit(
      asServed(unit(tree, 'd5'), tree, (c) => c.name.endsWith(missing)),
      'd5',
    )
    return after.kind === 'raid5' ? after.columns.map((c) => c.state) : []
  }
  t.same(served('d'), ['okay', 'erred', 'lastErred', 'initErred'], 'the engine is asked for no descriptor of it')
  t.same(served('a'), states, 'without one that it needs it is not served at all')
})
