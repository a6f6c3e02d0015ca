/**
 * Whatever bytes arrive, cut however: the machine does not throw, ends, answers within a bound, and
 * gives the same replies and outcome for every way of cutting. SEED=n replays a run.
 */
import fc from 'fast-check'
import t from 'tap'
import { OPT, OPTION_MAGIC } from '../../../src/nbd/constants.js'
import { HANDSHAKE_DEFAULTS, type HandshakeConfig } from '../../../src/nbd/handshake.js'
import {
  contextData,
  goData,
  option,
  parseReplies,
  run,
  sampleConfig,
  u32,
  u64,
  type Outcome,
} from '../../tools/nbdsession.js'
import { seed } from '../../tools/seed.js'

const parameters = { seed, numRuns: 2000 } as const
t.comment(`SEED=${seed}`)

// Small bounds, so that random sessions meet them.
const tight: HandshakeConfig = { ...sampleConfig, maxOptions: 6, maxOptionBytes: 64, maxSkipBytes: 128 }

const name = fc.constantFrom('d0', 'dsk/d0', 'rdsk/d0', 'd1', 'nope', '', 'd\0', 'x'.repeat(70))
const query = fc.constantFrom('base:', 'base:allocation', 'metadisk:*', 'metadisk:state', '', 'qemu:x')
const anyOption = fc.oneof(
  name.map((n) => option(OPT.exportName, Buffer.from(n))),
  fc
    .tuple(fc.constantFrom(OPT.go, OPT.info), name, fc.array(fc.nat(5), { maxLength: 5 }))
    .map(([o, n, w]) => option(o, goData(n, w))),
  fc
    .tuple(fc.constantFrom(OPT.listMetaContext, OPT.setMetaContext), name, fc.array(query, { maxLength: 4 }))
    .map(([o, n, q]) => option(o, contextData(n, q))),
  fc
    .constantFrom(OPT.list, OPT.startTls, OPT.structuredReply, OPT.extendedHeaders, OPT.abort, 77)
    .map((o) => option(o)),
  fc.tuple(fc.nat(14), fc.uint8Array({ maxLength: 140 })).map(([o, d]) => option(o, Buffer.from(d))),
  fc
    .tuple(fc.nat(14), fc.nat(0xffffffff), fc.uint8Array({ maxLength: 40 }))
    .map(([o, n, d]) => Buffer.concat([u64(OPTION_MAGIC), u32(o), u32(n), Buffer.from(d)])),
)
const session = fc
  .tuple(fc.constantFrom(0, 1, 3, 3, 3, 3, 7), fc.array(anyOption, { maxLength: 9 }), fc.uint8Array({ maxLength: 30 }))
  .map(([flags, options, rest]) => Buffer.concat([u32(flags), ...options, Buffer.from(rest)]))
const mutated = fc
  .tuple(session, fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { maxLength: 3 }), fc.nat(500))
  .map(([bytes, edits, length]) => {
    const copy = Buffer.from(bytes)
    for (const [at, value] of edits) if (at < copy.length) copy[at] = value
    return length % 3 === 0 ? copy.subarray(0, length) : copy
  })
const input = fc.oneof(
  session,
  mutated,
  fc.uint8Array({ maxLength: 300 }).map((b) => Buffer.from(b)),
)

const cut = (bytes: Buffer, cuts: readonly number[]): Buffer[] => {
  const at = [...new Set(cuts.map((c) => c % (bytes.length + 1)))].sort((a, b) => a - b)
  return [...at, bytes.length].map((end, i) => bytes.subarray(i === 0 ? 0 : at[i - 1], end))
}

/** Closing early may leave bytes unread, but what was said and what came of it must agree. */
const essence = ({ output, effect }: Outcome): unknown => {
  if (effect.kind === 'handover')
    return {
      output: output.toString('hex'),
      residual: effect.residual.toString('hex'),
      to: effect.handover.terms,
      name: effect.handover.export.name,
    }
  return { output: output.toString('hex'), effect: { ...effect } }
}

const hex = (o: Outcome): string =>
  JSON.stringify(essence(o), (_k, v: unknown) => (typeof v === 'bigint' ? String(v) : v))

for (const [what, config] of [
  ['default bounds', sampleConfig],
  ['tight bounds', tight],
  ['TLS disabled', { ...tight, tls: 'disabled' }],
] as const) {
  t.test(`cutting changes nothing (${what})`, (t) => {
    fc.assert(
      fc.property(input, fc.array(fc.nat(2000), { maxLength: 12 }), (bytes, cuts) => {
        const whole = run([bytes], config)
        return hex(run(cut(bytes, cuts), config)) === hex(whole)
      }),
      parameters,
    )
    t.pass(`${parameters.numRuns} sessions`)
    t.end()
  })
}

t.test('byte by byte is the same as at once', (t) => {
  let handovers = 0
  fc.assert(
    fc.property(input, (bytes) => {
      const whole = run([bytes], tight)
      if (whole.effect.kind === 'handover') handovers++
      return (
        hex(
          run(
            [...bytes].map((b) => Buffer.from([b])),
            tight,
          ),
        ) === hex(whole)
      )
    }),
    parameters,
  )
  t.ok(handovers > 50, `${handovers} sessions reached the transmission phase`)
  t.end()
})

t.test('output is bounded and well formed', (t) => {
  const one = Math.max(...run([Buffer.concat([u32(3), option(OPT.list)])]).replies.map((r) => r.length)) + 400
  fc.assert(
    fc.property(input, (bytes) => {
      const { output, replies, effect } = run([bytes], { ...sampleConfig, ...HANDSHAKE_DEFAULTS })
      if (Math.max(...replies.map((r) => r.length)) > one) return false
      // EXPORT_NAME's answer is the only one without a frame, and it ends the handshake.
      if (effect.kind !== 'handover') parseReplies(output)
      return output.length <= 18 + one * 16
    }),
    parameters,
  )
  t.pass(`no reply above ${one} bytes`)
  t.end()
})
