import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import type { Json } from '../../../src/meta/reader.js'
import { decodeUnit, encodeUnit, readTree, recordChanges, recordKey } from '../../../src/meta/records.js'
import { name, text, treeOf } from './world.js'

const TREE = treeOf([
  'd1 2 2 /disks/a /disks/b -i 64k 1 /disks/c',
  'd2 1 4 /disks/d /disks/e /disks/f /disks/g',
  'd0 -m d1 d2 -g -S 3',
])
const stored = (): Map<string, Json> =>
  new Map([...TREE.values()].map((u) => [recordKey(u.name), JSON.parse(JSON.stringify(encodeUnit(u))) as Json]))
type Loose = { [key: string]: Loose }

/** The stored records after `spoil` has changed d1's or another's. */
const spoilt = (of: string, spoil: (r: Loose) => void) => {
  const records = stored()
  const record = structuredClone(records.get(`unit/${of}`)) as unknown as Loose
  spoil(record)
  records.set(`unit/${of}`, record)
  const { tree, errors } = readTree(records)
  return { left: [...tree.keys()].sort(), errors: errors.map(text) }
}

t.test('what is written is read', async (t) => {
  const { tree, errors } = readTree(new Map([...stored(), ['other/x', 5]]))
  t.same(errors, [])
  t.same(tree, TREE)
  const pending = { ...TREE.get(name('d0')), growPending: true } as unknown as Parameters<typeof encodeUnit>[0]
  t.same(decodeUnit('unit/d0', encodeUnit(pending)), { ok: true, value: pending })
})

t.test('version 1 had no component states, and cancelled submirrors', async (t) => {
  const old = (of: string): Loose => structuredClone(stored().get(`unit/${of}`)) as unknown as Loose
  const d1 = old('d1')
  for (const row of Object.values(d1['rows'] ?? {}))
    for (const c of Object.values(row['components'] ?? {}))
      for (const field of ['state', 'erredOrder', 'spare']) Reflect.deleteProperty(c, field)
  const d0 = old('d0')
  for (const field of ['errors', 'regionBlocks', 'cancelled', 'checkpoint']) Reflect.deleteProperty(d0, field)
  const records = stored()
  for (const [key, r] of [
    ['unit/d1', d1],
    ['unit/d0', d0],
  ] as const)
    records.set(key, { ...(r as unknown as { readonly [k: string]: Json }), version: 1 })
  t.same(readTree(records), { tree: TREE, errors: [] })
  Object.assign(d0['submirrors']?.['1'] ?? {}, { state: 'cancelled' })
  t.match(decodeUnit('unit/d0', { ...(d0 as unknown as { readonly [k: string]: Json }), version: 1 }), {
    ok: true,
    value: { cancelled: true, submirrors: [{ state: 'okay' }, { state: 'resync' }] },
  })
  for (const junk of [
    { kind: 'stripe', rows: [null, { components: 5 }] },
    { kind: 'mirror', submirrors: 'x', blocks: -1 },
  ])
    t.match(decodeUnit('unit/d0', { ...junk, version: 1, name: 'd0', minor: 0 }), { ok: false })
  t.match(decodeUnit('unit/d0', { ...(d0 as unknown as { readonly [k: string]: Json }), version: 2 }), { ok: false })
})

t.test('damage is reported with the record and leaves what stands on it out', async (t) => {
  const cases: readonly [string, (r: Loose) => void, RegExp][] = [
    ['later release', (r) => Object.assign(r, { version: 4 }), /written by a later release/],
    ['no version', (r) => delete r['version'], /version/],
    ['kind', (r) => Object.assign(r, { kind: 'raid' }), /unknown kind raid/],
    ['prototype kind', (r) => Object.assign(r, { kind: 'constructor' }), /unknown kind/],
    ['other name', (r) => Object.assign(r, { name: 'd7' }), /is about d7/],
    ['bad name', (r) => Object.assign(r, { name: '../x' }), /name: not a name/],
    ['minor', (r) => Object.assign(r, { minor: 8192 }), /minor/],
    ['rows', (r) => Object.assign(r, { rows: [] }), /rows: not a list/],
    ['rows as object', (r) => Object.assign(r, { rows: { length: 1 } }), /rows: not a list/],
    ['interlace', (r) => Object.assign(r['rows']?.['0'] ?? {}, { interlace: 0 }), /rows\[0\]\.interlace/],
    ['fraction', (r) => Object.assign(r['rows']?.['0'] ?? {}, { blocks: 1.5 }), /rows\[0\]\.blocks/],
    ['row size', (r) => Object.assign(r['rows']?.['0'] ?? {}, { blocks: 4096 }), /size does not follow from the rows/],
    ['row too large', (r) => Object.assign(r['rows']?.['0'] ?? {}, { blocks: 1 << 20 }), /rows\[0\]: size does not/],
    ['row uneven', (r) => Object.assign(r['rows']?.['0'] ?? {}, { blocks: 4098 }), /rows\[0\]: size does not/],
    ['size', (r) => Object.assign(r, { blocks: 2048 }), /size does not follow from the rows/],
    ['start', (r) => Object.assign(r['rows']?.['0']?.['components']?.['1'] ?? {}, { start: 2048 }), /does not follow/],
    ['path', (r) => Object.assign(r['rows']?.['1']?.['components']?.['0'] ?? {}, { path: 7 }), /components\[0\]\.path/],
    ['heads', (r) => Object.assign(r['geometry'] ?? {}, { heads: 0 }), /geometry\.heads/],
  ]
  for (const [what, spoil, message] of cases) {
    const { left, errors } = spoilt('d1', spoil)
    t.same(left, ['d2'], what)
    t.match(errors[0], message, what)
    t.match(errors[0], /^unit\/d1: state database record is damaged: /, what)
    t.match(errors[1], /unit\/d0: .*submirror d1 is not set up/, what)
  }
})

t.test('a stopping point of a copy comes back, of a whole side as of one component', async (t) => {
  const d0 = TREE.get(name('d0'))
  if (d0?.kind !== 'mirror') throw new Error('d0 is a mirror')
  for (const component of [null, 2]) {
    const unit = { ...d0, checkpoint: { slot: 1 as const, component, identity: 'file:1:b', done: blocks(4096) } }
    const record = JSON.parse(JSON.stringify(encodeUnit(unit))) as Json
    t.same(decodeUnit('unit/d0', record), { ok: true, value: unit })
  }
})

t.test('damage of a mirror leaves its submirrors', async (t) => {
  const cases: readonly [string, (r: Loose) => void, RegExp][] = [
    ['too large', (r) => Object.assign(r, { blocks: 1 << 30 }), /smaller than the mirror/],
    ['pass', (r) => Object.assign(r, { pass: 10 }), /pass/],
    ['policy', (r) => Object.assign(r, { read: 'random' }), /read: not one of/],
    ['state', (r) => Object.assign(r['submirrors']?.['0'] ?? {}, { state: 'fine' }), /state: not one of/],
    ['region size', (r) => Object.assign(r, { regionBlocks: 3000 }), /not a power of two/],
    ['checkpoint', (r) => Object.assign(r, { checkpoint: { slot: 1 } }), /checkpoint\./],
    ['slots', (r) => Object.assign(r['submirrors']?.['0'] ?? {}, { slot: 1 }), /slot order/],
    ['twice', (r) => Object.assign(r['submirrors']?.['1'] ?? {}, { unit: 'd1' }), /appears twice/],
    [
      'nothing readable',
      (r) => [0, 1].forEach((i) => Object.assign(r['submirrors']?.[i] ?? {}, { state: 'attached' })),
      /no submirror is readable/,
    ],
  ]
  for (const [what, spoil, message] of cases) {
    const { left, errors } = spoilt('d0', spoil)
    t.same(left, ['d1', 'd2'], what)
    t.equal(errors.length, 1, what)
    t.match(errors[0], message, what)
  }
})

t.test('records that contradict each other', async (t) => {
  t.match(spoilt('d2', (r) => Object.assign(r, { minor: 0 })).errors[0], /minor number 0 is used twice/)
  const records = stored()
  const other = { ...(records.get('unit/d0') as { readonly [k: string]: Json }), name: 'd8', minor: 20 }
  const { tree, errors } = readTree(records.set('unit/d8', other))
  t.same([...tree.keys()].sort(), ['d0', 'd1', 'd2'], 'a submirror has one parent')
  t.match(errors.map(text)[0], /unit\/d8: .*is part of d0/)
  for (const junk of [null, 5, 'x', [], {}, [[[]]], { version: 1 }] as Json[])
    t.match(decodeUnit('unit/d0', junk), { ok: false, error: { code: 'damagedRecord' } })
})

t.test('the changes of an outcome', async (t) => {
  const d1 = TREE.get(name('d1'))
  if (d1 === undefined) throw new Error('d1')
  const changes = recordChanges({ put: [d1], remove: [name('d9')] })
  t.same([...changes.keys()], ['unit/d9', 'unit/d1'])
  t.equal(changes.get('unit/d9'), null)
})
