/**
 * Bytes -> Plan, checking everything native/plan/decode.cc checks, in the same order and with the
 * same reasons, so that both are tested from test/fixtures/plan. Any input is allowed.
 */
import { err, ok, type Result } from '../base/result.js'
import { blocks } from '../base/units.js'
import { PLAN } from './constants.js'
import { crc32c } from './crc.js'
import type { ComponentId, MirrorNode, MirrorSide, NodeId, Plan, PlanNode, PlanRow, Raid5Node } from './types.js'

/** Thrown and caught inside this file only: a refusal ends the whole decoding. */
class Refusal extends Error {}
const refuse = (reason: string): never => {
  throw new Refusal(reason)
}
const check = (condition: boolean, reason: () => string): void => {
  if (!condition) refuse(reason())
}

interface Tables {
  readonly view: DataView
  readonly nodes: number
  readonly rows: number
  readonly refs: number
  readonly rowsAt: number
  readonly refsAt: number
}

const u16 = (view: DataView, at: number): number => view.getUint16(at, true)
const u32 = (view: DataView, at: number): number => view.getUint32(at, true)
/** Values beyond the safe integers all mean "too large", which every caller checks. */
const u64 = (view: DataView, at: number): number => {
  const value = view.getBigUint64(at, true)
  return value > BigInt(PLAN.MAX_BLOCKS) ? Infinity : Number(value)
}

const header = (bytes: Uint8Array): Tables & { generation: number; flags: number } => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  check(bytes.length >= PLAN.HEADER_BYTES, () => 'too short')
  check(u32(view, 0) === PLAN.MAGIC, () => 'not a plan')
  check(u16(view, PLAN.OFFSET_VERSION) === PLAN.VERSION, () => 'unknown version')
  check(
    u16(view, PLAN.OFFSET_HEADER_BYTES) === PLAN.HEADER_BYTES && u32(view, PLAN.OFFSET_TOTAL) === bytes.length,
    () => 'length does not match',
  )
  check(u32(view, PLAN.OFFSET_CRC) === crc32c(bytes, PLAN.OFFSET_CRC), () => 'checksum does not match')
  const generation = u64(view, PLAN.OFFSET_GENERATION)
  const flags = u32(view, PLAN.OFFSET_FLAGS)
  check((flags & ~PLAN.FLAGS_KNOWN) === 0 && u64(view, PLAN.OFFSET_ZERO) === 0, () => 'unknown flags')
  check(generation <= PLAN.MAX_BLOCKS, () => 'generation out of range')
  const nodes = u32(view, PLAN.OFFSET_NODES)
  const rows = u32(view, PLAN.OFFSET_ROWS)
  const refs = u32(view, PLAN.OFFSET_REFS)
  check(
    nodes >= 1 && nodes <= PLAN.MAX_NODES && rows <= PLAN.MAX_ROWS && refs <= PLAN.MAX_REFS,
    () => 'too many entries',
  )
  const rowsAt = PLAN.HEADER_BYTES + nodes * PLAN.NODE_BYTES
  const refsAt = rowsAt + rows * PLAN.ROW_BYTES
  check(refsAt + refs * PLAN.REF_BYTES === bytes.length, () => 'tables do not fit')
  return { view, nodes, rows, refs, rowsAt, refsAt, generation, flags }
}

const isRegionSize = (n: number, size: number): boolean =>
  n >= PLAN.MIN_REGION_BLOCKS &&
  n <= PLAN.MAX_BLOCKS &&
  (BigInt(n) & (BigInt(n) - 1n)) === 0n &&
  Math.floor((size - 1) / n) < PLAN.MAX_REGIONS

const READ: readonly MirrorNode['read'][] = ['roundrobin', 'geometric', 'first']
const WRITE: readonly MirrorNode['write'][] = ['parallel', 'serial']

/** Reads nodes in order and remembers how far the row and reference tables are used. */
class Decoder {
  readonly #t: Tables
  readonly #nodes: PlanNode[] = []
  readonly #used = new Set<number>()
  #nextRow = 0
  #nextRef = 0

  constructor(tables: Tables) {
    this.#t = tables
  }

  all(): readonly PlanNode[] {
    for (let i = 0; i < this.#t.nodes; i++) this.#nodes.push(this.#node(i))
    check(this.#nextRow === this.#t.rows && this.#nextRef === this.#t.refs, () => 'unused table entries')
    check(this.#used.size === this.#t.nodes - 1, () => 'node without a parent')
    this.#service()
    this.#overlaps()
    return this.#nodes
  }

  #node(i: number): PlanNode {
    const { view } = this.#t
    const at = PLAN.HEADER_BYTES + i * PLAN.NODE_BYTES
    const kind = view.getUint8(at)
    const read = view.getUint8(at + PLAN.NODE_READ)
    const write = view.getUint8(at + PLAN.NODE_WRITE)
    const component = u32(view, at + PLAN.NODE_COMPONENT)
    const start = u64(view, at + PLAN.NODE_START)
    const size = u64(view, at + PLAN.NODE_BLOCKS)
    const first = u32(view, at + PLAN.NODE_FIRST)
    const count = u32(view, at + PLAN.NODE_COUNT)
    const flags = view.getUint8(at + PLAN.NODE_FLAGS)
    check(size >= 1 && size <= PLAN.MAX_BLOCKS, () => `node ${i}: size out of range`)
    switch (kind) {
      case PLAN.KIND_COMPONENT:
        check(read === 0 && write === 0 && count === 0, () => `node ${i}: unused field is set`)
        check(start <= PLAN.MAX_BLOCKS - size, () => `node ${i}: end out of range`)
        check((flags & ~PLAN.COMPONENT_FLAGS) === 0, () => `node ${i}: unknown flags`)
        const readable = (flags & PLAN.COMPONENT_READABLE) !== 0
        const writable = (flags & PLAN.COMPONENT_WRITABLE) !== 0
        check((writable || !readable) && (readable || first === 0), () => `node ${i}: flags contradict each other`)
        return {
          kind: 'component',
          component: component as ComponentId,
          start: blocks(start),
          blocks: blocks(size),
          readable,
          writable,
          lastErred: first,
        }
      case PLAN.KIND_STRIPE:
        check(
          read === 0 && write === 0 && flags === 0 && component === 0 && start === 0,
          () => `node ${i}: unused field is set`,
        )
        return { kind: 'stripe', blocks: blocks(size), rows: this.#rows(i, first, count, size) }
      case PLAN.KIND_MIRROR: {
        check(flags === 0 && component === 0, () => `node ${i}: unused field is set`)
        const readPolicy = READ[read] ?? refuse(`node ${i}: unknown policy`)
        const writePolicy = WRITE[write] ?? refuse(`node ${i}: unknown policy`)
        check(start === 0 || isRegionSize(start, size), () => `node ${i}: region size out of range`)
        const sides = this.#sides(i, first, count, size)
        return {
          kind: 'mirror',
          blocks: blocks(size),
          read: readPolicy,
          write: writePolicy,
          regionBlocks: blocks(start),
          sides,
        }
      }
      case PLAN.KIND_RAID5:
        check(read === 0 && write === 0, () => `node ${i}: unused field is set`)
        check((flags & ~PLAN.RAID_FLAGS) === 0, () => `node ${i}: unknown flags`)
        check(start >= 1 && start <= PLAN.MAX_BLOCKS, () => `node ${i}: epoch out of range`)
        return {
          ...this.#raid5(i, first, count, size, component),
          epoch: start,
          replay: (flags & PLAN.RAID_REPLAY) !== 0,
        }
      default:
        return refuse(`node ${i}: unknown kind`)
    }
  }

  #rows(node: number, first: number, count: number, size: number): readonly PlanRow[] {
    const { view, rowsAt, rows } = this.#t
    check(count >= 1 && first === this.#nextRow && count <= rows - first, () => `node ${node}: rows out of order`)
    const found: PlanRow[] = []
    let sum = 0
    for (let r = first; r < first + count; r++) {
      const at = rowsAt + r * PLAN.ROW_BYTES
      const interlace = u64(view, at + PLAN.ROW_INTERLACE)
      const rowBlocks = u64(view, at + PLAN.ROW_BLOCKS)
      const firstRef = u32(view, at + PLAN.ROW_FIRST)
      const columns = u32(view, at + PLAN.ROW_COUNT)
      check(
        interlace >= PLAN.MIN_INTERLACE && interlace <= PLAN.MAX_INTERLACE,
        () => `row ${r}: interlace out of range`,
      )
      check(rowBlocks >= 1 && rowBlocks <= PLAN.MAX_BLOCKS - sum, () => `row ${r}: size out of range`)
      check(columns >= 1, () => `row ${r}: no columns`)
      const per = rowBlocks / columns
      check(
        Number.isInteger(per) && (columns === 1 || per % interlace === 0),
        () => `row ${r}: size is not whole interlaces in every column`,
      )
      const refs = this.#take(`row ${r}`, node, firstRef, columns)
      for (const ref of refs) {
        check(ref.flags === 0, () => `row ${r}: unknown flags`)
        const child = this.#nodes[ref.node]
        check(child?.kind === 'component', () => `row ${r}: child is not a component`)
        check((child?.blocks ?? 0) >= per, () => `row ${r}: component is too small`)
      }
      sum += rowBlocks
      found.push({
        interlace: blocks(interlace),
        blocks: blocks(rowBlocks),
        children: refs.map((ref) => ref.node as NodeId),
      })
    }
    this.#nextRow += count
    check(size <= sum, () => `node ${node}: larger than its rows`)
    return found
  }

  #raid5(
    node: number,
    first: number,
    count: number,
    size: number,
    originals: number,
  ): Omit<Raid5Node, 'epoch' | 'replay'> {
    const { view, rowsAt, rows } = this.#t
    check(count === 2 && first === this.#nextRow && count <= rows - first, () => `node ${node}: rows out of order`)
    const at = rowsAt + first * PLAN.ROW_BYTES
    const interlace = u64(view, at + PLAN.ROW_INTERLACE)
    const lines = u64(view, at + PLAN.ROW_BLOCKS)
    const columns = u32(view, at + PLAN.ROW_COUNT)
    const prewrite = u64(view, at + PLAN.ROW_BYTES + PLAN.ROW_INTERLACE)
    const unit = u64(view, at + PLAN.ROW_BYTES + PLAN.ROW_BLOCKS)
    const serving = u32(view, at + PLAN.ROW_BYTES + PLAN.ROW_FIRST)
    const copied = u32(view, at + PLAN.ROW_BYTES + PLAN.ROW_COUNT)
    check(
      interlace >= PLAN.MIN_RAID_INTERLACE && interlace <= PLAN.MAX_INTERLACE,
      () => `row ${first}: interlace out of range`,
    )
    check(
      columns >= originals && columns <= PLAN.MAX_RAID_COLUMNS && originals >= PLAN.MIN_RAID_COLUMNS,
      () => `row ${first}: number of columns out of range`,
    )
    check(
      lines >= 1 && lines <= Math.floor(PLAN.MAX_BLOCKS / interlace / (columns - 1)),
      () => `row ${first}: size out of range`,
    )
    check(
      prewrite >= PLAN.PREWRITE_SPARE + PLAN.PREWRITE_GROUPS * (1 + Math.min(8, interlace)) &&
        prewrite <= PLAN.MAX_PREWRITE,
      () => `row ${first + 1}: prewrite area out of range`,
    )
    check(unit >= 1 && unit <= PLAN.MAX_BLOCKS, () => `row ${first + 1}: unit out of range`)
    check(serving >= originals && serving <= columns, () => `row ${first + 1}: number of columns out of range`)
    check(copied <= serving, () => `row ${first + 1}: copied column out of range`)
    check(copied === 0 || columns === serving + 1, () => `row ${first + 1}: copy is not alone`)
    const refs = this.#take(`row ${first}`, node, u32(view, at + PLAN.ROW_FIRST), columns)
    refs.forEach((ref, k) => {
      check(ref.flags === 0, () => `row ${first}: unknown flags`)
      const child = this.#nodes[ref.node]
      check(child?.kind === 'component', () => `row ${first}: child is not a component`)
      check((child?.blocks ?? 0) - prewrite >= lines * interlace, () => `row ${first}: component is too small`)
      const joining = k >= serving && child?.kind === 'component'
      check(!joining || !child.readable, () => `row ${first}: joining column is readable`)
    })
    this.#nextRow += 2
    check(size <= lines * interlace * (serving - 1), () => `node ${node}: larger than its rows`)
    return {
      kind: 'raid5',
      blocks: blocks(size),
      interlace: blocks(interlace),
      lines,
      originals,
      serving,
      prewrite: blocks(prewrite),
      unit,
      copied: copied === 0 ? null : copied - 1,
      columns: refs.map((ref) => ref.node as NodeId),
    }
  }

  #sides(node: number, first: number, count: number, size: number): readonly MirrorSide[] {
    check(count >= 1 && count <= PLAN.MAX_SIDES, () => `node ${node}: number of sides out of range`)
    const refs = this.#take(`node ${node}`, node, first, count)
    let before = -1
    return refs.map((ref) => {
      check((ref.flags & ~PLAN.REF_KNOWN) === 0, () => `node ${node}: unknown flags`)
      const slot = ref.flags >>> PLAN.REF_SLOT_SHIFT
      check(slot > before, () => `node ${node}: slots out of order`)
      before = slot
      const readable = (ref.flags & PLAN.REF_READABLE) !== 0
      const writable = (ref.flags & PLAN.REF_WRITABLE) !== 0
      const stale = (ref.flags & PLAN.REF_STALE) !== 0
      check(writable || (!readable && !stale), () => `node ${node}: flags contradict each other`)
      const child = this.#nodes[ref.node]
      check(child?.kind !== 'mirror', () => `node ${node}: side is a mirror`)
      check(child?.kind !== 'raid5', () => `node ${node}: side is a RAID5 device`)
      check((child?.blocks ?? 0) >= size, () => `node ${node}: side is too small`)
      return { child: ref.node as NodeId, slot, readable, writable, stale }
    })
  }

  #take(who: string, node: number, first: number, count: number): readonly { node: number; flags: number }[] {
    const { view, refsAt, refs } = this.#t
    check(first === this.#nextRef && count <= refs - first, () => `${who}: references out of order`)
    this.#nextRef += count
    return Array.from({ length: count }, (_, k) => {
      const at = refsAt + (first + k) * PLAN.REF_BYTES
      const child = u32(view, at + PLAN.REF_NODE)
      check(child < node, () => `${who}: child does not come before its parent`)
      check(!this.#used.has(child), () => `${who}: child has two parents`)
      this.#used.add(child)
      return { node: child, flags: u32(view, at + PLAN.REF_FLAGS) }
    })
  }

  /** Only what is redundant has another place to read from. */
  #service(): void {
    const root = this.#nodes.at(-1)
    if (root?.kind === 'mirror' || root?.kind === 'raid5') return
    this.#nodes.forEach((node, i) => {
      check(
        node.kind !== 'component' || (node.readable && node.lastErred === 0),
        () => `node ${i}: out of service without redundancy`,
      )
    })
  }

  #overlaps(): void {
    const parts = this.#nodes.flatMap((node) => (node.kind === 'component' && node.writable ? [node] : []))
    parts.sort((a, b) => a.component - b.component || a.start - b.start)
    parts.forEach((part, i) => {
      const before = parts[i - 1]
      check(
        before === undefined || before.component !== part.component || before.start + before.blocks <= part.start,
        () => `component ${part.component}: ranges overlap`,
      )
    })
  }
}

export const decodePlan = (bytes: Uint8Array): Result<Plan, string> => {
  try {
    const { generation, flags, ...tables } = header(bytes)
    const nodes = new Decoder(tables).all()
    return ok({
      generation,
      nodes,
      labelled: (flags & PLAN.FLAG_LABELLED) !== 0,
      readOnly: (flags & PLAN.FLAG_READ_ONLY) !== 0,
    })
  } catch (error) {
    if (error instanceof Refusal) return err(error.message)
    throw error
  }
}

/** One line per fact, the same text from TypeScript and C++: what the fixtures compare. */
export const describePlan = (plan: Plan): string => {
  const lines = [`generation ${plan.generation}${plan.labelled ? ' labelled' : ''}${plan.readOnly ? ' readonly' : ''}`]
  plan.nodes.forEach((node, i) => {
    if (node.kind === 'component') {
      const service = `${node.readable ? ' readable' : ''}${node.writable ? ' writable' : ''}`
      const erred = node.lastErred > 0 ? ` lastErred ${node.lastErred}` : ''
      lines.push(`node ${i} component ${node.component} start ${node.start} blocks ${node.blocks}${service}${erred}`)
    } else if (node.kind === 'stripe') {
      lines.push(`node ${i} stripe blocks ${node.blocks}`)
      for (const row of node.rows) {
        lines.push(`  row interlace ${row.interlace} blocks ${row.blocks} children ${row.children.join(' ')}`)
      }
    } else if (node.kind === 'raid5') {
      lines.push(`node ${i} raid5 blocks ${node.blocks} epoch ${node.epoch}${node.replay ? ' replay' : ''}`)
      lines.push(
        `  interlace ${node.interlace} lines ${node.lines} originals ${node.originals} serving ${node.serving}${node.copied === null ? '' : ` copied ${node.copied}`}`,
      )
      lines.push(`  prewrite ${node.prewrite} unit ${node.unit} columns ${node.columns.join(' ')}`)
    } else {
      lines.push(`node ${i} mirror blocks ${node.blocks} ${node.read} ${node.write} region ${node.regionBlocks}`)
      for (const side of node.sides) {
        const flags = `${side.readable ? ' readable' : ''}${side.writable ? ' writable' : ''}${side.stale ? ' stale' : ''}`
        lines.push(`  side ${side.child} slot ${side.slot}${flags}`)
      }
    }
  })
  return lines.join('\n') + '\n'
}
