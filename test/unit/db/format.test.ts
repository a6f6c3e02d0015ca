import t from 'tap'
import {
  type Image,
  type Listed,
  type RawEntry,
  decodeFrame,
  decodeImage,
  emptyImage,
  encodeDelta,
  encodeFrame,
  encodeFull,
  imageBytes,
  nextImage,
  usableBytes,
} from '../../../src/db/format.js'
import type { Json } from '../../../src/db/types.js'

const A = 'a'.repeat(32)
const B = 'b'.repeat(32)
const listed = (id: string): Listed => ({
  id,
  path: `/r/${id}`,
  place: '/r',
  kind: 'file',
  index: 0,
  firstBlock: 16,
  blocks: 8192,
  identity: null,
})
const image = (): Image => {
  const empty = emptyImage('s'.repeat(32), [listed(A), listed(B)])
  return nextImage(empty, {
    version: { term: 2, epoch: 7 },
    changes: new Map<string, Json>([
      ['unit/d0', { kind: 'stripe', rows: [1, 2, 3] }],
      ['unit/d1', 'é'],
    ]),
  })
}
const replace = (entries: readonly RawEntry[], key: string, value: Uint8Array): RawEntry[] =>
  entries.map((e): RawEntry => (e[0] === key ? [key, value] : e))

t.test('what is written is read', async (t) => {
  const d = decodeImage(encodeFull(image(), A, 5))
  if (!d.ok) throw new Error(d.error.problem)
  t.equal(d.value.id, A)
  t.equal(d.value.promise, 5)
  t.same(d.value.image.version, { term: 2, epoch: 7 })
  t.same(d.value.image.list, [listed(A), listed(B)])
  t.same(
    [...d.value.image.records].map(([k, r]) => [k, r.value]),
    [
      ['unit/d0', { kind: 'stripe', rows: [1, 2, 3] }],
      ['unit/d1', 'é'],
    ],
  )
  t.equal(d.value.image.chain, image().chain)
})

t.test('a delta gives what writing everything gives', async (t) => {
  const before = image()
  const after = nextImage(before, {
    version: { term: 2, epoch: 8 },
    changes: new Map<string, Json | null>([
      ['unit/d0', null],
      ['unit/d2', 1],
    ]),
  })
  const store = new Map(encodeFull(before, A, 5))
  const { puts, removes } = encodeDelta(after, ['unit/d0', 'unit/d2'], A)
  for (const k of removes) store.delete(k)
  for (const [k, v] of puts) store.set(k, v)
  const d = decodeImage([...store])
  t.ok(d.ok && d.value.image.chain === after.chain && d.value.image.records.size === 2)
  t.not(after.chain, nextImage(before, { version: { term: 2, epoch: 8 } }).chain, 'the chain knows the contents')
})

t.test('every flipped bit of every record is found', async (t) => {
  const entries = encodeFull(image(), A, 5)
  for (const [key, value] of entries) {
    for (let bit = 0; bit < value.length * 8; bit++) {
      const bad = Buffer.from(value)
      bad.writeUInt8((bad[bit >> 3] ?? 0) ^ (1 << (bit & 7)), bit >> 3)
      if (decodeImage(replace(entries, key, bad)).ok) t.fail(`${key} bit ${bit}`)
    }
    for (let n = 0; n < value.length; n++) if (decodeFrame(key, value.subarray(0, n)).ok) t.fail(`${key} cut at ${n}`)
  }
  t.pass('all')
})

t.test('records that are whole but wrong', async (t) => {
  const entries = encodeFull(image(), A, 5)
  const problem = (e: readonly RawEntry[]): string => {
    const d = decodeImage(e)
    return d.ok ? 'none' : `${d.error.letter} ${d.error.problem}`
  }
  t.match(problem(entries.filter(([k]) => k !== 'r/unit/d1')), /D records do not add up/, 'lost')
  t.match(problem(entries.filter(([k]) => k !== 'head')), /F head record is missing/)
  const foreign = encodeFull(image(), B, 5).find(([k]) => k === 'r/unit/d0')?.[1] ?? Buffer.alloc(0)
  t.match(problem(replace(entries, 'r/unit/d0', foreign)), /D .*another replica/)
  const other = entries.find(([k]) => k === 'r/unit/d1')?.[1] ?? Buffer.alloc(0)
  t.match(problem(replace(entries, 'r/unit/d0', other)), /D .*another name/)
  const older = encodeFrame(A, 'r/unit/d0', { term: 1, epoch: 3 }, Buffer.from('{"kind":"stripe","rows":[1,2,3]}'))
  t.match(problem(replace(entries, 'r/unit/d0', older)), /D records do not add up/, 'same value, older epoch')
  t.match(problem([]), /F/)
})

t.test('room', async (t) => {
  t.equal(usableBytes(8192), 1024 * 1024)
  const big = nextImage(image(), { version: { term: 2, epoch: 8 }, changes: new Map([['x', 'y'.repeat(100_000)]]) })
  t.ok(imageBytes(big) - imageBytes(image()) >= 100_000)
})
