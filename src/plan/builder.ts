/**
 * Collects nodes, children before parents, and ends in a Plan. It trusts its caller about meaning
 * (verify.ts and the engine check the bytes again) but refuses what would be a bug: unknown or
 * twice-used children. A builder makes one plan.
 */
import { assert } from '../base/result.js'
import { blocks, type Blocks } from '../base/units.js'
import type {
  ComponentId,
  ComponentService,
  MirrorNode,
  MirrorSide,
  NodeId,
  Plan,
  PlanNode,
  PlanRow,
  Raid5Node,
} from './types.js'

export interface PlanFacts {
  readonly generation: number
  readonly labelled: boolean
  readonly readOnly: boolean
}

/** Okay, and what every component outside a mirror or RAID5 is. */
export const IN_SERVICE: ComponentService = { readable: true, writable: true, lastErred: 0 }

export class PlanBuilder {
  readonly #nodes: PlanNode[] = []
  readonly #used = new Set<NodeId>()

  addComponent(component: ComponentId, start: Blocks, size: Blocks, service: ComponentService = IN_SERVICE): NodeId {
    return this.#add({ kind: 'component', component, start, blocks: size, ...service })
  }

  /** `size` is the external size; without it the sum of the rows. */
  addStripe(rows: readonly PlanRow[], size?: Blocks): NodeId {
    const sum = blocks(rows.reduce((n, row) => n + row.blocks, 0))
    for (const row of rows) for (const child of row.children) this.#use(child)
    return this.#add({ kind: 'stripe', blocks: size ?? sum, rows })
  }

  addMirror(
    sides: readonly MirrorSide[],
    size: Blocks,
    read: MirrorNode['read'] = 'roundrobin',
    write: MirrorNode['write'] = 'parallel',
    regionBlocks: Blocks = blocks(0),
  ): NodeId {
    for (const side of sides) this.#use(side.child)
    return this.#add({ kind: 'mirror', blocks: size, read, write, regionBlocks, sides })
  }

  addRaid5(device: Omit<Raid5Node, 'kind'>): NodeId {
    for (const child of device.columns) this.#use(child)
    return this.#add({ kind: 'raid5', ...device })
  }

  /** External size of a node already added. */
  sizeOf(node: NodeId): Blocks {
    const found = this.#nodes[node]
    assert(found !== undefined, `no node ${node}`)
    return found.blocks
  }

  /** The node added last is the root; every other one must have been used as a child. */
  finish(facts: PlanFacts): Plan {
    assert(this.#nodes.length > 0, 'a plan needs a node')
    assert(this.#used.size === this.#nodes.length - 1, 'every node but the root needs one parent')
    return { ...facts, nodes: [...this.#nodes] }
  }

  #use(child: NodeId): void {
    assert(child >= 0 && child < this.#nodes.length, `no node ${child}`)
    assert(!this.#used.has(child), `node ${child} has a parent already`)
    this.#used.add(child)
  }

  #add(node: PlanNode): NodeId {
    this.#nodes.push(node)
    return (this.#nodes.length - 1) as NodeId
  }
}
