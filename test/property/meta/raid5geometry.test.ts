/**
 * Properties of RAID5 layouts over invented devices: every block has one place of its own behind labels and
 * replicas, never where parity is; and what metastat -p and the headers say makes the same device again.
 * A failure prints its seed; SEED=n runs that one again.
 */
import { deepEqual, equal, ok as holdsTrue } from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { ok } from '../../../src/base/result.js'
import { blocks } from '../../../src/base/units.js'
import { compilePlan } from '../../../src/meta/compile.js'
import { kindOf } from '../../../src/meta/kinds.js'
import { decodeHeader, encodeHeader, headerOf, type Headers } from '../../../src/meta/raid5header.js'
import { columnBlocks, locateRaid5 } from '../../../src/meta/raid5geometry.js'
import type { Json } from '../../../src/meta/reader.js'
import { readTree, recordChanges } from '../../../src/meta/records.js'
import { definitionOf, parseTab, printDefinition } from '../../../src/meta/tab.js'
import type { Device, Raid5Unit, UnitName } from '../../../src/meta/types.js'
import { encodePlan } from '../../../src/plan/encode.js'
import type { ComponentId } from '../../../src/plan/types.js'
import { decodePlan } from '../../../src/plan/verify.js'
import { device, inventoryOf, metainit } from '../../unit/meta/world.js'
import { seed } from '../../tools/seed.js'

// tap's 30 seconds for a whole file are short when the machine is busy.
t.setTimeout(240_000)

const settings = { seed, numRuns: 300 }

const devices = fc
  .array(
    fc.record({
      size: fc.integer({ min: 3000, max: 40_000 }),
      labelAtStart: fc.boolean(),
      replicaEnd: fc.constantFrom(0, 0, 0, 15, 2048),
      sectors: fc.constantFrom(32, 63),
      offset: fc.constantFrom(0, 0, 17, 8064),
    }),
    { minLength: 3, maxLength: 9 },
  )
  .map((parts) =>
    parts.map((p, i) =>
      device(`/d${i}`, p.size, {
        labelAtStart: p.labelAtStart,
        replicaEnd: blocks(p.replicaEnd),
        geometry: { heads: 4, sectors: p.sectors },
        offset: blocks(p.offset),
      }),
    ),
  )
const options = fc.record({
  interlace: fc.oneof(fc.integer({ min: 2, max: 40 }), fc.constantFrom(64, 100, 128)),
  attached: fc.integer({ min: 0, max: 4 }),
  slots: fc.option(fc.integer({ min: 10, max: 20 })),
})

interface Case {
  readonly devices: readonly Device[]
  readonly line: string
  readonly unit: Raid5Unit
}
let made = 0
/** null: one of the devices has no room, which is refused. */
const make = (
  all: readonly Device[],
  o: { interlace: number; attached: number; slots: number | null },
): Case | null => {
  const originals = Math.max(3, all.length - o.attached)
  const words = all.map((d) => d.name).join(' ')
  const slots = o.slots === null ? '' : ` -w ${o.slots}`
  const line = `d0 -r ${words} -i ${o.interlace}b${slots}${originals < all.length ? ` -o ${originals}` : ''}`
  const { outcome, errors } = metainit(line, { inventory: inventoryOf(all) })
  const unit = outcome.tree.get('d0' as UnitName)
  if (errors.length > 0 || unit?.kind !== 'raid5') {
    equal(errors[0]?.args?.[0], 'No space left on device')
    return null
  }
  made++
  return { devices: all, line, unit }
}

/** Addresses around every border that matters, and some between. */
const addresses = (u: Raid5Unit): readonly number[] => {
  const striped = u.interlace * u.lines * (u.originals - 1)
  const row = u.interlace * (u.originals - 1)
  const around = [0, u.interlace, row, striped - row, striped, striped + u.interlace * u.lines, u.blocks]
  const near = around.flatMap((b) => [b - 2, b - 1, b, b + 1])
  const between = Array.from({ length: 40 }, (_, i) => Math.floor((u.actualBlocks * i) / 40) + i)
  return [...new Set([...near, ...between])].filter((b) => b >= 0 && b < u.actualBlocks)
}

t.test('every block has a place of its own', async (t) => {
  fc.assert(
    fc.property(devices, options, (all, o) => {
      const c = make(all, o)
      if (c === null) return
      const { unit: u } = c
      for (const [i, column] of u.columns.entries()) {
        const d = all[i]
        holdsTrue(d !== undefined && column.start + columnBlocks(u) <= d.size, 'inside its device')
        holdsTrue(column.start > d.replicaEnd || d.replicaEnd === 0, 'behind replicas')
        holdsTrue(!d.labelAtStart || column.start > 0, 'behind the label')
      }
      holdsTrue(u.blocks <= u.actualBlocks && u.actualBlocks - u.blocks < u.geometry.heads * u.geometry.sectors)
      const places = new Map<string, number>()
      for (const b of addresses(u)) {
        const p = locateRaid5(u, blocks(b))
        const key = `${p.column} ${p.block}`
        equal(places.get(key), undefined, `${b} is where ${places.get(key) ?? ''} is`)
        places.set(key, b)
        holdsTrue(p.column < u.columns.length && p.block < u.lines * u.interlace && p.parity < u.originals)
        holdsTrue(p.parity !== p.column, 'never on its own parity')
        const last = locateRaid5(u, blocks(b + p.run - 1))
        deepEqual([last.column, last.block - p.block], [p.column, p.run - 1], 'a run is contiguous')
      }
    }),
    settings,
  )
  t.ok(made > settings.numRuns / 2, `${made} devices`)
})

t.test('kept, recorded, compiled: the same device', async (t) => {
  fc.assert(
    fc.property(devices, options, (all, o) => {
      const c = make(all, o)
      if (c === null) return
      const unit = { ...c.unit, columns: c.unit.columns.map((x) => ({ ...x, state: 'okay' as const })) }
      const headers: Headers = (d) => {
        const header = headerOf(unit, all.indexOf(d))
        const decoded = header === null ? null : decodeHeader(encodeHeader(header))
        return ok(decoded === null ? null : { header: decoded.header, live: false })
      }
      const line = kindOf('raid5').toTab(unit)
      const tab = parseTab(`${line}\n`, 'f')
      const entry = tab.ok ? tab.value.entries[0] : undefined
      const d = entry === undefined ? undefined : definitionOf(entry)
      equal(d?.ok === true ? printDefinition(d.value) : d, line)
      const again = metainit(line, { inventory: inventoryOf(all), headers })
      deepEqual(again.errors, [], line)
      const same = again.outcome.tree.get('d0' as UnitName)
      deepEqual(same?.kind === 'raid5' ? { ...same, journal: unit.journal } : same, unit)

      const records = new Map<string, Json>()
      for (const [key, value] of recordChanges(again.outcome))
        if (value !== null) records.set(key, JSON.parse(JSON.stringify(value)) as Json)
      deepEqual(readTree(records), { tree: again.outcome.tree, errors: [] })

      const facts = {
        generation: 1,
        readOnly: false,
        component: (m: { name: string }) => Number(m.name.slice(2)) as ComponentId,
      }
      const plan = decodePlan(encodePlan(compilePlan(unit, again.outcome.tree, facts)))
      holdsTrue(plan.ok, plan.ok ? '' : plan.error)
    }),
    settings,
  )
  t.pass('held')
})
