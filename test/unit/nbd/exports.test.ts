import t from 'tap'
import { makeExportTable, parseExportName, type ExportUnit } from '../../../src/nbd/exports.js'

const unit = (name: string, over: Partial<ExportUnit> = {}): ExportUnit => ({
  name,
  device: 3,
  sizeBytes: 512n,
  readOnly: false,
  description: 'concat/stripe',
  preferredBlockBytes: 0,
  trims: true,
  ...over,
})

t.test('names', (t) => {
  for (const [name, expected] of [
    ['d0', { unit: 'd0', raw: false }],
    ['dsk/d0', { unit: 'd0', raw: false }],
    ['rdsk/d0', { unit: 'd0', raw: true }],
    ['/dev/md/dsk/d0', { unit: 'd0', raw: false }],
    ['/dev/md/rdsk/d0', { unit: 'd0', raw: true }],
    ['blue/d0', { unit: 'blue/d0', raw: false }],
    ['blue/dsk/d0', { unit: 'blue/d0', raw: false }],
    ['/dev/md/blue/rdsk/d0', { unit: 'blue/d0', raw: true }],
    ['', undefined],
    ['/dev/md/', undefined],
    ['rdsk/', undefined],
    ['dsk/rdsk/d0', undefined],
    ['a/b/d0', undefined],
    ['/d0', undefined],
    ['//d0', undefined],
  ] as const)
    t.same(parseExportName(name), expected, JSON.stringify(name))
  t.end()
})

t.test('table follows the units of the moment', (t) => {
  let units = [unit('d0', { sizeBytes: 1000n })]
  const table = makeExportTable(() => units, { maxRequestBytes: 32 << 20 })
  t.match(table.lookup('d0'), { name: 'd0', minBlockBytes: 1, device: 3, sizeBytes: 1000n })
  t.match(table.lookup('/dev/md/rdsk/d0'), { name: 'rdsk/d0', minBlockBytes: 512, device: 3 })
  t.match(table.lookup(''), { name: 'd0' }, 'one metadevice is the default export')
  t.equal(table.lookup('d1'), undefined)
  units = [unit('d0', { sizeBytes: 2000n }), unit('blue/d1', { readOnly: true })]
  t.match(table.lookup('d0'), { sizeBytes: 2000n }, 'growth is seen')
  t.equal(table.lookup(''), undefined, 'no default export among two')
  t.match(table.lookup('blue/rdsk/d1'), { name: 'blue/rdsk/d1', readOnly: true })
  t.same(
    table.list().map((e) => e.name),
    ['d0', 'blue/d1'],
  )
  t.end()
})

t.test('block sizes obey the protocol', (t) => {
  const of = (preferredBlockBytes: number, maxRequestBytes = 32 << 20): unknown =>
    makeExportTable(() => [unit('d0', { preferredBlockBytes })], { maxRequestBytes }).lookup('d0')
  t.match(of(0), { preferredBlockBytes: 4096 })
  t.match(of(16384), { preferredBlockBytes: 16384 })
  t.match(of(48 * 1024), { preferredBlockBytes: 32768 }, 'a power of two')
  t.match(of(100), { preferredBlockBytes: 512 })
  t.match(of(2 ** 30, 64 << 20), { preferredBlockBytes: 32 << 20 })
  t.match(of(1 << 20, 70_000), { preferredBlockBytes: 65536, maxRequestBytes: 69_632 })
  t.end()
})
