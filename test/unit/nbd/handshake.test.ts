import t from 'tap'
import * as nbd from '../../../src/nbd/constants.js'
import { OPT, REP } from '../../../src/nbd/constants.js'
import { greeting, transmissionFlags } from '../../../src/nbd/handshake.js'
import {
  FIXED,
  MODERN,
  clientFlags,
  contextData,
  exportInfo,
  goData,
  haggle,
  option,
  parseReplies,
  run,
  sampleConfig,
  u16,
  u32,
  u64,
} from '../../tools/nbdsession.js'

const types = (bytes: Buffer): number[] => parseReplies(bytes).map((r) => r.type)
const { FLAG } = nbd
const WRITABLE =
  FLAG.hasFlags |
  FLAG.sendFlush |
  FLAG.sendFua |
  FLAG.sendTrim |
  FLAG.sendWriteZeroes |
  FLAG.canMultiConn |
  FLAG.sendCache |
  FLAG.sendFastZero

t.test('greeting is the fixed newstyle one with NO_ZEROES', (t) => {
  t.equal(greeting().toString('hex'), Buffer.from('NBDMAGICIHAVEOPT').toString('hex') + '0003')
  t.end()
})

t.test('transmission flags', (t) => {
  t.equal(transmissionFlags(exportInfo(), false), WRITABLE)
  t.equal(transmissionFlags(exportInfo(), true), WRITABLE | FLAG.sendDf)
  t.equal(transmissionFlags(exportInfo({ trims: false }), false), WRITABLE & ~FLAG.sendTrim)
  const readOnly = transmissionFlags(exportInfo({ readOnly: true }), true)
  t.equal(readOnly, FLAG.hasFlags | FLAG.readOnly | FLAG.sendFlush | FLAG.canMultiConn | FLAG.sendCache | FLAG.sendDf)
  t.end()
})

t.test('client flags', (t) => {
  t.match(run([clientFlags(MODERN)]).effect, { kind: 'read' })
  t.match(run([clientFlags(4)]).effect, { kind: 'close', reason: 'unknown client flags' })
  t.match(run([clientFlags(0x80000001)]).effect, { kind: 'close' })
  t.match(run([clientFlags(0), option(OPT.list)]).effect, { kind: 'close', reason: /fixed newstyle/ })
  t.match(run([clientFlags(0), option(OPT.exportName, Buffer.from('d0'))]).effect, { kind: 'handover' })
  t.match(run([Buffer.concat([clientFlags(MODERN), Buffer.from('GET')])]).effect, { kind: 'close', reason: /magic/ })
  t.end()
})

t.test('EXPORT_NAME', (t) => {
  const padded = run([clientFlags(FIXED), option(OPT.exportName, Buffer.from('d0'))])
  t.equal(padded.output.length, 8 + 2 + 124)
  t.equal(padded.output.readBigUInt64BE(0), 1_048_576n)
  t.equal(padded.output.readUInt16BE(8), WRITABLE)
  t.ok(padded.output.subarray(10).every((b) => b === 0))
  const short = run([haggle(option(OPT.exportName, Buffer.from('dsk/d0')), Buffer.from('request'))])
  t.equal(short.output.length, 10)
  t.match(short.effect, { kind: 'handover', residual: Buffer.from('request'), handover: { export: { name: 'd0' } } })
  for (const name of ['nope', 'd0\0', '', 'x'.repeat(4097)]) {
    const gone = run([haggle(option(OPT.exportName, Buffer.from(name)))])
    t.match(gone.effect, { kind: 'close' }, `${name.slice(0, 8)} is refused by disconnect`)
    t.equal(gone.output.length, 0)
  }
  const structured = run([haggle(option(OPT.structuredReply), option(OPT.exportName, Buffer.from('d0')))])
  t.equal(structured.output.readUInt16BE(20 + 8), WRITABLE | FLAG.sendDf)
  const extended = run([haggle(option(OPT.extendedHeaders), option(OPT.exportName, Buffer.from('d0')))])
  t.match(extended.effect, { kind: 'close' }, 'not allowed with extended headers')
  t.end()
})

t.test('GO and INFO', (t) => {
  const all = [nbd.INFO.export, nbd.INFO.name, nbd.INFO.description, nbd.INFO.blockSize, 77, nbd.INFO.name]
  const info = run([haggle(option(OPT.info, goData('rdsk/d0', all)))])
  t.match(info.effect, { kind: 'read' })
  const replies = parseReplies(info.output)
  t.ok(replies.every((r) => r.option === OPT.info))
  t.same(
    replies.map((r) => (r.type === REP.info ? r.data.readUInt16BE(0) : 'ack')),
    [nbd.INFO.export, nbd.INFO.name, nbd.INFO.description, nbd.INFO.blockSize, 'ack'],
  )
  t.same(replies[0]?.data, Buffer.concat([u16(0), u64(1_048_576n), u16(WRITABLE)]))
  t.same(replies[1]?.data, Buffer.concat([u16(1), Buffer.from('rdsk/d0')]))
  t.same(replies[2]?.data, Buffer.concat([u16(2), Buffer.from('a stripe')]))
  t.same(replies[3]?.data, Buffer.concat([u16(3), u32(512), u32(4096), u32(33_554_432)]))

  const go = run([haggle(option(OPT.structuredReply), option(OPT.go, goData('d1')), Buffer.from('early'))])
  t.match(go.effect, {
    kind: 'handover',
    residual: Buffer.from('early'),
    handover: {
      export: { name: 'd1', device: 1 },
      terms: { structuredReplies: true, extendedHeaders: false, contexts: [], readOnly: true, minBlockBytes: 1 },
    },
  })
  t.same(types(go.output), [REP.ack, REP.info, REP.info, REP.ack])

  t.same(types(run([haggle(option(OPT.go, goData('nope')))]).output), [REP.errUnknown])
  t.match(run([haggle(option(OPT.go, goData('nope')))]).effect, { kind: 'read' }, 'the client may try another')
  for (const [what, data] of [
    ['empty', Buffer.alloc(0)],
    ['no count', u32(2)],
    ['name longer than data', Buffer.concat([u32(9), Buffer.from('d0'), u16(0)])],
    ['missing information types', Buffer.concat([u32(2), Buffer.from('d0'), u16(2), u16(3)])],
    ['bytes behind', Buffer.concat([goData('d0'), Buffer.from('x')])],
    ['NUL', goData('d\0')],
    ['not UTF-8', Buffer.concat([u32(1), Buffer.from([0xff]), u16(0)])],
  ] as const)
    t.same(types(run([haggle(option(OPT.go, data))]).output), [REP.errInvalid], what)
  t.same(types(run([haggle(option(OPT.go, goData('x'.repeat(4097))))]).output), [REP.errTooBig])
  t.end()
})

t.test('LIST', (t) => {
  const list = parseReplies(run([haggle(option(OPT.list))]).output)
  t.same(
    list.map((r) => [r.type, r.data.toString('latin1')]),
    [
      [REP.server, '\0\0\0\x02d0a stripe'],
      [REP.server, '\0\0\0\x02d1a stripe'],
      [REP.ack, ''],
    ],
  )
  t.same(types(run([haggle(option(OPT.list, Buffer.from('x')))]).output), [REP.errInvalid])
  t.end()
})

t.test('STRUCTURED_REPLY and EXTENDED_HEADERS', (t) => {
  const S = option(OPT.structuredReply)
  const X = option(OPT.extendedHeaders)
  t.same(types(run([haggle(S, S)]).output), [REP.ack, REP.errInvalid])
  t.same(types(run([haggle(X, X)]).output), [REP.ack, REP.errInvalid])
  t.same(types(run([haggle(X, S)]).output), [REP.ack, REP.errExtHeaderReqd])
  t.same(types(run([haggle(S, X)]).output), [REP.ack, REP.ack])
  t.same(types(run([haggle(option(OPT.structuredReply, u32(0)), option(OPT.extendedHeaders, u32(0)))]).output), [
    REP.errInvalid,
    REP.errInvalid,
  ])
  t.match(run([haggle(X, option(OPT.go, goData('d0')))]).effect, {
    handover: { terms: { extendedHeaders: true, structuredReplies: true } },
  })
  t.match(run([haggle(option(OPT.go, goData('d0')))]).effect, {
    handover: { terms: { extendedHeaders: false, structuredReplies: false } },
  })
  t.end()
})

t.test('metadata contexts', (t) => {
  const S = option(OPT.structuredReply)
  const listed = (queries: string[]): string[] =>
    parseReplies(run([haggle(S, option(OPT.listMetaContext, contextData('d0', queries)))]).output)
      .filter((r) => r.type === REP.metaContext)
      .map((r) => `${r.data.readUInt32BE(0)} ${r.data.subarray(4).toString()}`)
  t.same(listed([]), ['0 base:allocation', '0 metadisk:state'])
  t.same(listed(['base:']), ['0 base:allocation'])
  t.same(listed(['metadisk:']), ['0 metadisk:state'])
  t.same(listed(['metadisk:*']), ['0 metadisk:state'])
  t.same(listed(['base:allocation', 'base:', 'qemu:dirty-bitmap:x']), ['0 base:allocation'])

  const chosen = (name: string, queries: string[], goTo: string): unknown => {
    const { effect } = run([
      haggle(S, option(OPT.setMetaContext, contextData(name, queries)), option(OPT.go, goData(goTo))),
    ])
    return effect.kind === 'handover' ? effect.handover.terms.contexts : effect
  }
  const ALLOCATION = { id: 1, name: 'base:allocation' }
  const STATE = { id: 2, name: 'metadisk:state' }
  t.same(chosen('d0', ['base:allocation'], 'd0'), [ALLOCATION])
  t.same(chosen('d0', ['base:allocation'], 'dsk/d0'), [ALLOCATION], 'two names, one export')
  t.same(chosen('d0', ['metadisk:*', 'base:allocation', 'base:allocation'], 'd0'), [ALLOCATION, STATE])
  t.same(chosen('d0', ['base:', 'base:other', ''], 'd0'), [], 'a bare namespace selects nothing')
  t.same(chosen('d0', ['base:allocation'], 'd1'), [], 'chosen for another export')
  t.same(chosen('d0', ['base:allocation'], 'rdsk/d0'), [], 'the raw export is another one')

  const set = option(OPT.setMetaContext, contextData('d0', ['base:allocation']))
  const ids = parseReplies(run([haggle(S, set)]).output)
  t.same(ids[1]?.data, Buffer.concat([u32(1), Buffer.from('base:allocation')]))
  const again = run([haggle(S, set, option(OPT.setMetaContext, contextData('d0', [])), option(OPT.go, goData('d0')))])
  t.match(again.effect, { handover: { terms: { contexts: [] } } }, 'the last choice counts')
  const failed = run([haggle(S, set, option(OPT.setMetaContext, contextData('no', [])), option(OPT.go, goData('d0')))])
  t.match(failed.effect, { handover: { terms: { contexts: [] } } }, 'a failed choice clears the last one')
  t.same(types(failed.output).slice(3, 4), [REP.errUnknown])

  t.same(types(run([haggle(set)]).output), [REP.errInvalid], 'needs structured replies')
  t.same(types(run([haggle(option(OPT.extendedHeaders), set)]).output), [REP.ack, REP.metaContext, REP.ack])
  for (const [what, data] of [
    ['lying count', Buffer.concat([u32(2), Buffer.from('d0'), u32(0xffffffff)])],
    ['bytes behind', Buffer.concat([contextData('d0', []), u32(0)])],
    ['query longer than data', Buffer.concat([u32(2), Buffer.from('d0'), u32(1), u32(50), Buffer.from('base:')])],
    ['no count', Buffer.concat([u32(2), Buffer.from('d0')])],
  ] as const)
    t.same(types(run([haggle(S, option(OPT.listMetaContext, data))]).output), [REP.ack, REP.errInvalid], what)
  t.end()
})

t.test('ABORT is acknowledged and ends', (t) => {
  const gone = run([haggle(option(OPT.abort))])
  t.same(types(gone.output), [REP.ack])
  t.match(gone.effect, { kind: 'close', orderly: true })
  t.end()
})

t.test('STARTTLS', (t) => {
  t.same(types(run([haggle(option(OPT.startTls))]).output), [REP.errUnsup])
  const disabled = { ...sampleConfig, tls: 'disabled' as const }
  t.same(types(run([haggle(option(OPT.startTls))], disabled).output), [REP.errPolicy])
  const available = { ...sampleConfig, tls: 'available' as const }
  const begun = run([haggle(option(OPT.structuredReply), option(OPT.startTls))], available)
  t.match(begun.effect, { kind: 'startTls' })
  t.same(types(begun.output), [REP.ack, REP.ack])
  const injected = run([haggle(option(OPT.startTls), option(OPT.list))], available)
  t.match(injected.effect, { kind: 'close', reason: 'data behind STARTTLS' })
  t.end()
})

t.test('unknown options and bounds', (t) => {
  for (const number of [0, 4, 12, 0x7fffffff, 0xffffffff])
    t.same(types(run([haggle(option(number, Buffer.from('abc')))]).output), [REP.errUnsup], `option ${number}`)
  const big = Buffer.alloc(sampleConfig.maxOptionBytes + 1)
  t.same(types(run([haggle(option(OPT.go, big), option(OPT.list))]).output).slice(0, 2), [REP.errTooBig, REP.server])
  t.same(types(run([haggle(option(99, big), option(OPT.abort))]).output), [REP.errUnsup, REP.ack])
  const exact = run([haggle(option(OPT.go, Buffer.alloc(sampleConfig.maxOptionBytes)))])
  t.same(types(exact.output), [REP.errInvalid], 'at the bound it is read')
  const huge = Buffer.concat([u64(nbd.OPTION_MAGIC), u32(99), u32(sampleConfig.maxSkipBytes + 1)])
  t.match(run([haggle(huge)]).effect, { kind: 'close', reason: 'option data too long' })
  const many = Array.from({ length: sampleConfig.maxOptions }, () => option(99))
  t.match(run([haggle(...many)]).effect, { kind: 'read' })
  t.match(run([haggle(...many, option(99))]).effect, { kind: 'close', reason: 'too many options' })
  t.end()
})
