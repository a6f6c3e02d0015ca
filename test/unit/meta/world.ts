/** An invented host for tests of meta/: devices by name, and short ways to run operations on it. */
import { err, ok } from '../../../src/base/result.js'
import { blocks } from '../../../src/base/units.js'
import { IDLE, type Live } from '../../../src/meta/kind.js'
import { type Batch, init, initEntries, type Outcome } from '../../../src/meta/operations.js'
import { NO_TAB, parseTab } from '../../../src/meta/tab.js'
import { type Headers, NO_HEADERS } from '../../../src/meta/raid5header.js'
import { EMPTY_TREE, stripeOf } from '../../../src/meta/tree.js'
import type { Device, Inventory, MirrorUnit, StripeUnit, Tree, UnitName } from '../../../src/meta/types.js'
import { errorText, type MetaError, metaError } from '../../../src/msg/errors.js'

export const CYLINDER = 2048

/** A file of `size` blocks; anything else is said by `facts`. */
export const device = (name: string, size: number, facts: Partial<Device> = {}): Device => ({
  name,
  path: name,
  identity: `file:1:${name}`,
  extent: { first: blocks(0), blocks: blocks(size) },
  offset: blocks(0),
  size: blocks(size),
  geometry: { heads: 64, sectors: 32 },
  labelAtStart: false,
  replicaEnd: blocks(0),
  isReplica: false,
  usedBy: null,
  ...facts,
})

export const inventoryOf = (devices: readonly Device[]): Inventory => {
  const byName = new Map(devices.map((d) => [d.name, d]))
  return (word) => {
    const d = byName.get(word)
    return d === undefined ? err(metaError('sys', word, 'No such file or directory')) : ok(d)
  }
}

/** Files /disks/a to /disks/h of 100 cylinders each. */
export const DISKS = 'abcdefgh'.split('').map((c) => device(`/disks/${c}`, 100 * CYLINDER))
export const HOST = inventoryOf(DISKS)

export const name = (s: string): UnitName => s as UnitName
export const text = (e: MetaError): string =>
  [e.context, e.object, errorText(e)].filter((s) => s !== undefined && s !== '').join(': ')

export interface InitOptions {
  readonly tree?: Tree
  readonly inventory?: Inventory
  readonly live?: Partial<Live>
  readonly force?: boolean
  readonly check?: boolean
  readonly counter?: number
  readonly now?: number
  readonly headers?: Headers
}

let drawn = 0
const batch = (words: readonly string[], all: boolean, tabText: string, options: InitOptions): Batch => {
  const {
    tree = EMPTY_TREE,
    inventory = HOST,
    live = {},
    force = false,
    check = false,
    counter = 0,
    now = 1000,
    headers = NO_HEADERS,
  } = options
  const failed = (error: MetaError): Batch => ({
    outcome: { tree, put: [], remove: [], changes: [], warnings: [] },
    errors: [error],
  })
  const tab = tabText === '' ? ok(NO_TAB('md.tab')) : parseTab(tabText, 'md.tab')
  if (!tab.ok) return failed(tab.error)
  const entries = initEntries(words, all, tab.value)
  if (!entries.ok) return failed(entries.error)
  // Distinct, and the same in every run.
  const random = (): number => (drawn += 1)
  return init(entries.value, {
    tree,
    inventory,
    live: { ...IDLE, ...live },
    force,
    check,
    counter,
    now,
    random,
    headers,
  })
}
export const metainit = (line: string, options: InitOptions = {}, tab = ''): Batch =>
  batch(line.split(' '), false, tab, options)
export const metainitAll = (tab: string, options: InitOptions = {}): Batch => batch([], true, tab, options)

/** The tree that these definitions make. @throws when one is refused. */
export const treeOf = (lines: readonly string[], options: InitOptions = {}): Tree => {
  let tree = options.tree ?? EMPTY_TREE
  for (const [i, line] of lines.entries()) {
    const { outcome, errors } = metainit(line, { counter: i, ...options, tree })
    if (errors[0] !== undefined) throw new Error(text(errors[0]))
    tree = outcome.tree
  }
  return tree
}
export const stripeIn = (tree: Tree, s: string): StripeUnit => {
  const unit = stripeOf(tree, name(s))
  if (unit === null) throw new Error(`no stripe ${s}`)
  return unit
}
export const mirrorIn = (tree: Tree, s: string): MirrorUnit => {
  const unit = tree.get(name(s))
  if (unit?.kind !== 'mirror') throw new Error(`no mirror ${s}`)
  return unit
}
/** What is said: success by kind of change, or the error. */
export const said = (
  r: { readonly ok: true; readonly value: Outcome } | { readonly ok: false; readonly error: MetaError },
) => (r.ok ? r.value.changes : text(r.error))
export const refusals = (b: Batch): readonly string[] => b.errors.map(text)
