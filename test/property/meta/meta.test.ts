/**
 * Properties of names, md.tab, layout and records over invented definitions and devices.
 * A failure prints its seed; SEED=n runs that one again.
 */
import { deepEqual } from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { type Blocks, blocks } from '../../../src/base/units.js'
import { MAX_INTERLACE, parseInterlace } from '../../../src/meta/interlace.js'
import { IDLE, type Definition } from '../../../src/meta/kind.js'
import { kindOf } from '../../../src/meta/kinds.js'
import { locate } from '../../../src/meta/layout.js'
import { isUnitName, parseQualifiedName, parseUnitName } from '../../../src/meta/names.js'
import { attach, clear, detach, init, type Outcome } from '../../../src/meta/operations.js'
import { mdCf } from '../../../src/meta/mdcf.js'
import { NO_HEADERS } from '../../../src/meta/raid5header.js'
import type { Json } from '../../../src/meta/reader.js'
import { decodeUnit, encodeUnit, readTree, recordChanges } from '../../../src/meta/records.js'
import {
  commandEntry,
  componentWords,
  definitionOf,
  parseTab,
  printDefinition,
  printEntry,
  replicaLocations,
  type TabEntry,
} from '../../../src/meta/tab.js'
import { EMPTY_TREE } from '../../../src/meta/tree.js'
import type { StripeUnit, Tree, Unit, UnitName } from '../../../src/meta/types.js'
import { errorText } from '../../../src/msg/errors.js'
import { CYLINDER, device, inventoryOf, metainit } from '../../unit/meta/world.js'
import { seed } from '../../tools/seed.js'

// tap's 30 seconds for a whole file are short when the machine is busy.
t.setTimeout(240_000)

const settings = { seed }
const holds = <T>(arbitrary: fc.Arbitrary<T>, property: (value: T) => boolean | undefined, runs = 300): void =>
  fc.assert(
    fc.property(arbitrary, (value) => property(value) ?? true),
    { ...settings, numRuns: runs },
  )

const letters = 'abcdefghijklmnopqrstuvwxyzABC0123456789._-'.split('')
const unitName: fc.Arbitrary<UnitName> = fc
  .tuple(fc.constantFrom('a', 'b', 'd', 'x', 'Z'), fc.string({ unit: fc.constantFrom(...letters), maxLength: 12 }))
  .map(([head, tail]) => head + tail)
  .filter(isUnitName)
const path = fc
  .string({ unit: fc.constantFrom(...letters, '/', '#', 'é', '\\', '"'), minLength: 1, maxLength: 20 })
  .map((s) => `/${s.replace(/\\+$/, '')}`)
const interlace: fc.Arbitrary<Blocks> = fc.integer({ min: 16, max: MAX_INTERLACE }).map(blocks)
const definition: fc.Arbitrary<Definition> = fc.oneof(
  fc.record({
    kind: fc.constant('stripe' as const),
    name: unitName,
    rows: fc.array(
      fc.record({
        components: fc.array(path, { minLength: 1, maxLength: 5 }),
        interlace: fc.option(interlace, { nil: null }),
      }),
      { minLength: 1, maxLength: 4 },
    ),
    hotSparePool: fc.option(unitName, { nil: null }),
  }),
  fc.record({
    kind: fc.constant('mirror' as const),
    name: unitName,
    submirrors: fc.array(unitName, { minLength: 1, maxLength: 4 }),
    read: fc.constantFrom('roundrobin', 'geometric', 'first'),
    write: fc.constantFrom('parallel', 'serial'),
    pass: fc.integer({ min: 0, max: 9 }),
  }),
  fc.record({ kind: fc.constant('pool' as const), name: unitName, spares: fc.array(path, { maxLength: 5 }) }),
)

t.test('a printed definition is read back as it was', async () => {
  holds(fc.array(definition, { maxLength: 5 }), (all) => {
    const tab = parseTab(all.map((d) => `${printDefinition(d)}\n`).join(''), 'f')
    if (!tab.ok) throw new Error(errorText(tab.error))
    const back = tab.value.entries.map((e) => {
      const d = definitionOf(e)
      if (!d.ok) throw new Error(`${errorText(d.error)} in ${printEntry(e)}`)
      return d.value
    })
    deepEqual(back, structuredClone(all))
    return true
  })
})

t.test('entries survive printing whatever their words are', async () => {
  const word = fc.string({ unit: 'binary', minLength: 1, maxLength: 8 }).filter((s) => !/[ \t\n\r]|\\$/.test(s))
  holds(fc.tuple(unitName, fc.array(word, { maxLength: 6 })), ([n, words]) => {
    const tab = parseTab(`${[n, ...words].join(' ')}\n`, 'f')
    if (!tab.ok) return false
    const [e] = tab.value.entries
    if (e === undefined || e.words.map((w) => w.text).join('\0') !== words.join('\0')) return false
    const again = parseTab(`${printEntry(e)}\n`, 'f')
    return again.ok && again.value.entries[0]?.words.length === e.words.length && again.value.entries[0].type === e.type
  })
})

t.test('positions point at the words', async () => {
  const piece = fc.constantFrom('d0', '1', '-i', '32k', '/a', ' ', '\t', '\\\n', '\n', 'x\\')
  holds(fc.array(piece, { maxLength: 30 }), (pieces) => {
    const text = pieces.join('')
    const lines = text.split('\n')
    const tab = parseTab(text, 'f')
    if (!tab.ok) return true
    return tab.value.entries
      .flatMap((e) => [e.nameWord, ...e.words])
      .every((w) => lines[w.line - 1]?.startsWith(w.text, w.column - 1))
  })
})

t.test('garbage is answered, never thrown at', async () => {
  const odd = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 30 }),
    fc.constantFrom(
      '-m',
      '-r',
      '-i',
      '-h',
      '-k',
      '-o',
      '-w',
      '-g',
      '-S',
      '-',
      '--',
      '-gS',
      '0',
      '1',
      '2',
      '9',
      '10',
      'd0',
      'd1',
      '32k',
    ),
    fc.constantFrom('mddb01', '__proto__', 'constructor', 'all', '/dev/md/dsk/d0', 'a/b', '-c', '-l', '4294967296'),
  )
  holds(
    fc.array(odd, { maxLength: 10 }),
    (words) => {
      const entry = commandEntry(words)
      if (entry.ok) {
        componentWords([entry.value])
        replicaLocations(entry.value)
        const d = definitionOf(entry.value)
        if (d.ok) printDefinition(d.value)
      }
      metainit(words.join(' '))
      for (const w of words) {
        parseUnitName(w)
        parseQualifiedName(w)
        parseInterlace(w, 'd0')
      }
      const tab = parseTab(words.join(' ').replaceAll('9', '\n'), 'f')
      if (tab.ok) for (const e of tab.value.entries) definitionOf(e)
      attach(
        { words, interlace: words[0] ?? null, check: false },
        { tree: EMPTY_TREE, inventory: inventoryOf([]), live: IDLE, now: 0 },
      )
      detach(words, true, EMPTY_TREE, IDLE, 0)
      clear({ all: false, force: true, recursive: true, softPartitions: false, names: words }, EMPTY_TREE, IDLE)
      return true
    },
    1500,
  )
})

/** Devices, some with labels, replicas and other geometry, and a stripe over all of them. */
const layout = fc
  .array(
    fc.record({
      size: fc.integer({ min: 1, max: 60_000 }),
      labelAtStart: fc.boolean(),
      replicaEnd: fc.constantFrom(0, 0, 0, 15, 2048, 8207),
      sectors: fc.constantFrom(32, 63, 424),
      newRow: fc.boolean(),
      interlace: fc.integer({ min: 16, max: 200 }),
    }),
    { minLength: 1, maxLength: 7 },
  )
  .map((parts) => {
    const devices = parts.map((p, i) =>
      device(`/d${i}`, p.size, {
        labelAtStart: p.labelAtStart,
        replicaEnd: blocks(p.replicaEnd),
        geometry: { heads: 16, sectors: p.sectors },
      }),
    )
    const rows: { components: string[]; interlace: Blocks }[] = []
    for (const [i, p] of parts.entries()) {
      const last = rows.at(-1)
      if (p.newRow || last === undefined) rows.push({ components: [`/d${i}`], interlace: blocks(p.interlace) })
      else last.components.push(`/d${i}`)
    }
    const d: Definition = { kind: 'stripe', name: 'd0' as UnitName, rows, hotSparePool: null }
    const inventory = inventoryOf(devices)
    const context = {
      tree: EMPTY_TREE,
      inventory,
      live: IDLE,
      now: 1,
      force: false,
      minor: 0,
      random: 1,
      headers: NO_HEADERS,
    }
    const built = kindOf('stripe').build(d, context)
    return { devices, context, unit: built.ok && built.value.unit.kind === 'stripe' ? built.value.unit : null }
  })

t.test('layout: sizes are whole cylinders and every piece lies inside its component', async () => {
  let made = 0
  holds(
    layout,
    ({ unit, devices }) => {
      if (unit === null) return true
      made++
      const cylinder = unit.geometry.heads * unit.geometry.sectors
      if (unit.blocks % cylinder !== 0 || unit.actualBlocks - unit.blocks >= cylinder) return false
      if (unit.rows.reduce((n, r) => n + r.blocks, 0) !== unit.actualBlocks) return false
      return unit.rows.every((r) =>
        r.components.every((c) => {
          const d = devices.find((x) => x.name === c.name)
          const mine = r.blocks / r.components.length
          if (d === undefined || !Number.isInteger(mine) || c.start + mine > c.size) return false
          if (r.components.length > 1 && mine % r.interlace !== 0) return false
          return c.start > d.replicaEnd || (c.start === 0 && d.replicaEnd === 0)
        }),
      )
    },
    1000,
  )
  t.ok(made > 100, `${made} layouts were possible`)
})

t.test('mapping: every block has one place, runs are contiguous, no place is used twice', async () => {
  const small = layout.map(({ unit }) => unit).filter((u): u is StripeUnit => u !== null && u.blocks < 60_000)
  holds(
    small,
    (unit) => {
      const seen = new Set<number>()
      let b = 0
      while (b < unit.actualBlocks) {
        const place = locate(unit.rows, blocks(b))
        const row = place === null ? undefined : unit.rows[place.row]
        const c = place === null ? undefined : row?.components[place.component]
        if (place === null || row === undefined || c === undefined || place.run < 1) return false
        if (place.block < c.start || place.block + place.run > c.size) return false
        const component = Number(c.name.slice(2))
        for (let i = 0; i < place.run; i++) {
          const key = component * 1e9 + place.block + i
          if (seen.has(key)) return false
          seen.add(key)
        }
        b += place.run
      }
      return b === unit.actualBlocks && locate(unit.rows, unit.actualBlocks) === null
    },
    60,
  )
})

t.test('what metastat -p prints makes the same stripe again, but for interlaces of single components', async () => {
  holds(layout, ({ unit, context }) => {
    if (unit === null) return true
    const tab = parseTab(`${kindOf('stripe').toTab(unit)}\n`, 'f')
    const entry = tab.ok ? tab.value.entries[0] : undefined
    const d = entry === undefined ? undefined : definitionOf(entry)
    const again = d?.ok === true ? kindOf('stripe').build(d.value, context) : undefined
    // A single component smaller than the default interlace is refused without its own.
    if (again?.ok === false) return again.error.code === 'sys'
    const bare = (u: Unit) =>
      u.kind === 'stripe'
        ? { ...u, rows: u.rows.map((r) => (r.components.length > 1 ? r : { ...r, interlace: 0 })) }
        : u
    deepEqual(again === undefined ? undefined : bare(again.value.unit), bare(unit))
    return true
  })
})

t.test('records: what is written is read, what is damaged is refused or sound', async () => {
  const json = fc.jsonValue() as fc.Arbitrary<Json>
  holds(fc.tuple(layout, fc.nat(), json), ([{ unit }, where, junk]) => {
    if (unit === null) return true
    const record = JSON.parse(JSON.stringify(encodeUnit(unit))) as Json
    deepEqual(decodeUnit('unit/d0', record), { ok: true, value: unit })
    const spoilt = JSON.parse(JSON.stringify(record)) as Json
    // Replaces one node of the record, wherever it is, by junk.
    let n = 0
    const walk = (j: Json): void => {
      if (typeof j !== 'object' || j === null) return
      const bag = j as { [key: string]: Json }
      for (const key of Object.keys(bag)) {
        if (n++ === where % 40) bag[key] = junk
        else walk(bag[key] ?? null)
      }
    }
    walk(spoilt)
    const { tree } = readTree(new Map([['unit/d0', spoilt]]))
    for (const u of tree.values())
      for (const r of u.kind === 'stripe' ? u.rows : [])
        for (const c of r.components) if (c.start + r.blocks / r.components.length > c.size) return false
    return true
  })
  holds(fc.tuple(fc.string(), json), ([key, junk]) => {
    decodeUnit(key, junk)
    readTree(new Map([[`unit/${key}`, junk]]))
    return true
  })
})

/** One random operation; refusals are fine, broken trees are not. */
const step = fc.tuple(fc.nat(9), fc.nat(7), fc.nat(7), fc.nat(7), fc.boolean())

const sound = (tree: Tree): boolean => {
  const records = recordChanges({ put: [...tree.values()], remove: [] })
  const whole = new Map([...records].flatMap(([k, v]): [string, Json][] => (v === null ? [] : [[k, v]])))
  const back = readTree(whole)
  const used = [...tree.values()].flatMap((u) => (u.kind === 'stripe' ? u.rows : [])).flatMap((r) => r.components)
  return (
    back.errors.length === 0 &&
    back.tree.size === tree.size &&
    new Set(used.map((c) => c.identity)).size === used.length
  )
}

t.test('any sequence of operations leaves a tree that fits together and a md.cf that makes it again', async () => {
  const devices = Array.from({ length: 8 }, (_, i) => device(`/d${i}`, (i + 3) * CYLINDER))
  const inventory = inventoryOf(devices)
  const apply = (tree: Tree, [what, a, b, c, flag]: readonly [number, number, number, number, boolean]): Tree => {
    const s = `s${a % 4}`
    const m = `m${b % 2}`
    const context = { tree, inventory, live: IDLE, now: 1 }
    const attachOne = (words: readonly string[]): Tree => {
      const r = attach({ words, interlace: flag ? '8k' : null, check: false }, context)
      return r.ok ? r.value.tree : tree
    }
    const line = (words: string): Outcome => metainit(words, { tree, inventory, counter: a }).outcome
    switch (what) {
      case 0:
      case 1:
        return line(`${s} 1 1 /d${c}`).tree
      case 2:
        return line(`${s} 1 2 /d${b} /d${c} -i 8k`).tree
      case 3:
      case 4:
        return line(`${m} -m ${s}${flag ? ` s${c % 4}` : ''}`).tree
      case 5:
        return attachOne([s, `/d${c}`])
      case 6: {
        const r = attach({ words: [m, s], interlace: null, check: false }, context)
        return r.ok ? r.value.tree : tree
      }
      case 7: {
        const r = detach([m, s], flag, tree, IDLE, 1)
        return r.ok ? r.value.tree : tree
      }
      case 8:
        return attachOne([m])
      default:
        return clear(
          { all: false, force: flag, recursive: c > 3, softPartitions: false, names: [c > 5 ? m : s] },
          tree,
          IDLE,
        ).outcome.tree
    }
  }
  holds(fc.array(step, { maxLength: 40 }), (steps) => {
    let tree = EMPTY_TREE
    for (const s of steps) {
      tree = apply(tree, s)
      if (!sound(tree)) return false
    }
    const tab = parseTab(mdCf(tree), 'md.cf')
    if (!tab.ok) return false
    const entries: readonly TabEntry[] = tab.value.entries
    const made = init(entries, {
      tree: EMPTY_TREE,
      inventory,
      live: IDLE,
      now: 1,
      force: false,
      check: false,
      counter: 0,
      random: () => 1,
      headers: NO_HEADERS,
    })
    return made.errors.length === 0 && made.outcome.tree.size === tree.size
  })
})
