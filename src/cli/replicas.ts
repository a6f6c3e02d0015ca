/** The list of metadb (commands.md 5.3): flags, first block, block count, place. Nothing for no replicas. */
import type { ReplicaReport } from '../msg/report.js'
import { printable } from '../msg/format.js'
import { column } from './columns.js'

const number = (n: number | null): string => (n === null ? 'unknown' : String(n))

export const replicaList = (replicas: readonly ReplicaReport[]): string => {
  if (replicas.length === 0) return ''
  const heading = `\t${column('flags', 5, 5)}\t\t${column('first blk', 9, 9)}\t${column('block count', 11, 11)}\n`
  const rows = replicas.map(
    (r) => `${r.flags.padEnd(20)}\t${number(r.firstBlock)}\t\t${number(r.blocks)}\t\t${printable(r.path)}\n`,
  )
  return heading + rows.join('')
}
