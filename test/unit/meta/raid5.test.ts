import t from 'tap'
import { err, ok } from '../../../src/base/result.js'
import { blocks } from '../../../src/base/units.js'
import { compilePlan } from '../../../src/meta/compile.js'
import { CALM, IDLE } from '../../../src/meta/kind.js'
import { kindOf } from '../../../src/meta/kinds.js'
import { clear, param } from '../../../src/meta/operations.js'
import { encodeHeader, decodeHeader, headerOf, type FoundHeader, type Headers } from '../../../src/meta/raid5header.js'
import { decodeUnit, encodeUnit, readTree, recordChanges } from '../../../src/meta/records.js'
import type { Json } from '../../../src/meta/reader.js'
import { standingSpares } from '../../../src/meta/standing.js'
import { statusOf } from '../../../src/meta/status.js'
import { commandEntry, definitionOf, printDefinition } from '../../../src/meta/tab.js'
import { componentsOf, isReferenced, topLevel, usedSlices, withUnits } from '../../../src/meta/tree.js'
import type { Column, Device, Raid5Unit, Tree } from '../../../src/meta/types.js'
import { metaError } from '../../../src/msg/errors.js'
import { encodePlan } from '../../../src/plan/encode.js'
import type { ComponentId } from '../../../src/plan/types.js'
import { decodePlan, describePlan } from '../../../src/plan/verify.js'
import { CYLINDER, device, DISKS, HOST, inventoryOf, metainit, name, refusals, said, text, treeOf } from './world.js'

const raid5In = (tree: Tree, s: string): Raid5Unit => {
  const unit = tree.get(name(s))
  if (unit?.kind !== 'raid5') throw new Error(`no RAID5 ${s}`)
  return unit
}
const parsed = (line: string): string => {
  const entry = commandEntry(line.split(' '))
  if (!entry.ok) return text(entry.error)
  const d = definitionOf(entry.value)
  return d.ok ? printDefinition(d.value) : text(d.error)
}

t.test('definitions', async (t) => {
  for (const line of [
    'd5 -r /a /b /c',
    'd5 -r /a /b /c /d -k -i 64b -w 12 -h hsp001 -o 3',
    'd5 -r /a /b /c -i 2b',
    'd5 -r /a /b /c -o 3',
  ])
    t.equal(parsed(line), line)
  t.equal(parsed('d5 -r /a /b /c -i 32k -k'), 'd5 -r /a /b /c -k -i 64b')
  t.equal(parsed('d5 -r /a /b'), 'd5: invalid RAID configuration')
  t.equal(parsed('d5 -r -k /a /b /c'), 'd5: invalid RAID configuration', 'options come behind')
  t.equal(parsed('d5 -r /a /b /c -o 2'), 'd5: invalid column count')
  t.equal(parsed('d5 -r /a /b /c -o 4'), 'd5: invalid column count')
  t.equal(parsed('d5 -r /a /b /c -o x'), 'd5: invalid column count')
  t.equal(parsed('d5 -r /a /b /c -w 9'), 'd5: simultaneous writes out of range')
  t.equal(parsed('d5 -r /a /b /c -w 101'), 'd5: simultaneous writes out of range')
  t.equal(parsed('d5 -r /a /b /c -i 512'), 'd5: "512": invalid interlace')
  t.equal(parsed('d5 -r /a /b /c -i 101m'), 'd5: "101m": invalid interlace')
  t.equal(parsed('d5 -r /a /b /c -i 1z'), '"1z": invalid interlace')
  t.equal(parsed('d5 -r /a /b /c -q'), 'd5: "-q": illegal option')
  t.equal(parsed('d5 -r /a /b /c -k -k'), 'd5: "-k": syntax error')
  t.equal(parsed('d5 -r /a /b /c -k /d'), 'd5: "/d": syntax error')
  t.equal(parsed('d5 -r /a /b /c -h'), 'd5: "-h": illegal option')
  t.equal(parsed('d5 -r /a /b /c -h 7'), '7: Invalid name for metadevice or hot spare pool.')
  const many = Array.from({ length: 65 }, (_, i) => `/${i}`).join(' ')
  t.equal(parsed(`d5 -r ${many}`), 'd5: a RAID metadevice has at most 64 columns')
})

t.test('a new device is to be initialised; its layout', async (t) => {
  const { outcome } = metainit('d5 -r /disks/a /disks/b /disks/c /disks/d -i 32k')
  t.same(outcome.changes, [{ change: 'setUp', kind: 'raid5', name: 'd5' }])
  const u = raid5In(outcome.tree, 'd5')
  // Slots of 64 blocks, 10 of them; (204800 - 640) div 64 = 3190 lines and nothing left.
  t.match(u, { originals: 4, serving: 4, interlace: 64, lines: 3190, prewrite: 640, slots: 10, regen: false })
  t.match(u, { actualBlocks: 3 * 64 * 3190, blocks: 299 * CYLINDER, errors: 0, checkpoint: null })
  t.same(
    u.columns.map((c) => c.state),
    ['init', 'init', 'init', 'init'],
  )
  t.equal(u.journal.epoch, 1)
  t.ok(u.journal.unit > 0)
  const other = raid5In(metainit('d5 -r /disks/a /disks/b /disks/c').outcome.tree, 'd5')
  t.not(other.journal.unit, u.journal.unit, 'a number of its own')
})

t.test('starts, attached columns, the smallest column, cylinders of the first', async (t) => {
  const inventory = inventoryOf([
    device('c0t0d0s0', 100_000, { labelAtStart: true, geometry: { heads: 10, sectors: 10 } }),
    device('/b', 100_000, { replicaEnd: blocks(8207) }),
    device('/c', 120_000),
    device('/d', 120_000),
  ])
  const u = raid5In(treeOf(['d5 -r c0t0d0s0 /b /c /d -i 16b -o 3'], { inventory }), 'd5')
  t.same(
    u.columns.map((c) => c.start),
    [100, 5 * CYLINDER, 0, 0],
    'a label is never inside the device, not of the first column either',
  )
  // Smallest: 100000 - 10240 = 89760; slots of 16 blocks, 160 of them; 5600 lines.
  t.match(u, { originals: 3, serving: 4, lines: 5600, prewrite: 160, actualBlocks: 3 * 5600 * 16, blocks: 268_800 })
})

t.test('refusals of build', async (t) => {
  const r = (line: string, devices: readonly Device[] = [], options = {}) =>
    refusals(metainit(line, { inventory: inventoryOf([...DISKS, ...devices]), ...options }))
  t.same(r('d5 -r /disks/a /disks/b /none'), ['/none: No such file or directory'])
  t.same(r('d5 -r /disks/a /disks/b /disks/a'), ['/disks/a: has appeared more than once in the specification of d5'])
  t.same(r('d5 -r /disks/a /disks/b /disks/c -h hsp001'), ['hsp001: invalid hotspare pool'])
  t.same(r('d5 -r /disks/a /disks/b /s', [device('/s', 700)]), ['/s: No space left on device'])
  t.same(r('d5 -r /disks/a /disks/b /s -i 2b', [device('/s', 40)]), ['d5: No space left on device'], 'no cylinder')
  const mounted = device('/m', 204800, { usedBy: { how: 'mounted', where: '/mnt' } })
  t.same(r('d5 -r /disks/a /disks/b /m', [mounted], { force: true }), ['/m: is mounted on /mnt'], 'not even with -f')
  const huge = ['/x', '/y', '/z', '/w'].map((n) => device(n, 2 ** 52))
  t.match(r('d5 -r /x /y /z /w', huge), [/^d5: unit size overflow, limit is /])
  const tree = treeOf(['d5 -r /disks/a /disks/b /disks/c'])
  t.same(r('d1 1 1 /disks/b', [], { tree }), ['/disks/b: has appeared more than once in the specification of d5'])
  t.same(r('d1 -m d5', [], { tree }), ['d5: invalid unit'], 'no submirror')
  t.same(r('d1 -r d5 /disks/d /disks/e', [], { tree }), ['d5: is a metadevice'])
})

const ROUND = [
  'd5 -r /disks/a /disks/b /disks/c -i 1000b -w 11',
  'd6 -r /disks/d /disks/e /disks/f /disks/g -o 3 -h hsp1',
]
const TREE = treeOf(['hsp1 /disks/h', ...ROUND])

const changed = (tree: Tree, unit: string, change: (u: Raid5Unit) => Partial<Raid5Unit>): Tree => {
  const u = raid5In(tree, unit)
  return withUnits(tree, [{ ...u, ...change(u) }])
}
const withStates = (tree: Tree, unit: string, states: readonly Column['state'][]): Tree =>
  changed(tree, unit, (u) => ({
    columns: u.columns.map((c, i) => ({ ...c, state: states[i] ?? 'okay', erredOrder: i + 1 })),
  }))
const WHOLE = withStates(withStates(TREE, 'd5', []), 'd6', [])

/** The devices as the device left them: each column's header, as `twist` changes it. */
const headersOf = (u: Raid5Unit, twist: (h: FoundHeader, index: number) => FoundHeader | null = (h) => h): Headers => {
  const byName = new Map(
    u.columns.map((c, i) => {
      const header = headerOf(u, i)
      const decoded = header === null ? null : decodeHeader(encodeHeader(header))
      return [c.name, decoded === null ? null : twist({ header: decoded.header, live: false }, i)]
    }),
  )
  return (d) => ok(byName.get(d.name) ?? null)
}

t.test('-k: what metastat -p prints makes the same device again', async (t) => {
  for (const n of ['d5', 'd6']) {
    const u = raid5In(WHOLE, n)
    const line = kindOf('raid5').toTab(u)
    const pool = treeOf(['hsp1 /disks/h'])
    const again = metainit(line, { tree: pool, headers: headersOf(u), counter: u.minor, now: 1000 })
    t.same(refusals(again), [], line)
    const { journal, ...rest } = raid5In(again.outcome.tree, n)
    const { journal: before, columns, ...same } = u
    t.same(rest, { ...same, columns: columns.map((c) => ({ ...c, erredOrder: 0 })) })
    t.equal(journal.unit, before.unit, 'what its journal has is replayed')
    t.equal(journal.epoch, 1)
  }
  t.equal(kindOf('raid5').toTab(raid5In(WHOLE, 'd5')), 'd5 -r /disks/a /disks/b /disks/c -k -i 1000b -w 11')
  t.equal(
    kindOf('raid5').toTab(raid5In(WHOLE, 'd6')),
    'd6 -r /disks/d /disks/e /disks/f /disks/g -k -i 1024b -h hsp1 -o 3',
  )
  const slices = ['0', '1', '2'].map((n) => device(`c0t${n}d0s0`, 204800))
  const s = raid5In(treeOf(['d1 -r c0t0d0s0 c0t1d0s0 c0t2d0s0'], { inventory: inventoryOf(slices) }), 'd1')
  t.equal(kindOf('raid5').toTab(s), 'd1 -r /dev/rdsk/c0t0d0s0 /dev/rdsk/c0t1d0s0 /dev/rdsk/c0t2d0s0 -k -i 1024b')
})

t.test('-k: a volume of another controller keeps the layout it has', async (t) => {
  // driver.md 4.2 with a maxio of 256: slots of 33 blocks, where ours would have 32.
  const disks = ['/x', '/y', '/z'].map((n) => device(n, 1_000_000))
  const headers: Headers = (d) =>
    ok({
      header: {
        column: disks.indexOf(d),
        unit: 3,
        originals: 3,
        columns: 3,
        interlace: blocks(32),
        lines: 31239,
        slots: 10,
        prewrite: blocks(330),
        dataStart: blocks(330),
        prewriteStart: blocks(0),
        generation: 0,
        journal: 0,
        epoch: 0,
      },
      live: false,
    })
  const made = metainit('d5 -r /x /y /z -k -i 32b', { inventory: inventoryOf(disks), headers })
  t.same(refusals(made), [])
  t.match(raid5In(made.outcome.tree, 'd5'), { lines: 31239, prewrite: 330, slots: 10, columns: [{ state: 'okay' }] })
})

t.test('-k: whose journal is replayed', async (t) => {
  const u = raid5In(WHOLE, 'd5')
  const line = 'd5 -r /disks/a /disks/b /disks/c -k -i 1000b'
  const made = (journals: readonly number[], generations: readonly number[] = []) =>
    raid5In(
      metainit(line, {
        headers: headersOf(u, (h, i) => ({
          ...h,
          header: { ...h.header, journal: journals[i] ?? 0, generation: generations[i] ?? 3, epoch: 4 + (i % 2) },
        })),
      }).outcome.tree,
      'd5',
    ).journal
  t.same(made([77, 77, 77]), { unit: 77, epoch: 5 }, 'nothing that is older than a header')
  t.equal(made([77, 5, 77], [3, 2, 3]).unit, 77, 'one that is behind is not asked')
  for (const some of [
    [0, 0, 0],
    [77, 77, 0],
    [0, 77, 77],
    [77, 78, 77],
  ])
    t.match({ own: ![0, 77, 78].includes(made(some).unit), ...made(some) }, { own: true, epoch: 1 }, some.join(' '))
})

t.test('-k: what is refused', async (t) => {
  const u = raid5In(WHOLE, 'd5')
  const line = 'd5 -r /disks/a /disks/b /disks/c -k -i 1000b'
  const r = (words: string, headers: Headers) => refusals(metainit(words, { headers }))[0]
  const WRONG = 'd5: devices were not RAIDed previously or are specified in the wrong order'
  t.equal(r(line, headersOf(u)), undefined, 'this one is right')
  t.equal(
    r(line, () => ok(null)),
    WRONG,
    'no headers',
  )
  t.equal(r('d5 -r /disks/b /disks/a /disks/c -k -i 1000b', headersOf(u)), WRONG, 'order')
  t.equal(r('d5 -r /disks/a /disks/b /disks/c -k', headersOf(u)), WRONG, 'interlace')
  t.equal(r(`${line} -w 10`, headersOf(u)), WRONG, 'slots')
  t.equal(r(`${line} -w 11`, headersOf(u)), undefined)
  t.equal(r('d5 -r /disks/a /disks/b /disks/c /disks/d -k -i 1000b -o 3', headersOf(u)), WRONG, 'one more')
  t.equal(
    r(line, (d) => err(metaError('sys', d.name, 'Input/output error'))),
    '/disks/a: Input/output error',
  )
  const fields = [
    'column',
    'unit',
    'originals',
    'columns',
    'interlace',
    'lines',
    'slots',
    'prewrite',
    'dataStart',
  ] as const
  for (const field of [...fields, 'prewriteStart'] as const)
    for (const at of field === 'unit' ? [1, 2] : [0, 1, 2])
      for (const by of [1, -1]) {
        const twist = (h: FoundHeader, i: number): FoundHeader =>
          i === at ? { ...h, header: { ...h.header, [field]: h.header[field] + by } } : h
        t.equal(r(line, headersOf(u, twist)), WRONG, `${field} of column ${at}`)
      }
  t.equal(
    r(
      line,
      headersOf(u, (h) => ({ ...h, header: { ...h.header, lines: 0 } })),
    ),
    WRONG,
  )
  t.equal(
    r(
      line,
      headersOf(u, (h) => ({ ...h, header: { ...h.header, lines: u.lines + 1 } })),
    ),
    WRONG,
    'too many lines',
  )
  t.equal(
    r(
      line,
      headersOf(u, (h, i) => ({ ...h, live: i === 1 })),
    ),
    'd5: /disks/b: journal holds writes that are not in place yet; let Solaris open and close the metadevice',
  )
})

t.test('-k: a column that fell behind is not believed', async (t) => {
  const u = raid5In(
    changed(WHOLE, 'd5', () => ({ errors: 7 })),
    'd5',
  )
  const line = 'd5 -r /disks/a /disks/b /disks/c -k -i 1000b'
  const at = (generations: readonly number[]) =>
    metainit(line, {
      headers: headersOf(u, (h, i) => ({ ...h, header: { ...h.header, generation: generations[i] ?? 7 } })),
    })
  t.match(raid5In(at([]).outcome.tree, 'd5'), {
    errors: 7,
    columns: [{ state: 'okay' }, { state: 'okay' }, { state: 'okay' }],
  })
  const { outcome } = at([7, 6])
  t.match(raid5In(outcome.tree, 'd5'), {
    errors: 8,
    columns: [{ state: 'okay' }, { state: 'erred', erredOrder: 8 }, { state: 'okay' }],
  })
  t.match(outcome.warnings, [[/^metainit: d5: WARNING: \/disks\/b is behind the other columns\.$/, /metareplace/]])
  t.match(refusals(at([6, 6])), [/were not RAIDed previously/], 'two columns are not enough')
  t.match(refusals(at([7, 7, 9])), [/were not RAIDed previously/])
})

t.test('records: there and back, and what is damaged is not believed', async (t) => {
  const marked = changed(WHOLE, 'd6', (u) => ({
    checkpoint: { column: 3, identity: 'file:1:g', done: blocks(4096) },
    columns: u.columns.map((c, i) => (i === 3 ? { ...c, state: 'resync' as const, relieves: '/disks/h' } : c)),
  }))
  const records = new Map<string, Json>()
  for (const [key, value] of recordChanges({ put: [...marked.values()], remove: [] }))
    if (value !== null) records.set(key, JSON.parse(JSON.stringify(value)) as Json)
  t.same(readTree(records), { tree: marked, errors: [] })

  type Loose = Record<string, unknown>
  const spoilt = (spoil: (r: Loose) => void): string => {
    const r = structuredClone(records.get('unit/d6')) as unknown as Loose
    spoil(r)
    const { errors } = readTree(new Map([...records, ['unit/d6', r as Json]]))
    return errors.map(text).join('|')
  }
  const columns = (r: Loose): Loose[] => r['columns'] as Loose[]
  const cases: readonly [string, (r: Loose) => void, RegExp][] = [
    ['columns', (r) => (r['columns'] = columns(r).slice(0, 2)), /columns: not a list of 3 to 64/],
    ['one less', (r) => (r['columns'] = columns(r).slice(0, 3)), /columns are not original, serving and others/],
    ['originals', (r) => (r['originals'] = 5), /columns are not original, serving and others/],
    ['serving', (r) => (r['serving'] = 3), /size does not follow from the columns/],
    ['lines', (r) => (r['lines'] = Number(r['lines']) + 1), /size does not follow from the columns/],
    ['interlace', (r) => (r['interlace'] = 1), /interlace: not a number/],
    ['prewrite', (r) => (r['prewrite'] = 41), /prewrite area is too small/],
    ['larger prewrite', (r) => (r['prewrite'] = 20480), /columns\[0\]: too small/],
    ['start', (r) => ((columns(r)[2] ?? {})['start'] = 20480), /columns\[2\]: too small/],
    ['state', (r) => ((columns(r)[1] ?? {})['state'] = 'fine'), /columns\[1\]\.state: not one of/],
    ['blocks', (r) => (r['blocks'] = Number(r['blocks']) - CYLINDER), /size does not follow from the columns/],
    ['epoch', (r) => (r['journal'] = { unit: 5, epoch: 0 }), /journal\.epoch/],
    ['unit', (r) => (r['journal'] = { unit: 0, epoch: 1 }), /journal\.unit/],
    ['checkpoint', (r) => (r['checkpoint'] = { column: 4, identity: 'x', done: 0 }), /checkpoint is beyond/],
    ['checkpoint far', (r) => (r['checkpoint'] = { column: 3, identity: 'x', done: 1e9 }), /checkpoint is beyond/],
    ['regen', (r) => Reflect.deleteProperty(r, 'regen'), /regen: not true or false/],
  ]
  for (const [what, spoil, message] of cases) t.match(spoilt(spoil), message, what)
  t.match(decodeUnit('unit/d6', { ...(encodeUnit(raid5In(WHOLE, 'd6')) as { [k: string]: Json }), version: 4 }), {
    ok: false,
  })
})

t.test('the plan: one node over all columns, their services by state', async (t) => {
  const numbers = new Map<string, number>()
  const component = (c: { readonly name: string }): ComponentId => {
    const id = numbers.get(c.name) ?? numbers.size + 1
    numbers.set(c.name, id)
    return id as ComponentId
  }
  const planOf = (tree: Tree, n: string, replay: boolean) => {
    const plan = compilePlan(raid5In(tree, n), tree, { generation: 4, readOnly: false, component, replay })
    const decoded = decodePlan(encodePlan(plan))
    return decoded.ok ? describePlan(decoded.value).trim().split('\n') : [decoded.error]
  }
  const states = withStates(
    changed(TREE, 'd6', () => ({ journal: { unit: 77, epoch: 9 } })),
    'd6',
    ['erred', 'lastErred', 'resync', 'okay'],
  )
  const { lines, blocks: size } = raid5In(TREE, 'd6')
  const whole = 10240 + lines * 1024
  t.same(planOf(states, 'd6', true), [
    'generation 4',
    `node 0 component 1 start 0 blocks ${whole}`,
    `node 1 component 2 start 0 blocks ${whole} readable writable lastErred 2`,
    `node 2 component 3 start 0 blocks ${whole} writable`,
    `node 3 component 4 start 0 blocks ${whole} readable writable`,
    `node 4 raid5 blocks ${size} epoch 9 replay`,
    `  interlace 1024 lines ${lines} originals 3 serving 4`,
    '  prewrite 10240 unit 77 columns 0 1 2 3',
  ])
  t.match(planOf(WHOLE, 'd5', false).at(-3), /epoch 1$/, 'no replay')
  const slice = device('c0t0d0s0', 204800, { offset: blocks(6144), labelAtStart: true })
  const inventory = inventoryOf([...DISKS, slice])
  const sliced = treeOf(['d1 -r /disks/a c0t0d0s0 /disks/b'], { inventory })
  t.match(planOf(sliced, 'd1', false)[2], /start 8192 /, 'inside its disk, behind the label')
  t.match(planOf(TREE, 'd5', false)[1], /blocks \d+ writable$/, 'to be initialised')
  t.match(planOf(withStates(TREE, 'd5', ['initErred', 'init', 'init']), 'd5', false)[1], /blocks \d+$/)
})

t.test('columns are components: in use, spared, at the top, referring to their pool', async (t) => {
  const d6 = raid5In(TREE, 'd6')
  t.same(
    componentsOf(d6, TREE).map((c) => c.name),
    ['/disks/d', '/disks/e', '/disks/f', '/disks/g'],
  )
  t.same(
    topLevel(treeOf(['d1 1 1 /disks/g', 'd2 -m d1', 'd3 1 1 /disks/h', 'd5 -r /disks/a /disks/b /disks/c'])).map(
      (u) => u.name,
    ),
    ['d2', 'd5', 'd3'],
    'behind mirrors, before stripes',
  )
  t.equal(isReferenced(name('hsp1'), TREE), true)
  const [h] = DISKS.filter((d) => d.name === '/disks/h')
  const spared = changed(WHOLE, 'd6', (u) => ({
    columns: u.columns.map((c, i) =>
      i === 1 && h !== undefined
        ? {
            ...c,
            name: h.name,
            path: h.path,
            identity: h.identity,
            spare: { pool: name('hsp1'), original: { ...c, start: c.start } },
          }
        : c,
    ),
  }))
  t.same([...standingSpares(spared).keys()], ['/disks/h'])
  t.same(
    usedSlices(spared)
      .filter((s) => s.unit === 'd6')
      .map((s) => `${s.slice.name} ${s.spare}`),
    ['/disks/d false', '/disks/h true', '/disks/e false', '/disks/f false', '/disks/g false'],
  )
  const ask = { name: 'd6', read: null, write: null, pass: null, hotSparePool: 'none' }
  t.equal(said(param(ask, spared)), "d6: can't modify hot spare pool, hot spare in use")
  t.match(param(ask, WHOLE), { ok: true, value: { put: [{ name: 'd6', hotSparePool: null }] } })
  t.equal(said(param({ ...ask, pass: '1' }, WHOLE)), 'd6: "-p": illegal option')
  t.match(param({ ...ask, hotSparePool: null }, WHOLE), {
    ok: true,
    value: { changes: [{ lines: ['d6: RAID current parameters are:', '    Hot spare pool: hsp1'] }] },
  })
})

t.test('metaclear', async (t) => {
  const plain = { all: false, force: false, recursive: false, softPartitions: false, names: ['d6'] }
  t.same(refusals(clear(plain, WHOLE, IDLE)), [])
  t.same(clear(plain, WHOLE, IDLE).outcome.changes, [{ change: 'cleared', kind: 'raid5', name: 'd6' }])
  const FORCE = ['d6: operation requires -f (force) flag']
  for (const state of ['erred', 'lastErred', 'resync', 'init', 'initErred'] as const) {
    const bad = withStates(WHOLE, 'd6', ['okay', state])
    t.same(refusals(clear(plain, bad, IDLE)), FORCE, state)
    t.same(refusals(clear({ ...plain, force: true }, bad, IDLE)), [])
    t.same(refusals(clear({ ...plain, recursive: true }, bad, IDLE)), [], '-r implies -f')
  }
  t.same(
    refusals(
      clear(
        plain,
        changed(WHOLE, 'd6', () => ({ regen: true })),
        IDLE,
      ),
    ),
    FORCE,
  )
  for (const facts of [{ isResyncing: () => true }, { isOpen: () => true }])
    t.same(refusals(clear({ ...plain, force: true }, WHOLE, { ...IDLE, ...facts })), ['d6: metadevice is open'])
  const all = treeOf(['d1 1 1 /disks/g', 'd2 -m d1', 'd3 1 1 /disks/h', 'd5 -r /disks/a /disks/b /disks/c'])
  t.same(
    clear({ ...plain, all: true, names: [] }, all, IDLE).outcome.changes.map((c) =>
      c.change === 'cleared' ? c.name : '',
    ),
    ['d5', 'd2', 'd1', 'd3'],
    'RAID5 devices first, by force',
  )
})

t.test('what metastat makes of the states', async (t) => {
  const statuses = (tree: Tree, n: string, live = CALM) => {
    const report = statusOf(tree, live, { stale: false, names: [n] }).report.units.find((u) => u.name === n)
    if (report?.kind !== 'raid5') throw new Error('no report')
    return report
  }
  const d6 = (states: readonly Column['state'][], live = CALM) => {
    const r = statuses(withStates(WHOLE, 'd6', states), 'd6', live)
    return [r.state, r.invoke, r.work?.work ?? null]
  }
  const running = { ...CALM, resync: () => ({ state: 'running' as const, doneBlocks: 5, totalBlocks: 10 }) }
  t.same(d6([]), ['Okay', null, null])
  t.same(d6(['erred']), ['Needs Maintenance', 'metareplace d6 /disks/d <new device>', null])
  t.same(d6(['lastErred', 'erred']), ['Needs Maintenance', 'metareplace -f d6 /disks/e <new device>', null])
  t.same(d6(['lastErred', 'lastErred']), ['Needs Maintenance', 'metareplace -f  d6 /disks/d <new device>', null])
  t.same(d6(['okay', 'resync'], running), ['Resyncing', null, 'resync'])
  t.same(d6(['okay', 'resync']), ['Needs Maintenance', 'metasync d6', null], 'it could not go on')
  t.same(d6(['lastErred', 'resync']), ['Needs Maintenance', 'metareplace -f d6 /disks/e <new device>', null])
  t.same(d6(['init', 'init', 'init', 'init'], running), ['Initializing', null, 'initialisation'])
  t.same(d6(['initErred', 'init', 'init', 'init']), ['Initialization Failed', 'metaclear -f d6', null])
  const missing = (...names: readonly string[]) => ({
    ...CALM,
    isMissing: (c: { name: string }) => names.includes(c.name),
  })
  t.same(d6([], missing('/disks/d')), ['Okay', null, null], 'nobody has opened it yet')
  t.same(d6([], missing('/disks/d', '/disks/e')), ['Unavailable', 'metastat -i ', null])
  t.same(d6(['erred'], missing('/disks/d')), ['Needs Maintenance', 'metareplace d6 /disks/d <new device>', null])
  t.same(d6(['erred'], missing('/disks/e')), ['Unavailable', 'metastat -i ', null])
  t.equal(
    statuses(
      changed(WHOLE, 'd6', () => ({ regen: true })),
      'd6',
      running,
    ).state,
    'Regen',
  )

  const r = statuses(withStates(WHOLE, 'd6', ['okay', 'resync']), 'd6', {
    ...running,
    hasReplica: (c) => c.name === '/disks/e',
  })
  t.match(r, { work: { doneBlocks: 5, totalBlocks: 10 }, size: raid5In(WHOLE, 'd6').blocks, interlace: 1024 })
  const { lines } = raid5In(WHOLE, 'd6')
  t.equal(r.original.size, lines * 1024 * 2)
  t.equal(r.attached?.size, lines * 1024)
  t.match(r.original.columns, [
    { device: '/disks/d', startBlock: 10240, state: 'Okay', hasReplica: false },
    { device: '/disks/e', startBlock: 10240, state: 'Resyncing', hasReplica: true },
  ])
  t.equal(statuses(WHOLE, 'd5').attached, null)

  const growing = changed(withStates(WHOLE, 'd5', []), 'd5', (u) => ({
    columns: [...u.columns, ...u.columns.slice(0, 1).map((c) => ({ ...c, name: '/n', state: 'init' as const }))],
  }))
  const g = statuses(growing, 'd5', running)
  t.same([g.state, g.work?.work, g.attached?.columns[0]?.state], ['Okay', 'initialisation', 'Initializing'])
  t.match(g.tab, /^d5 -r \/disks\/a \/disks\/b \/disks\/c -k/, 'it is not part of the device yet')
  t.notMatch(g.tab, / -o /)
})

t.test('-n, md.tab, success lines', async (t) => {
  const { outcome } = metainit('d5 -r /disks/a /disks/b /disks/c', { check: true })
  t.equal(outcome.tree.size, 0)
  t.same(outcome.changes, [{ change: 'setUp', kind: 'raid5', name: 'd5' }])
  t.same(refusals(metainit('d5', { inventory: HOST }, 'd5 -r /disks/a /disks/b\n')), [
    'md.tab line 1: d5: invalid RAID configuration',
  ])
})
