import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { compilePlan } from '../../../src/meta/compile.js'
import { withUnits } from '../../../src/meta/tree.js'
import type { Member, SubmirrorState } from '../../../src/meta/types.js'
import { IN_SERVICE } from '../../../src/plan/builder.js'
import { encodePlan } from '../../../src/plan/encode.js'
import type { ComponentId } from '../../../src/plan/types.js'
import { decodePlan } from '../../../src/plan/verify.js'
import { changed, type Changes } from './mirrors.js'
import { CYLINDER, device, inventoryOf, mirrorIn, stripeIn, treeOf } from './world.js'

const inventory = inventoryOf([
  device('/a', 10 * CYLINDER),
  device('/b', 10 * CYLINDER),
  device('c0t0d0s3', 12 * CYLINDER, { path: '/img', offset: blocks(6144), labelAtStart: true }),
  device('/d', 40 * CYLINDER),
])
const TREE = treeOf(['d1 2 2 /a /b -i 16b 1 c0t0d0s3', 'd2 1 1 /d', 'd0 -m d1 d2 -g -S'], { inventory })
const ids = new Map<string, number>()
const component = (c: Member): ComponentId => {
  const id = ids.get(c.name) ?? ids.size + 1
  ids.set(c.name, id)
  return id as ComponentId
}

t.test('a stripe', async (t) => {
  const d1 = stripeIn(TREE, 'd1')
  const plan = compilePlan(d1, TREE, { generation: 7, readOnly: true, component })
  t.same(plan, {
    generation: 7,
    labelled: false,
    readOnly: true,
    nodes: [
      { kind: 'component', component: 1, start: 0, blocks: 20480, ...IN_SERVICE },
      { kind: 'component', component: 2, start: 0, blocks: 20480, ...IN_SERVICE },
      { kind: 'component', component: 3, start: 6144 + 2048, blocks: 11 * CYLINDER, ...IN_SERVICE },
      {
        kind: 'stripe',
        blocks: 31 * CYLINDER,
        rows: [
          { interlace: 16, blocks: 40960, children: [0, 1] },
          { interlace: 1024, blocks: 11 * CYLINDER, children: [2] },
        ],
      },
    ],
  })
})

const ROOT = { generation: 1, readOnly: false, component }
const planOf = (what: Changes) => {
  const tree = changed(TREE, 'd0', what)
  return compilePlan(mirrorIn(tree, 'd0'), tree, ROOT)
}

t.test('a mirror', async (t) => {
  const plan = compilePlan(mirrorIn(TREE, 'd0'), TREE, ROOT)
  t.equal(plan.nodes.length, 7)
  t.same(plan.nodes.at(-1), {
    kind: 'mirror',
    blocks: 31 * CYLINDER,
    read: 'geometric',
    write: 'serial',
    regionBlocks: 2048,
    sides: [
      { child: 3, slot: 0, readable: true, writable: true, stale: false },
      { child: 5, slot: 1, readable: true, writable: true, stale: false },
    ],
  })
})

t.test('what may be done with a side', async (t) => {
  const side = (state: SubmirrorState) => {
    const root = planOf({ sides: { d2: state } }).nodes.at(-1)
    if (root?.kind !== 'mirror') throw new Error('no mirror')
    const { readable, writable, stale } = root.sides[1] ?? {}
    return [readable, writable, stale]
  }
  t.same(side('okay'), [true, true, false])
  t.same(side('attached'), [false, false, false])
  t.same(side('resync'), [false, true, false])
  t.same(side('offline'), [false, false, false])
  t.same(side('offlineResync'), [false, true, true])
  t.same(side('optimized'), [true, true, true])
})

t.test('what may be done with a component', async (t) => {
  const nodes = planOf({
    components: { a: { state: 'lastErred', erredOrder: 7 }, b: 'erred', c0t0d0s3: 'resync' },
  }).nodes
  const service = (i: number) => {
    const node = nodes[i]
    if (node?.kind !== 'component') throw new Error('no component')
    return [node.readable, node.writable, node.lastErred]
  }
  t.same([0, 1, 2, 4].map(service), [
    [true, true, 7],
    [false, false, 0],
    [false, true, 0],
    [true, true, 0],
  ])
  const none = planOf({ components: { a: 'erred', b: 'erred', c0t0d0s3: 'erred', d: 'erred' } })
  t.ok(decodePlan(encodePlan(none)).ok, 'a mirror without any source has a plan too')
})

t.test('one side has no dirty region log, and outside a mirror there are no states', async (t) => {
  const tree = changed(TREE, 'd0', { components: { d: 'erred' } })
  const alone = withUnits(tree, [{ ...mirrorIn(tree, 'd0'), submirrors: mirrorIn(tree, 'd0').submirrors.slice(0, 1) }])
  t.match(compilePlan(mirrorIn(alone, 'd0'), alone, ROOT).nodes.at(-1), { regionBlocks: 0 })
  t.match(compilePlan(stripeIn(alone, 'd2'), alone, ROOT).nodes[0], IN_SERVICE)
})
