/** The control socket's edge: a JSON object becomes a Request or one sentence saying what is wrong with it. */
import type { Request } from '../ctl/protocol.js'
import type { LineObject } from '../ctl/lines.js'
import { err, ok, type Result } from '../base/result.js'

type Check = (value: unknown) => boolean
const isString: Check = (v) => typeof v === 'string' && v.length <= 4096 && !v.includes('\0')
const isBoolean: Check = (v) => typeof v === 'boolean'
const isNatural: Check = (v) => Number.isSafeInteger(v) && (v as number) >= 0
const isWords: Check = (v) => Array.isArray(v) && v.length <= 4096 && v.every(isString)
const isVerify: Check = (v) => v === 'check' || v === 'repair'
const isHotSpareAction: Check = (v) => v === 'add' || v === 'delete' || v === 'replace' || v === 'enable'
const orNull =
  (check: Check): Check =>
  (v) =>
    v === null || check(v)

const FIELDS: { readonly [O in Request['op']]: Readonly<Record<string, Check>> } = {
  init: { cwd: isString, check: isBoolean, force: isBoolean, all: isBoolean, words: isWords },
  clear: {
    check: isBoolean,
    all: isBoolean,
    force: isBoolean,
    recursive: isBoolean,
    softPartitions: isBoolean,
    names: isWords,
  },
  attach: { cwd: isString, check: isBoolean, interlace: orNull(isString), words: isWords },
  detach: { force: isBoolean, words: isWords },
  param: {
    name: isString,
    read: orNull(isString),
    write: orNull(isString),
    pass: orNull(isString),
    hotSparePool: orNull(isString),
  },
  offline: { force: isBoolean, mirror: isString, submirror: isString },
  online: { force: isBoolean, mirror: isString, submirror: isString },
  replace: { cwd: isString, force: isBoolean, unit: isString, old: isString, new: orNull(isString) },
  sync: {
    cancel: isBoolean,
    parity: isBoolean,
    restart: isBoolean,
    verify: orNull(isVerify),
    bufferBlocks: orNull(isNatural),
    names: isWords,
  },
  hotspare: { cwd: isString, action: isHotSpareAction, pool: orNull(isString), words: isWords },
  stat: { probe: isBoolean, names: isWords },
  dbAdd: { cwd: isString, force: isBoolean, count: isNatural, length: orNull(isNatural), words: isWords },
  dbDelete: { cwd: isString, force: isBoolean, words: isWords },
  dbList: {},
  dbLocations: { cwd: isString, file: orNull(isString) },
  ping: {},
}

const isOp = (op: unknown): op is Request['op'] => typeof op === 'string' && Object.hasOwn(FIELDS, op)

/** Unknown fields are refused too: a newer command must not have half of its request ignored. */
export const validateRequest = (value: LineObject): Result<Request, string> => {
  const op = value['op']
  if (!isOp(op)) return err(`unknown request ${JSON.stringify(op)?.slice(0, 64) ?? 'without op'}`)
  const fields = FIELDS[op]
  for (const [name, check] of Object.entries(fields)) if (!check(value[name])) return err(`${op}: bad field ${name}`)
  for (const name of Object.keys(value))
    if (name !== 'op' && !Object.hasOwn(fields, name)) return err(`${op}: unknown field ${name.slice(0, 64)}`)
  return ok(value as unknown as Request)
}
