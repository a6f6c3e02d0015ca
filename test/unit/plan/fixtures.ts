/**
 * The cases of test/fixtures/plan: encoded plans with what must come out, read by the TypeScript and
 * by the C++ decoder. Each file: `bytes HEX`, then `refused REASON` or `plan` and its description.
 */
import { blocks } from '../../../src/base/units.js'
import { IN_SERVICE, PlanBuilder } from '../../../src/plan/builder.js'
import { PLAN } from '../../../src/plan/constants.js'
import { crc32c } from '../../../src/plan/crc.js'
import { encodePlan } from '../../../src/plan/encode.js'
import type { ComponentId, ComponentService, MirrorSide, NodeId, Plan, PlanNode } from '../../../src/plan/types.js'
import { describePlan } from '../../../src/plan/verify.js'

export interface Fixture {
  readonly name: string
  readonly bytes: Uint8Array
  /** The reason of the refusal, or the description of the plan. */
  readonly expect: { readonly refused: string } | { readonly plan: string }
}

export const id = (n: number): ComponentId => n as ComponentId
export const facts = { generation: 7, labelled: false, readOnly: false }

export const concat = (): Plan => {
  const b = new PlanBuilder()
  const children = [b.addComponent(id(3), blocks(0), blocks(100)), b.addComponent(id(9), blocks(2048), blocks(50))]
  b.addStripe(children.map((c) => ({ interlace: blocks(1024), blocks: b.sizeOf(c), children: [c] })))
  return b.finish({ ...facts, labelled: true })
}

export const stripe = (): Plan => {
  const b = new PlanBuilder()
  const c = [0, 1, 2, 3, 4].map((n) => b.addComponent(id(n), blocks(n * 16), blocks(640 + n)))
  b.addStripe(
    [
      { interlace: blocks(32), blocks: blocks(1920), children: c.slice(0, 3) },
      { interlace: blocks(20), blocks: blocks(1280), children: c.slice(3) },
    ],
    blocks(3000),
  )
  return b.finish({ ...facts, generation: Number.MAX_SAFE_INTEGER })
}

export const mirror = (): Plan => {
  const b = new PlanBuilder()
  const side = (first: number, services: readonly ComponentService[]): NodeId => {
    const c = services.map((service, i) => b.addComponent(id(first + i), blocks(first + i), blocks(4096), service))
    return b.addStripe([{ interlace: blocks(16), blocks: blocks(8192), children: c }])
  }
  const erred = { readable: false, writable: false, lastErred: 0 }
  const sides: MirrorSide[] = [
    { child: side(10, [IN_SERVICE, erred]), slot: 0, readable: true, writable: true, stale: true },
    { child: side(20, [IN_SERVICE, erred]), slot: 1, readable: false, writable: true, stale: true },
    {
      child: side(25, [
        { ...IN_SERVICE, lastErred: 17 },
        { ...erred, writable: true },
      ]),
      slot: 2,
      readable: false,
      writable: false,
      stale: false,
    },
    {
      child: b.addComponent(id(30), blocks(64), blocks(9000)),
      slot: 3,
      readable: true,
      writable: true,
      stale: false,
    },
  ]
  b.addMirror(sides, blocks(8000), 'geometric', 'serial', blocks(2048))
  return b.finish({ ...facts, readOnly: true })
}

export const raid5 = (): Plan => {
  const b = new PlanBuilder()
  const services = [IN_SERVICE, { readable: false, writable: false, lastErred: 0 }, { ...IN_SERVICE, lastErred: 4 }]
  const columns = [0, 1, 2, 3, 4].map((n) =>
    b.addComponent(id(40 + n), blocks(n), blocks(340 + 20 * 32 + n), services[n] ?? IN_SERVICE),
  )
  b.addRaid5({
    blocks: blocks(2500),
    interlace: blocks(32),
    lines: 20,
    originals: 4,
    serving: 5,
    prewrite: blocks(340),
    unit: Number.MAX_SAFE_INTEGER,
    epoch: 12,
    replay: true,
    copied: null,
    columns,
  })
  return b.finish(facts)
}

/** A column is being zeroed: the others serve, as many as its failed neighbour lets them. */
const joining = (): Plan => {
  const plan = raid5()
  const writable = { readable: false, writable: true, lastErred: 0 }
  const node = withNode(plan, 4, (n) => (n.kind === 'component' ? { ...n, ...writable } : n))
  return withNode(node, node.nodes.length - 1, (n) =>
    n.kind === 'raid5' ? { ...n, blocks: blocks(20 * 32 * 3), serving: 4, replay: false } : n,
  )
}

/** The last column is becoming a copy of the first one. */
const copied = (): Plan => {
  const plan = joining()
  return withNode(plan, plan.nodes.length - 1, (n) => (n.kind === 'raid5' ? { ...n, copied: 0 } : n))
}

/** Changes bytes and makes the checksum right again. */
const patch = (bytes: Uint8Array, change: (view: DataView) => void): Uint8Array => {
  const copy = bytes.slice()
  const view = new DataView(copy.buffer)
  change(view)
  view.setUint32(PLAN.OFFSET_CRC, crc32c(copy, PLAN.OFFSET_CRC), true)
  return copy
}

const nodeAt = (i: number): number => PLAN.HEADER_BYTES + i * PLAN.NODE_BYTES

const withNode = (plan: Plan, i: number, change: (node: PlanNode) => PlanNode): Plan => ({
  ...plan,
  nodes: plan.nodes.map((node, k) => (k === i ? change(node) : node)),
})

const refusedRaid5 = (): readonly Fixture[] => {
  const plan = raid5()
  const root = plan.nodes.length - 1
  const bytes = encodePlan(plan)
  const refused = (name: string, changed: Uint8Array, reason: string): Fixture => ({
    name: `refused-raid5-${name}`,
    bytes: changed,
    expect: { refused: reason },
  })
  const changed = (change: Partial<Extract<PlanNode, { kind: 'raid5' }>>): Uint8Array =>
    encodePlan(withNode(plan, root, (n) => (n.kind === 'raid5' ? { ...n, ...change } : n)))
  return [
    refused('large', changed({ blocks: blocks(20 * 32 * 4 + 1) }), `node ${root}: larger than its rows`),
    refused('interlace', changed({ interlace: blocks(1) }), 'row 0: interlace out of range'),
    refused('originals', changed({ originals: 2 }), 'row 0: number of columns out of range'),
    refused('columns', changed({ originals: 6 }), 'row 0: number of columns out of range'),
    refused('copied', changed({ copied: 5 }), 'row 1: copied column out of range'),
    refused('copied-serving', changed({ copied: 1 }), 'row 1: copy is not alone'),
    refused('serving-few', changed({ serving: 3 }), 'row 1: number of columns out of range'),
    refused('serving-many', changed({ serving: 6 }), 'row 1: number of columns out of range'),
    refused('joining-readable', changed({ serving: 4 }), 'row 0: joining column is readable'),
    refused(
      'joining-large',
      encodePlan(withNode(joining(), root, (n) => ({ ...n, blocks: blocks(20 * 32 * 3 + 1) }))),
      `node ${root}: larger than its rows`,
    ),
    refused('no-lines', changed({ lines: 0 }), 'row 0: size out of range'),
    refused('lines', changed({ lines: 2 ** 52 }), 'row 0: size out of range'),
    refused('prewrite', changed({ prewrite: blocks(41) }), 'row 1: prewrite area out of range'),
    refused('unit', changed({ unit: 0 }), 'row 1: unit out of range'),
    refused('epoch', changed({ epoch: 0 }), `node ${root}: epoch out of range`),
    refused('small', changed({ prewrite: blocks(341) }), 'row 0: component is too small'),
    refused(
      'flags',
      patch(bytes, (v) => v.setUint8(nodeAt(root) + PLAN.NODE_FLAGS, 2)),
      `node ${root}: unknown flags`,
    ),
    refused(
      'rows',
      patch(bytes, (v) => v.setUint32(nodeAt(root) + PLAN.NODE_COUNT, 1, true)),
      `node ${root}: rows out of order`,
    ),
  ]
}

export const fixtures = (): readonly Fixture[] => {
  const accepted = Object.entries({
    concat: concat(),
    stripe: stripe(),
    mirror: mirror(),
    raid5: raid5(),
    'raid5-joining': joining(),
    'raid5-copied': copied(),
  }).map(([name, plan]) => ({
    name,
    bytes: encodePlan(plan),
    expect: { plan: describePlan(plan) },
  }))
  const refused = (name: string, bytes: Uint8Array, reason: string): Fixture => ({
    name: `refused-${name}`,
    bytes,
    expect: { refused: reason },
  })
  const stripeBytes = encodePlan(stripe())
  const rowAt = (plan: Plan, i: number): number => nodeAt(plan.nodes.length) + i * PLAN.ROW_BYTES
  const refAt = (plan: Plan, rows: number, i: number): number => rowAt(plan, rows) + i * PLAN.REF_BYTES
  const mirrored = mirror()
  const mirrorBytes = encodePlan(mirrored)
  const root = mirrored.nodes.length - 1
  const withSide = (i: number, change: (side: MirrorSide) => MirrorSide): Uint8Array =>
    encodePlan(
      withNode(mirrored, root, (n) =>
        n.kind === 'mirror' ? { ...n, sides: n.sides.map((s, k) => (k === i ? change(s) : s)) } : n,
      ),
    )
  const withService = (i: number, service: ComponentService): Uint8Array =>
    encodePlan(withNode(mirrored, i, (n) => (n.kind === 'component' ? { ...n, ...service } : n)))
  const flipped = stripeBytes.slice()
  flipped[nodeAt(1) + PLAN.NODE_BLOCKS] = 0
  return [
    ...accepted,
    refused('empty', new Uint8Array(), 'too short'),
    refused('cut', stripeBytes.slice(0, -8), 'length does not match'),
    refused(
      'magic',
      patch(stripeBytes, (v) => v.setUint8(0, 1)),
      'not a plan',
    ),
    refused(
      'version',
      patch(stripeBytes, (v) => v.setUint16(PLAN.OFFSET_VERSION, 1, true)),
      'unknown version',
    ),
    refused('bit-flip', flipped, 'checksum does not match'),
    refused(
      'flags',
      patch(stripeBytes, (v) => v.setUint32(PLAN.OFFSET_FLAGS, 4, true)),
      'unknown flags',
    ),
    refused(
      'generation',
      patch(stripeBytes, (v) => v.setBigUint64(PLAN.OFFSET_GENERATION, 1n << 53n, true)),
      'generation out of range',
    ),
    refused(
      'no-nodes',
      patch(stripeBytes, (v) => v.setUint32(PLAN.OFFSET_NODES, 0, true)),
      'too many entries',
    ),
    refused(
      'tables',
      patch(stripeBytes, (v) => v.setUint32(PLAN.OFFSET_ROWS, 3, true)),
      'tables do not fit',
    ),
    refused(
      'kind',
      patch(stripeBytes, (v) => v.setUint8(nodeAt(0), 9)),
      'node 0: unknown kind',
    ),
    refused(
      'unused',
      patch(stripeBytes, (v) => v.setUint8(nodeAt(0) + PLAN.NODE_READ, 1)),
      'node 0: unused field is set',
    ),
    refused(
      'component-end',
      patch(stripeBytes, (v) => v.setBigUint64(nodeAt(1) + PLAN.NODE_START, (1n << 53n) - 2n, true)),
      'node 1: end out of range',
    ),
    refused(
      'huge-size',
      patch(stripeBytes, (v) => v.setBigUint64(nodeAt(1) + PLAN.NODE_BLOCKS, 1n << 63n, true)),
      'node 1: size out of range',
    ),
    refused(
      'no-size',
      encodePlan(withNode(stripe(), 0, (n) => ({ ...n, blocks: blocks(0) }))),
      'node 0: size out of range',
    ),
    refused(
      'component-small',
      encodePlan(withNode(stripe(), 0, (n) => ({ ...n, blocks: blocks(639) }))),
      'row 0: component is too small',
    ),
    refused(
      'stripe-large',
      encodePlan(withNode(stripe(), 5, (n) => ({ ...n, blocks: blocks(3201) }))),
      'node 5: larger than its rows',
    ),
    refused(
      'interlace-small',
      patch(stripeBytes, (v) => v.setBigUint64(rowAt(stripe(), 0), 15n, true)),
      'row 0: interlace out of range',
    ),
    refused(
      'interlace-uneven',
      patch(stripeBytes, (v) => v.setBigUint64(rowAt(stripe(), 0), 33n, true)),
      'row 0: size is not whole interlaces in every column',
    ),
    refused(
      'forward',
      patch(stripeBytes, (v) => v.setUint32(refAt(stripe(), 2, 0), 5, true)),
      'row 0: child does not come before its parent',
    ),
    refused(
      'two-parents',
      patch(stripeBytes, (v) => v.setUint32(refAt(stripe(), 2, 1), 0, true)),
      'row 0: child has two parents',
    ),
    refused(
      'row-order',
      patch(stripeBytes, (v) => v.setUint32(nodeAt(5) + PLAN.NODE_FIRST, 1, true)),
      'node 5: rows out of order',
    ),
    refused(
      'policy',
      patch(mirrorBytes, (v) => v.setUint8(nodeAt(root) + PLAN.NODE_READ, 3)),
      `node ${root}: unknown policy`,
    ),
    refused(
      'side-small',
      encodePlan(withNode(mirrored, root, (n) => ({ ...n, blocks: blocks(8193) }))),
      `node ${root}: side is too small`,
    ),
    refused(
      'side-read-only',
      withSide(1, (s) => ({ ...s, readable: true, writable: false })),
      `node ${root}: flags contradict each other`,
    ),
    refused(
      'side-stale-offline',
      withSide(2, (s) => ({ ...s, stale: true })),
      `node ${root}: flags contradict each other`,
    ),
    refused(
      'slot-twice',
      withSide(1, (s) => ({ ...s, slot: 0 })),
      `node ${root}: slots out of order`,
    ),
    refused(
      'slot-four',
      withSide(3, (s) => ({ ...s, slot: 4 })),
      `node ${root}: unknown flags`,
    ),
    refused(
      'component-read-only',
      withService(0, { readable: true, writable: false, lastErred: 0 }),
      'node 0: flags contradict each other',
    ),
    refused(
      'component-erred-unreadable',
      withService(0, { readable: false, writable: true, lastErred: 5 }),
      'node 0: flags contradict each other',
    ),
    refused(
      'component-flags',
      patch(mirrorBytes, (v) => v.setUint8(nodeAt(0) + PLAN.NODE_FLAGS, 4)),
      'node 0: unknown flags',
    ),
    refused(
      'region-uneven',
      patch(mirrorBytes, (v) => v.setBigUint64(nodeAt(root) + PLAN.NODE_START, 2049n, true)),
      `node ${root}: region size out of range`,
    ),
    refused(
      'region-small',
      patch(mirrorBytes, (v) => v.setBigUint64(nodeAt(root) + PLAN.NODE_START, 4n, true)),
      `node ${root}: region size out of range`,
    ),
    refused(
      'regions-many',
      encodePlan(
        (() => {
          const b = new PlanBuilder()
          const child = b.addComponent(id(1), blocks(0), blocks(8 * PLAN.MAX_REGIONS + 1))
          const only = { child, slot: 0, readable: true, writable: true, stale: false }
          b.addMirror([only], b.sizeOf(child), 'first', 'parallel', blocks(8))
          return b.finish(facts)
        })(),
      ),
      'node 1: region size out of range',
    ),
    refused(
      'out-of-service',
      encodePlan(withNode(stripe(), 2, (n) => (n.kind === 'component' ? { ...n, lastErred: 3 } : n))),
      'node 2: out of service without redundancy',
    ),
    ...refusedRaid5(),
    refused(
      'orphan',
      encodePlan(withNode(mirrored, root, (n) => (n.kind === 'mirror' ? { ...n, sides: n.sides.slice(0, 2) } : n))),
      'node without a parent',
    ),
    refused(
      'five-sides',
      encodePlan(
        (() => {
          const b = new PlanBuilder()
          const sides = [1, 2, 3, 4, 5].map((n) => ({
            child: b.addComponent(id(n), blocks(0), blocks(9)),
            slot: n - 1,
            readable: true,
            writable: true,
            stale: false,
          }))
          b.addMirror(sides, blocks(9))
          return b.finish(facts)
        })(),
      ),
      'node 5: number of sides out of range',
    ),
    refused(
      'overlap',
      encodePlan(withNode(stripe(), 1, (n) => (n.kind === 'component' ? { ...n, component: id(0) } : n))),
      'component 0: ranges overlap',
    ),
  ]
}

export const fixtureText = (f: Fixture): string =>
  `bytes ${Buffer.from(f.bytes).toString('hex')}\n` +
  ('refused' in f.expect ? `refused ${f.expect.refused}\n` : `plan\n${f.expect.plan}`)
