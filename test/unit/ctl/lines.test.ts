import t from 'tap'
import type { Line } from '../../../src/ctl/lines.js'
import { LineReader, encodeLine, fitsLine } from '../../../src/ctl/lines.js'
import { MAX_LINE_BYTES } from '../../../src/ctl/protocol.js'

const bytes = (s: string): Buffer => Buffer.from(s)
const obj = (value: Record<string, unknown>): Line => ({ kind: 'object', value })

t.test('a line cut anywhere reads the same, also inside a UTF-8 character', (t) => {
  const text = bytes('{"op":"ping","x":"é€😀"}\n{"op":"stat"}\n')
  for (let cut = 0; cut <= text.length; cut++) {
    const r = new LineReader()
    const got = [...r.push(text.subarray(0, cut)), ...r.push(text.subarray(cut))]
    t.strictSame(got, [obj({ op: 'ping', x: 'é€😀' }), obj({ op: 'stat' })], `cut at ${cut}`)
    t.equal(r.end(), false)
  }
  t.end()
})

t.test('byte by byte', (t) => {
  const r = new LineReader()
  const got: Line[] = []
  for (const b of bytes(`{"a":"${'x'.repeat(500)}"}\n`)) got.push(...r.push(Uint8Array.of(b)))
  t.strictSame(got, [obj({ a: 'x'.repeat(500) })])
  t.end()
})

t.test('an oversized line is dropped as it arrives and the next one is read', (t) => {
  const r = new LineReader(100)
  t.strictSame(r.push(bytes('{"a":"' + 'x'.repeat(90))), [])
  t.ok(r.heldBytes <= 100)
  for (let i = 0; i < 50; i++) {
    t.strictSame(r.push(bytes('y'.repeat(1000))), [])
    t.equal(r.heldBytes, 0)
  }
  t.strictSame(r.push(bytes('"}\n{"b":1}\n')), [{ kind: 'problem', problem: 'tooLong' }, obj({ b: 1 })])
  t.end()
})

t.test('exactly the bound is accepted, one more is not', (t) => {
  const line = (n: number): string => `{"a":"${'x'.repeat(n - 8)}"}`
  t.equal(line(64).length, 64)
  t.strictSame(new LineReader(64).push(bytes(line(64) + '\n')), [obj({ a: 'x'.repeat(56) })])
  t.strictSame(new LineReader(64).push(bytes(line(65) + '\n')), [{ kind: 'problem', problem: 'tooLong' }])
  t.end()
})

t.test('garbage is a problem of its own line only', (t) => {
  const r = new LineReader()
  t.strictSame(r.push(bytes('nonsense\n[1]\n3\nnull\n"s"\n{"ok":true}\n')), [
    { kind: 'problem', problem: 'notJson' },
    { kind: 'problem', problem: 'notJson' },
    { kind: 'problem', problem: 'notJson' },
    { kind: 'problem', problem: 'notJson' },
    { kind: 'problem', problem: 'notJson' },
    obj({ ok: true }),
  ])
  t.strictSame(r.push(Uint8Array.of(0x7b, 0xff, 0xfe, 0x7d, 0x0a)), [{ kind: 'problem', problem: 'notUtf8' }])
  t.strictSame(r.push(bytes('\n  \r\n{"ok":1}\r\n')), [obj({ ok: 1 })], 'empty lines and CR are ignored')
  t.end()
})

t.test('the end tells whether a line was cut', (t) => {
  const r = new LineReader()
  t.equal(r.end(), false)
  r.push(bytes('{"a"'))
  t.equal(r.end(), true)
  t.equal(r.end(), false)
  t.end()
})

t.test('random chunks of random lines', (t) => {
  let seed = Number(process.env['SEED'] ?? 12345)
  t.comment(`SEED=${seed}`)
  const next = (n: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0
    return (seed >>> 8) % n
  }
  const want: Line[] = []
  let text = ''
  for (let i = 0; i < 300; i++) {
    if (next(5) === 0) {
      text += `garbage ${i}\n`
      want.push({ kind: 'problem', problem: 'notJson' })
    } else {
      const v = { i, s: 'ü'.repeat(next(40)) }
      text += JSON.stringify(v) + '\n'
      want.push(obj(v))
    }
  }
  const all = bytes(text)
  const r = new LineReader()
  const got: Line[] = []
  for (let at = 0; at < all.length;) {
    const n = 1 + next(200)
    got.push(...r.push(all.subarray(at, at + n)))
    at += n
  }
  t.strictSame(got, want)
  t.end()
})

t.test('encoded lines hold one newline and know when they are too long', (t) => {
  const line = encodeLine({ op: 'stat', probe: false, names: ['a\nb'] })
  t.equal(line.indexOf('\n'), line.length - 1)
  t.equal(fitsLine(line), true)
  t.equal(fitsLine(encodeLine({ op: 'stat', probe: false, names: ['é'.repeat(MAX_LINE_BYTES / 2)] })), false)
  t.end()
})
