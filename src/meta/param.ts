/** metaparam: shows or changes policies (commands.md 3.11). */
import { err, ok } from '../base/result.js'
import { type MetaResult, metaError } from '../msg/errors.js'
import { KIND_TITLES } from '../msg/report.js'
import { READ_POLICIES, WRITE_POLICIES } from './mirror.js'
import { parsePoolName, parseUnitName } from './names.js'
import { outcome, type Outcome, unchanged } from './operations.js'
import { hasSpareInUse } from './standing.js'
import { poolOf, takesSpares } from './tree.js'
import type { MirrorUnit, Raid5Unit, StripeUnit, Tree, Unit } from './types.js'

/** null: not given. */
export interface ParamRequest {
  readonly name: string
  readonly read: string | null
  readonly write: string | null
  readonly pass: string | null
  readonly hotSparePool: string | null
}

const READ_WORDS = { roundrobin: 'default', geometric: '-g', first: '-r' } as const
const WRITE_WORDS = { parallel: 'default', serial: '-S' } as const

type Parametric = MirrorUnit | StripeUnit | Raid5Unit
const hasParameters = (unit: Unit): unit is Parametric => unit.kind === 'mirror' || takesSpares(unit)

const lines = (unit: Parametric): readonly string[] =>
  unit.kind === 'mirror'
    ? [
        `${unit.name}: Mirror current parameters are:`,
        `    Pass: ${unit.pass}`,
        `    Read option: ${unit.read} (${READ_WORDS[unit.read]})`,
        `    Write option: ${unit.write} (${WRITE_WORDS[unit.write]})`,
      ]
    : [
        `${unit.name}: ${KIND_TITLES[unit.kind]} current parameters are:`,
        `    Hot spare pool: ${unit.hotSparePool ?? 'none'}`,
      ]

export const param = (request: ParamRequest, tree: Tree): MetaResult<Outcome> => {
  const name = parseUnitName(request.name)
  if (!name.ok) return name
  const unit = tree.get(name.value)
  if (unit === undefined) return err(metaError('unitNotSetUp', name.value))
  if (!hasParameters(unit)) return err(metaError('unknownType', unit.name))
  const { read, write, pass, hotSparePool } = request
  if (read === null && write === null && pass === null && hotSparePool === null)
    return ok(outcome(tree, { changes: [{ change: 'parameters', lines: lines(unit) }] }))
  const changed = unit.kind === 'mirror' ? mirrorWith(unit, request) : sparedWith(unit, request, tree)
  if (!changed.ok) return changed
  return ok(changed.value === unit ? unchanged(tree) : outcome(tree, { put: [changed.value] }))
}

const mirrorWith = (m: MirrorUnit, request: ParamRequest): MetaResult<MirrorUnit> => {
  if (request.hotSparePool !== null) return err(metaError('illegalOption', `${m.name}: "-h"`))
  const read = request.read === null ? m.read : READ_POLICIES.find((p) => p === request.read?.toLowerCase())
  if (read === undefined) return err(metaError('invalidReadOption', `${m.name}: "${request.read ?? ''}"`))
  const write = request.write === null ? m.write : WRITE_POLICIES.find((p) => p === request.write?.toLowerCase())
  if (write === undefined) return err(metaError('invalidWriteOption', `${m.name}: "${request.write ?? ''}"`))
  if (request.pass !== null && !/^\d$/.test(request.pass))
    return err(metaError('invalidPass', `${m.name}: "${request.pass}"`))
  const pass = request.pass === null ? m.pass : Number(request.pass)
  return ok(read === m.read && write === m.write && pass === m.pass ? m : { ...m, read, write, pass })
}

const sparedWith = <U extends StripeUnit | Raid5Unit>(s: U, request: ParamRequest, tree: Tree): MetaResult<U> => {
  const letter = request.read !== null ? '-r' : request.write !== null ? '-w' : request.pass !== null ? '-p' : null
  if (letter !== null) return err(metaError('illegalOption', `${s.name}: "${letter}"`))
  const word = request.hotSparePool ?? 'none'
  const pool = word.toLowerCase() === 'none' ? ok(null) : parsePoolName(word)
  if (!pool.ok) return pool
  if (pool.value !== null && poolOf(tree, pool.value) === null) return err(metaError('invalidHsp', pool.value))
  if (pool.value === s.hotSparePool) return ok(s)
  // The spare would go back to a pool that the metadevice does not know any more.
  if (hasSpareInUse(s)) return err(metaError('hspNotChanged', s.name))
  return ok({ ...s, hotSparePool: pool.value })
}
