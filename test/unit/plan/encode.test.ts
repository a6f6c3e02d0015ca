import * as fc from 'fast-check'
import { readFileSync, readdirSync } from 'node:fs'
import { resolve } from 'node:path'
import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { IN_SERVICE, PlanBuilder } from '../../../src/plan/builder.js'
import { crc32c } from '../../../src/plan/crc.js'
import { encodeChecked, encodePlan } from '../../../src/plan/encode.js'
import { constantsHeader } from '../../../src/plan/header.js'
import type { NodeId, Plan } from '../../../src/plan/types.js'
import { decodePlan, describePlan } from '../../../src/plan/verify.js'
import { fixtures, fixtureText, id, stripe } from './fixtures.js'

/** Tests are started from the top of the checkout. */
const top = process.cwd()

const anyPlan: fc.Arbitrary<Plan> = fc
  .record({
    generation: fc.maxSafeNat(),
    labelled: fc.boolean(),
    readOnly: fc.boolean(),
    sides: fc.array(
      fc.record({
        state: fc.constantFrom(
          'okay' as const,
          'stale' as const,
          'resync' as const,
          'offline' as const,
          'coming' as const,
        ),
        service: fc.constantFrom(
          IN_SERVICE,
          { readable: true, writable: true, lastErred: 0xffffffff },
          { readable: false, writable: true, lastErred: 0 },
          { readable: false, writable: false, lastErred: 0 },
        ),
        gap: fc.boolean(),
        rows: fc.array(
          fc.record({
            columns: fc.integer({ min: 1, max: 5 }),
            interlace: fc.integer({ min: 16, max: 204800 }),
            pieces: fc.integer({ min: 1, max: 1000 }),
            spare: fc.integer({ min: 0, max: 99 }),
          }),
          { minLength: 1, maxLength: 4 },
        ),
      }),
      { minLength: 1, maxLength: 4 },
    ),
    top: fc.constantFrom('mirror' as const, 'stripe' as const),
    read: fc.constantFrom('roundrobin' as const, 'geometric' as const, 'first' as const),
    write: fc.constantFrom('parallel' as const, 'serial' as const),
    region: fc.constantFrom(0, 2 ** 20, 2 ** 52),
  })
  .map((shape) => {
    const b = new PlanBuilder()
    let next = 0
    const mirrored = shape.top === 'mirror'
    const stripeOf = (side: (typeof shape.sides)[number]): NodeId =>
      b.addStripe(
        side.rows.map((row) => {
          const per = row.interlace * row.pieces
          const children = Array.from({ length: row.columns }, () =>
            b.addComponent(
              id(next++),
              blocks(row.spare * 2048),
              blocks(per + row.spare),
              mirrored ? side.service : IN_SERVICE,
            ),
          )
          return { interlace: blocks(row.interlace), blocks: blocks(per * row.columns), children }
        }),
      )
    const [head] = shape.sides
    if (head === undefined) throw new Error('fast-check made no side')
    if (!mirrored) {
      stripeOf(head)
    } else {
      // Slots ascend and may have a gap below them.
      const sides = shape.sides.map((s, i) => ({
        child: stripeOf(s),
        slot: shape.sides.length < 4 && head.gap ? i + 1 : i,
        readable: s.state === 'okay' || s.state === 'stale',
        writable: s.state !== 'offline',
        stale: s.state === 'stale' || s.state === 'coming',
      }))
      const size = Math.min(...sides.map((s) => b.sizeOf(s.child)))
      b.addMirror(sides, blocks(size), shape.read, shape.write, blocks(shape.region))
    }
    return b.finish({ generation: shape.generation, labelled: shape.labelled, readOnly: shape.readOnly })
  })

t.test('decode after encode is the identity', (t) => {
  fc.assert(
    fc.property(anyPlan, (plan) => {
      const back = decodePlan(encodeChecked(plan))
      t.strictSame(back, { ok: true, value: plan })
      if (back.ok) t.strictSame(encodePlan(back.value), encodePlan(plan))
    }),
    { numRuns: 200 },
  )
  t.end()
})

t.test('any changed byte is noticed', (t) => {
  const bytes = encodePlan(stripe())
  for (let i = 0; i < bytes.length; i++) {
    const changed = bytes.slice()
    changed[i] = (changed[i] ?? 0) ^ 0x10
    if (decodePlan(changed).ok) t.fail(`byte ${i}`)
  }
  t.end()
})

t.test('garbage is refused and never throws', (t) => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => !decodePlan(bytes).ok))
  t.end()
})

t.test('fixtures on disk are those of fixtures.ts and both outcomes hold', (t) => {
  const dir = resolve(top, 'test/fixtures/plan')
  const cases = fixtures()
  t.strictSame(readdirSync(dir).sort(), cases.map((f) => `${f.name}.txt`).sort())
  for (const f of cases) {
    t.equal(readFileSync(resolve(dir, `${f.name}.txt`), 'utf8'), fixtureText(f), `${f.name}: file`)
    const back = decodePlan(f.bytes)
    if ('refused' in f.expect) t.strictSame(back, { ok: false, error: f.expect.refused }, f.name)
    else t.equal(back.ok ? describePlan(back.value) : back.error, f.expect.plan, f.name)
  }
  t.end()
})

t.test('the header of the engine states the same constants', (t) => {
  t.equal(readFileSync(resolve(top, 'native/plan/constants.h'), 'utf8'), constantsHeader())
  t.end()
})

t.test('crc32c has the value every implementation gives for "123456789"', (t) => {
  t.equal(crc32c(Buffer.from('123456789')), 0xe3069283)
  t.end()
})

t.test('the builder refuses what would be a bug', (t) => {
  const b = new PlanBuilder()
  t.throws(() => b.finish({ generation: 1, labelled: false, readOnly: false }), /needs a node/)
  const c = b.addComponent(id(1), blocks(0), blocks(100))
  t.throws(() => b.sizeOf(5 as NodeId), /no node 5/)
  b.addComponent(id(2), blocks(0), blocks(100))
  t.throws(() => b.finish({ generation: 1, labelled: false, readOnly: false }), /one parent/)
  const row = { interlace: blocks(16), blocks: blocks(100), children: [c] }
  t.throws(() => b.addStripe([row, row]), /has a parent already/)
  t.end()
})
