/**
 * metahs: spares come to and go from pools, are replaced and enabled (commands.md 3.12). Unlike
 * Solaris, which stops in the middle, everything is checked before anything changes.
 */
import { err, ok, type Result } from '../base/result.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import { parsePoolName } from './names.js'
import type { Change } from '../msg/format.js'
import { outcome, type Outcome } from './operations.js'
import { knownSpare, sparesFor } from './pool.js'
import { changedPools, standingSpares } from './standing.js'
import { namesReplicas } from './tab.js'
import { freePoolNumber, isReferenced, poolOf, poolsOf, withUnits } from './tree.js'
import type { Inventory, PoolUnit, Spare, Tree, UnitName } from './types.js'

export type HotSpareAction = 'add' | 'delete' | 'replace' | 'enable'
export interface HotSpareRequest {
  readonly action: HotSpareAction
  /** A name or `all`; null for `enable`, which knows no pool. */
  readonly pool: string | null
  /** Slices as typed: what is added, deleted or enabled; the old and the new one. */
  readonly words: readonly string[]
}
export interface HotSpareContext {
  readonly tree: Tree
  readonly inventory: Inventory
  /** Names under which a word may be configured, also when the device is gone: spares are removed when they are dead. */
  readonly namesOf: (word: string) => readonly string[]
  readonly now: number
}

const isAll = (word: string): boolean => word === 'all' || word === 'ALL'

/** The pools that a word names, in order of creation; the flag says that it was `all`. */
const poolsNamed = (
  word: string,
  tree: Tree,
): MetaResult<{ readonly pools: readonly PoolUnit[]; readonly all: boolean }> => {
  if (isAll(word)) {
    const pools = [...poolsOf(tree)].reverse()
    return pools.length === 0 ? err(metaError('noHsps')) : ok({ pools, all: true })
  }
  const name = parsePoolName(word)
  if (!name.ok) return name
  const pool = poolOf(tree, name.value)
  return pool === null ? err(metaError('invalidHsp', name.value)) : ok({ pools: [pool], all: false })
}

/** The configured spare that a word means, whether or not the host has the device now. */
const spareNamed = (word: string, { tree, inventory, namesOf }: HotSpareContext): MetaResult<Spare> => {
  const device = inventory(word)
  const names = device.ok ? [device.value.name, ...namesOf(word)] : namesOf(word)
  for (const name of names) {
    const spare = knownSpare(tree, name)
    if (spare !== null) return ok(spare)
  }
  return device.ok ? err(metaError('noSuchSpare', device.value.name)) : device
}

const spareError = (code: MetaError['code'], pool: PoolUnit | UnitName, spare: string): Result<never, MetaError> =>
  err(metaError(code, `${typeof pool === 'string' ? pool : pool.name}: ${spare}`))

const add = (word: string, words: readonly string[], context: HotSpareContext): MetaResult<Outcome> => {
  const { tree } = context
  if (isAll(word) && words.length > 0) {
    const named = poolsNamed(word, tree)
    return named.ok ? addTo(named.value.pools, words, context) : named
  }
  const name = parsePoolName(word)
  if (!name.ok) return name
  // Its line of md.tab would be a list of replica places.
  if (namesReplicas(name.value)) return err(metaError('invalidName', word))
  const existing = tree.get(name.value)
  if (existing !== undefined && existing.kind !== 'pool') return err(metaError('nameInUse', name.value))
  if (existing !== undefined && words.length > 0) return addTo([existing], words, context)
  const minor = freePoolNumber(tree)
  if (minor === null) return err(metaError('databaseFull', name.value))
  const fresh: PoolUnit = existing ?? { kind: 'pool', name: name.value, minor, spares: [] }
  if (words.length > 0) return addTo([fresh], words, context)
  const changes: readonly Change[] = [{ change: 'setUp', kind: 'pool', name: name.value }]
  return ok(outcome(tree, existing === undefined ? { put: [fresh], changes } : { changes }))
}

const addTo = (pools: readonly PoolUnit[], words: readonly string[], context: HotSpareContext): MetaResult<Outcome> => {
  const put: PoolUnit[] = []
  for (const pool of pools) {
    const seen = new Set(pool.spares.map((s) => s.name))
    for (const word of words) {
      const device = context.inventory(word)
      if (!device.ok) continue
      if (seen.has(device.value.name)) return spareError('spareThere', pool, device.value.name)
      seen.add(device.value.name)
    }
    const added = sparesFor(pool.name, words, context)
    if (!added.ok) return added
    put.push({ ...pool, spares: [...pool.spares, ...added.value] })
  }
  const changes = pools.map((p): Change => ({ change: 'sparesAdded', name: p.name, count: words.length }))
  return ok(outcome(context.tree, { put, changes }))
}

const deletePool = (pool: PoolUnit, tree: Tree): MetaResult<Outcome> => {
  if (pool.spares.length > 0) return err(metaError('hspBusy', pool.name))
  if (isReferenced(pool.name, tree)) return err(metaError('hspReferenced', pool.name))
  return ok(outcome(tree, { remove: [pool.name], changes: [{ change: 'cleared', kind: 'pool', name: pool.name }] }))
}

const remove = (word: string, words: readonly string[], context: HotSpareContext): MetaResult<Outcome> => {
  const { tree } = context
  // `all` is a name where no slice follows, and not a good one.
  if (isAll(word) && words.length === 0) return err(metaError('invalidName', word))
  const named = poolsNamed(word, tree)
  if (!named.ok) return named
  const { pools, all } = named.value
  const [only] = pools
  if (words.length === 0 && only !== undefined) return deletePool(only, tree)
  const standing = standingSpares(tree)
  const going = new Set<string>()
  for (const w of words) {
    const spare = spareNamed(w, context)
    if (!spare.ok) return spare
    const { name } = spare.value
    const holder = pools.find((p) => p.spares.some((s) => s.name === name))
    if (standing.has(name)) return spareError('spareInUse', holder ?? only ?? (word as UnitName), name)
    if (holder === undefined || going.has(name)) return err(metaError('noSuchSpare', name))
    going.add(name)
  }
  const touched = pools.filter((p) => !all || p.spares.some((s) => going.has(s.name)))
  const put = touched.map((p) => ({ ...p, spares: p.spares.filter((s) => !going.has(s.name)) }))
  const changes = put.map((p, i): Change => ({
    change: 'sparesDeleted',
    name: p.name,
    count: (touched[i]?.spares.length ?? 0) - p.spares.length,
  }))
  return ok(outcome(tree, { put, changes }))
}

/** The new one takes the place in the order of search; under the old one's own name it is a disk that was swapped. */
const replace = (
  word: string,
  [oldWord, newWord, extra]: readonly string[],
  context: HotSpareContext,
): MetaResult<Outcome> => {
  const { tree } = context
  if (oldWord === undefined || newWord === undefined || extra !== undefined) return err(metaError('syntax', word))
  const named = poolsNamed(word, tree)
  if (!named.ok) return named
  const old = spareNamed(oldWord, context)
  if (!old.ok) return old
  const device = context.inventory(newWord)
  if (!device.ok) return device
  const pools = named.value.pools.filter((p) => p.spares.some((s) => s.name === old.value.name))
  const [first] = pools
  if (standingSpares(tree).has(old.value.name))
    return spareError('spareInUse', first ?? (word as UnitName), old.value.name)
  if (first === undefined) return err(metaError('noSuchSpare', old.value.name))
  const changes = pools.map((p): Change => ({
    change: 'spareReplaced',
    name: p.name,
    spare: old.value.name,
    by: device.value.name,
  }))
  if (device.value.name === old.value.name) {
    const again = refreshed(old.value, first, context)
    return again.ok ? ok(outcome(tree, { put: again.value, changes })) : again
  }
  const put: PoolUnit[] = []
  for (const pool of pools) {
    if (pool.spares.some((s) => s.name === device.value.name)) return spareError('spareThere', pool, device.value.name)
    const spares = sparesFor(pool.name, [newWord], context)
    if (!spares.ok) return spares
    const [by] = spares.value
    if (by === undefined) continue
    put.push({ ...pool, spares: pool.spares.map((s) => (s.name === old.value.name ? by : s)) })
  }
  return ok(outcome(tree, { put, changes }))
}

/** Every pool with the spare as its slice is now: Available, and whatever size the slice has by now. */
const refreshed = (spare: Spare, pool: PoolUnit, context: HotSpareContext): MetaResult<readonly PoolUnit[]> => {
  const { tree } = context
  const others = poolsOf(tree).map((p) => ({ ...p, spares: p.spares.filter((s) => s.name !== spare.name) }))
  const checked = sparesFor(pool.name, [spare.name], { ...context, tree: withUnits(tree, others) })
  if (!checked.ok) return checked
  const [fresh] = checked.value
  return ok(fresh === undefined ? [] : changedPools(tree, (s) => (s.name === spare.name ? fresh : s)))
}

/** A spare whose disk was swapped need not be Broken: it is taken as it is now. */
const wasSwapped = (spare: Spare, context: HotSpareContext): boolean => {
  const device = context.inventory(spare.name)
  return device.ok && device.value.identity !== spare.identity
}

const holderOf = (spare: Spare, tree: Tree): PoolUnit | undefined =>
  poolsOf(tree).find((p) => p.spares.some((s) => s.name === spare.name))

const enable = (words: readonly string[], context: HotSpareContext): MetaResult<Outcome> => {
  const standing = standingSpares(context.tree)
  let tree = context.tree
  const changes: Change[] = []
  for (const word of words) {
    const here: HotSpareContext = { ...context, tree }
    const named = spareNamed(word, here)
    if (!named.ok) return named
    const spare = named.value
    const pool = holderOf(spare, tree)
    if (pool === undefined) return err(metaError('noSuchSpare', spare.name))
    if (standing.has(spare.name)) return err(metaError('spareNotEnabled', spare.name))
    const swapped = !spare.broken && wasSwapped(spare, here)
    if (!spare.broken && !swapped) return err(metaError('spareNotBroken', spare.name))
    const fresh = refreshed(spare, pool, here)
    if (!fresh.ok) return fresh
    tree = withUnits(tree, fresh.value)
    changes.push({ change: 'spareEnabled', spare: spare.name })
  }
  const put = poolsOf(tree).filter((p) => context.tree.get(p.name) !== p)
  return ok(outcome(context.tree, { put, changes }))
}

export const metahs = (request: HotSpareRequest, context: HotSpareContext): MetaResult<Outcome> => {
  const { action, words } = request
  if (action === 'enable') return enable(words, context)
  if (request.pool === null) return err(metaError('syntax'))
  switch (action) {
    case 'add':
      return add(request.pool, words, context)
    case 'delete':
      return remove(request.pool, words, context)
    case 'replace':
      return replace(request.pool, words, context)
  }
}
