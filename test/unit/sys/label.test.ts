import { spawnSync } from 'node:child_process'
import { closeSync, openSync, readFileSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { LABEL_BYTES, type Label, parseLabel, parseX86, solarisPartitions } from '../../../src/sys/label.js'
import { missing } from '../../tools/foreign.js'
import { efiLabel, mbr, sparcLabel, x86Label } from '../../tools/labels.js'

const SHAPE = { heads: 16, sectors: 63, cylinders: 100 }
const CYLINDER = 16 * 63
const TOTAL = blocks(100 * CYLINDER)
const padded = (label: Buffer): Buffer => Buffer.concat([label, Buffer.alloc(LABEL_BYTES)]).subarray(0, LABEL_BYTES)
const shown = (label: Label | undefined): unknown[] =>
  [...(label?.slices ?? [])].map(([n, s]) => [n, s.first, s.size, s.holdsLabel])

/** Every single bit of a label counts. */
const flips = (label: Buffer, parse: (b: Buffer) => Label | undefined): number => {
  let believed = 0
  for (let bit = 0; bit < label.length * 8; bit++) {
    const bad = Buffer.from(label)
    bad[bit >> 3] = (bad[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    if (parse(bad) !== undefined) believed++
  }
  return believed
}

t.test('SPARC: slices in cylinders of its own geometry, the label inside the one at block 0', async (t) => {
  const label = sparcLabel(
    [
      { slice: 0, first: 0, size: CYLINDER },
      { slice: 7, first: 2 * CYLINDER, size: 2 * CYLINDER },
    ],
    SHAPE,
  )
  const parsed = parseLabel(padded(label), TOTAL)
  t.match(parsed, { kind: 'smi', geometry: { heads: 16, sectors: 63 } })
  t.same(shown(parsed), [
    [0, 0, 1008, true],
    [7, 2016, 2016, false],
  ])
  t.same(shown(parseLabel(padded(label), blocks(3000))), [[0, 0, 1008, true]], 'a slice past the end is not believed')
  t.equal(
    flips(label, (b) => parseLabel(padded(b), TOTAL)),
    0,
    'no flipped bit is believed',
  )
})

t.test('x86: slices count from their fdisk partition', async (t) => {
  const start = blocks(16065)
  const label = x86Label(
    [
      { slice: 0, first: CYLINDER, size: 5 * CYLINDER },
      { slice: 2, first: 0, size: 50 * CYLINDER },
      { slice: 15, first: 6 * CYLINDER, size: 63 },
    ],
    SHAPE,
  )
  const parsed = parseX86(label, start, TOTAL)
  t.match(parsed, { kind: 'smi', geometry: { heads: 16, sectors: 63 } })
  t.same(shown(parsed), [
    [0, 16065 + 1008, 5040, false],
    [2, 16065, 50400, true],
    [15, 16065 + 6048, 63, false],
  ])
  t.same(shown(parseX86(label, start, blocks(16065 + 7000))).length, 2, 'a slice past the end is not believed')
  t.equal(
    flips(label, (b) => parseX86(b, start, TOTAL)),
    0,
  )
  t.equal(parseX86(label.subarray(0, 511), start, TOTAL), undefined)
  t.equal(parseX86(sparcLabel([], SHAPE), start, TOTAL), undefined, 'the other byte order is another label')
})

t.test('fdisk partitions that may be Solaris’s', async (t) => {
  for (const type of [0xbf, 0x82]) t.same(solarisPartitions(mbr(type, 16065, 1000)), [{ first: 16065, size: 1000 }])
  t.same(solarisPartitions(mbr(0x83, 16065, 1000)), [])
  t.same(solarisPartitions(mbr(0xbf, 16065, 0)), [])
  t.same(solarisPartitions(Buffer.alloc(512)), [])
  t.same(solarisPartitions(Buffer.alloc(10)), [])
})

t.test('EFI: both checksums, and the cylinders of 16 MiB that Solaris pretends', async (t) => {
  const label = efiLabel(
    [
      { slice: 0, first: 34, size: 1000 },
      { slice: 8, first: 5000, size: 1 },
    ],
    TOTAL,
  )
  const parsed = parseLabel(label, TOTAL)
  t.match(parsed, { kind: 'efi', geometry: { heads: 128, sectors: 256 } })
  t.same(shown(parsed), [
    [0, 34, 1000, false],
    [8, 5000, 1, false],
  ])
  t.same(shown(parseLabel(label, blocks(5000))), [[0, 34, 1000, false]])
  for (const at of [512, 512 + 16, 512 + 40, 512 + 72, 512 + 84, 1024, 1024 + 32, 1024 + 127 * 128]) {
    const bad = Buffer.from(label)
    bad[at] = (bad[at] ?? 0) ^ 1
    t.equal(parseLabel(bad, TOTAL), undefined, `byte ${at}`)
  }
})

t.test('an unlabelled disk has none', async (t) => {
  t.equal(parseLabel(Buffer.alloc(LABEL_BYTES), blocks(100)), undefined)
  t.equal(parseLabel(Buffer.alloc(10), blocks(0)), undefined)
})

t.test('labels of other people’s tools', { skip: missing('sfdisk') }, async (t) => {
  const path = join(t.testdir(), 'disk')
  closeSync(openSync(path, 'w'))
  const label = (script: string): Label | undefined => {
    truncateSync(path, 0)
    truncateSync(path, 64 << 20)
    const ran = spawnSync('sfdisk', ['-q', path], { input: script, env: { PATH: '/usr/sbin:/sbin:/usr/bin:/bin' } })
    t.equal(ran.status, 0, String(ran.stderr))
    return parseLabel(readFileSync(path).subarray(0, LABEL_BYTES), blocks((64 << 20) / 512))
  }
  t.same(shown(label('label: gpt\n2048,16384\n20480,16384\n')), [
    [0, 2048, 16384, false],
    [1, 20480, 16384, false],
  ])
  const sun = label('label: sun\n1: start=0, size=16065\n8: start=48195, size=32130\n')
  t.same(sun?.geometry, { heads: 255, sectors: 63 })
  t.same(shown(sun), [
    [0, 0, 16065, true],
    [7, 48195, 32130, false],
  ])
})
