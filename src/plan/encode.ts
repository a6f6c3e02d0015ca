/**
 * Plan -> bytes, in the layout of constants.ts. Total: it writes what it is given, so that tests can
 * make plans that verify.ts and the engine must refuse; callers use encodeChecked.
 */
import { assert, unreachable } from '../base/result.js'
import { PLAN } from './constants.js'
import { crc32c } from './crc.js'
import type { ComponentService, MirrorNode, MirrorSide, Plan } from './types.js'
import { decodePlan } from './verify.js'

const READ: Record<MirrorNode['read'], number> = {
  roundrobin: PLAN.READ_ROUNDROBIN,
  geometric: PLAN.READ_GEOMETRIC,
  first: PLAN.READ_FIRST,
}
const WRITE: Record<MirrorNode['write'], number> = { parallel: PLAN.WRITE_PARALLEL, serial: PLAN.WRITE_SERIAL }

const componentFlags = (c: ComponentService): number =>
  (c.readable ? PLAN.COMPONENT_READABLE : 0) | (c.writable ? PLAN.COMPONENT_WRITABLE : 0)

const sideFlags = (s: MirrorSide): number =>
  (s.readable ? PLAN.REF_READABLE : 0) |
  (s.writable ? PLAN.REF_WRITABLE : 0) |
  (s.stale ? PLAN.REF_STALE : 0) |
  (s.slot << PLAN.REF_SLOT_SHIFT)

interface Ref {
  readonly node: number
  readonly flags: number
}
interface Row {
  readonly interlace: number
  readonly blocks: number
  readonly first: number
  readonly count: number
}

export const encodePlan = (plan: Plan): Uint8Array => {
  const rows: Row[] = []
  const refs: Ref[] = []
  const spans = plan.nodes.map((node) => {
    switch (node.kind) {
      case 'component':
        return { first: node.lastErred, count: 0 }
      case 'stripe': {
        const first = rows.length
        for (const row of node.rows) {
          rows.push({ interlace: row.interlace, blocks: row.blocks, first: refs.length, count: row.children.length })
          for (const child of row.children) refs.push({ node: child, flags: 0 })
        }
        return { first, count: node.rows.length }
      }
      case 'mirror': {
        const first = refs.length
        for (const side of node.sides) refs.push({ node: side.child, flags: sideFlags(side) })
        return { first, count: node.sides.length }
      }
      case 'raid5': {
        const first = rows.length
        rows.push({ interlace: node.interlace, blocks: node.lines, first: refs.length, count: node.columns.length })
        rows.push({
          interlace: node.prewrite,
          blocks: node.unit,
          first: node.serving,
          count: node.copied === null ? 0 : node.copied + 1,
        })
        for (const child of node.columns) refs.push({ node: child, flags: 0 })
        return { first, count: 2 }
      }
      default:
        return unreachable(node)
    }
  })

  const nodesAt = PLAN.HEADER_BYTES
  const rowsAt = nodesAt + plan.nodes.length * PLAN.NODE_BYTES
  const refsAt = rowsAt + rows.length * PLAN.ROW_BYTES
  const total = refsAt + refs.length * PLAN.REF_BYTES
  const bytes = new Uint8Array(total)
  const view = new DataView(bytes.buffer)
  const u16 = (at: number, value: number): void => view.setUint16(at, value, true)
  const u32 = (at: number, value: number): void => view.setUint32(at, value, true)
  const u64 = (at: number, value: number): void => view.setBigUint64(at, BigInt(value), true)

  u32(0, PLAN.MAGIC)
  u16(PLAN.OFFSET_VERSION, PLAN.VERSION)
  u16(PLAN.OFFSET_HEADER_BYTES, PLAN.HEADER_BYTES)
  u32(PLAN.OFFSET_TOTAL, total)
  u64(PLAN.OFFSET_GENERATION, plan.generation)
  u32(PLAN.OFFSET_FLAGS, (plan.labelled ? PLAN.FLAG_LABELLED : 0) | (plan.readOnly ? PLAN.FLAG_READ_ONLY : 0))
  u32(PLAN.OFFSET_NODES, plan.nodes.length)
  u32(PLAN.OFFSET_ROWS, rows.length)
  u32(PLAN.OFFSET_REFS, refs.length)

  plan.nodes.forEach((node, i) => {
    const at = nodesAt + i * PLAN.NODE_BYTES
    u64(at + PLAN.NODE_BLOCKS, node.blocks)
    u32(at + PLAN.NODE_FIRST, spans[i]?.first ?? 0)
    u32(at + PLAN.NODE_COUNT, spans[i]?.count ?? 0)
    switch (node.kind) {
      case 'component':
        view.setUint8(at, PLAN.KIND_COMPONENT)
        view.setUint8(at + PLAN.NODE_FLAGS, componentFlags(node))
        u32(at + PLAN.NODE_COMPONENT, node.component)
        u64(at + PLAN.NODE_START, node.start)
        return
      case 'stripe':
        view.setUint8(at, PLAN.KIND_STRIPE)
        return
      case 'mirror':
        view.setUint8(at, PLAN.KIND_MIRROR)
        view.setUint8(at + PLAN.NODE_READ, READ[node.read])
        view.setUint8(at + PLAN.NODE_WRITE, WRITE[node.write])
        u64(at + PLAN.NODE_START, node.regionBlocks)
        return
      case 'raid5':
        view.setUint8(at, PLAN.KIND_RAID5)
        view.setUint8(at + PLAN.NODE_FLAGS, node.replay ? PLAN.RAID_REPLAY : 0)
        u32(at + PLAN.NODE_COMPONENT, node.originals)
        u64(at + PLAN.NODE_START, node.epoch)
        return
      default:
        return unreachable(node)
    }
  })
  rows.forEach((row, i) => {
    const at = rowsAt + i * PLAN.ROW_BYTES
    u64(at + PLAN.ROW_INTERLACE, row.interlace)
    u64(at + PLAN.ROW_BLOCKS, row.blocks)
    u32(at + PLAN.ROW_FIRST, row.first)
    u32(at + PLAN.ROW_COUNT, row.count)
  })
  refs.forEach((ref, i) => {
    const at = refsAt + i * PLAN.REF_BYTES
    u32(at + PLAN.REF_NODE, ref.node)
    u32(at + PLAN.REF_FLAGS, ref.flags)
  })
  u32(PLAN.OFFSET_CRC, crc32c(bytes, PLAN.OFFSET_CRC))
  return bytes
}

/** Encodes and reads back: a plan the engine would refuse is a bug of whoever compiled it. */
export const encodeChecked = (plan: Plan): Uint8Array => {
  const bytes = encodePlan(plan)
  const back = decodePlan(bytes)
  assert(back.ok, back.ok ? '' : `plan refused: ${back.error}`)
  return bytes
}
