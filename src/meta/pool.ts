/**
 * Hot spare pools: ordered lists of spares. Order is the order of search, so it is kept by everything.
 *
 * Invariants: a pool lists a slice once; a slice in several pools is the same value in each, hence has
 * one state; no spare overlaps a component, a replica or another spare.
 */
import { err, ok } from '../base/result.js'
import { type MetaResult, metaError } from '../msg/errors.js'
import type { PoolReport } from '../msg/report.js'
import { checkSpares } from './check.js'
import { getopt } from './getopt.js'
import type { BuildContext, Built, KindModule, LiveStatus, ParseResult, PoolDefinition } from './kind.js'
import { startBlock } from './layout.js'
import type { Reader } from './reader.js'
import { decodeSlice, sliceOf } from './slice.js'
import { spareState, standingSpares } from './standing.js'
import { poolsOf } from './tree.js'
import type { Device, PoolUnit, Spare, Tree, UnitName } from './types.js'

/** The spare of that name, which every pool that lists it shares. */
export const knownSpare = (tree: Tree, name: string): Spare | null => {
  for (const pool of poolsOf(tree)) {
    const spare = pool.spares.find((s) => s.name === name)
    if (spare !== undefined) return spare
  }
  return null
}

/** A new spare; the error is a slice on which nothing is left behind its label. */
export const spareOf = (d: Device, now: number): MetaResult<Spare> => {
  const { start } = startBlock(d, false)
  if (start >= d.size) return err(metaError('sys', d.name, 'No space left on device'))
  return ok({ ...sliceOf(d, start), labelled: d.labelAtStart, broken: false, changed: now })
}

/** Spares for a pool: those that other pools list already come with the state they have there. */
export const sparesFor = (
  pool: UnitName,
  words: readonly string[],
  context: Pick<BuildContext, 'tree' | 'inventory' | 'now'>,
): MetaResult<readonly Spare[]> => {
  const devices = checkSpares(pool, words, context)
  if (!devices.ok) return devices
  const spares: Spare[] = []
  for (const d of devices.value) {
    const known = knownSpare(context.tree, d.name)
    const spare = known === null ? spareOf(d, context.now) : ok(known)
    if (!spare.ok) return spare
    spares.push(spare.value)
  }
  return ok(spares)
}

/** `hspNNN [slice ...]` (commands.md 2.8). */
const parse = (name: UnitName, words: readonly string[]): ParseResult<PoolDefinition> => {
  const options = getopt(words, 0, '')
  if (!options.ok) {
    const word = options.error
    return err({ ...metaError('illegalOption', `${name}: "${words[word] ?? ''}"`), word })
  }
  return ok({ kind: 'pool', name, spares: words.slice(options.value.next) })
}

const text = (name: UnitName, spares: readonly string[]): string => [name, ...spares].join(' ')

const build = (d: PoolDefinition, context: BuildContext): MetaResult<Built<PoolUnit>> => {
  const spares = sparesFor(d.name, d.spares, context)
  if (!spares.ok) return spares
  return ok({ unit: { kind: 'pool', name: d.name, minor: context.minor, spares: spares.value }, warnings: [] })
}

/** Members keep their short names, unlike components (commands.md 4.8). */
const toTab = (p: PoolUnit): string =>
  text(
    p.name,
    p.spares.map((s) => s.name),
  )

const report = (p: PoolUnit, tree: Tree, live: LiveStatus): PoolReport => {
  const standing = standingSpares(tree)
  return {
    kind: 'pool',
    name: p.name,
    parent: null,
    size: 0,
    spares: p.spares.map((s) => ({
      device: s.name,
      state: spareState(s, standing),
      changed: s.changed,
      size: s.size,
      relocatable: live.deviceId(s) !== null,
    })),
    tab: toTab(p),
  }
}

const decode = (from: Reader, common: { readonly name: UnitName; readonly minor: number }): PoolUnit => ({
  kind: 'pool',
  ...common,
  spares: from.list('spares', 0, 1 << 16, (s) => ({
    ...decodeSlice(s),
    labelled: s.boolean('labelled'),
    broken: s.boolean('broken'),
    changed: s.time('changed'),
  })),
})

/** Two pools that disagree about a spare would let one of them take what the other calls broken. */
const verify = (p: PoolUnit, tree: Tree): string | null => {
  for (const [i, spare] of p.spares.entries()) {
    if (p.spares.findIndex((s) => s.name === spare.name) < i) return `${spare.name} appears twice`
    if (spare.start >= spare.size) return `${spare.name} has no space`
    if (!Number.isSafeInteger(spare.offset + spare.size)) return `${spare.name} ends beyond the last block number`
    const other = poolsOf(tree).find((pool) => {
      const same = pool.spares.find((s) => s.name === spare.name)
      return same !== undefined && JSON.stringify(same) !== JSON.stringify(spare)
    })
    if (other !== undefined) return `${spare.name} differs from that in ${other.name}`
  }
  return null
}

export const pool: KindModule<'pool'> = {
  kind: 'pool',
  driver: 'md_hotspares',
  parse,
  print: (d) => text(d.name, d.spares),
  componentWords: (d) => d.spares,
  build,
  toTab,
  report,
  decode,
  verify,
}
