import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { compilePlan } from '../../../src/meta/compile.js'
import { withUnits } from '../../../src/meta/tree.js'
import type { Component } from '../../../src/meta/types.js'
import { IN_SERVICE } from '../../../src/plan/builder.js'
import type { ComponentId } from '../../../src/plan/types.js'
import { CYLINDER, device, inventoryOf, mirrorIn, stripeIn, treeOf } from './world.js'

const inventory = inventoryOf([
  device('/a', 10 * CYLINDER),
  device('/b', 10 * CYLINDER),
  device('c0t0d0s3', 12 * CYLINDER, { path: '/img', offset: blocks(6144), labelAtStart: true }),
  device('/d', 40 * CYLINDER),
])
const TREE = treeOf(['d1 2 2 /a /b -i 16b 1 c0t0d0s3', 'd2 1 1 /d', 'd0 -m d1 d2 -g -S'], { inventory })
const ids = new Map<string, number>()
const component = (c: Component): ComponentId => {
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

t.test('a mirror reads only what is in step', async (t) => {
  const d0 = mirrorIn(TREE, 'd0')
  const attached = {
    ...d0,
    submirrors: d0.submirrors.map((s) => (s.slot === 0 ? { ...s, state: 'resync' as const } : s)),
  }
  const plan = compilePlan(attached, withUnits(TREE, [attached]), { generation: 1, readOnly: false, component })
  t.equal(plan.nodes.length, 7)
  t.same(plan.nodes.at(-1), {
    kind: 'mirror',
    blocks: 31 * CYLINDER,
    read: 'geometric',
    write: 'serial',
    regionBlocks: 0,
    sides: [
      { child: 3, slot: 0, readable: false, writable: true, stale: false },
      { child: 5, slot: 1, readable: true, writable: true, stale: false },
    ],
  })
  t.match(compilePlan(d0, TREE, { generation: 1, readOnly: false, component }).nodes.at(-1), {
    sides: [{ readable: true }, { readable: true }],
  })
})
