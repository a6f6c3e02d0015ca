import t from 'tap'
import type { Reply } from '../../../src/ctl/protocol.js'
import type { StatReport } from '../../../src/msg/report.js'
import { done, run } from './fake.js'
import { busy, pool } from './reports.js'

const report: StatReport = {
  ...busy,
  units: [...busy.units, pool('hsp001', [['vdx', 'Available', 2048]]), pool('hsp002', [])],
  show: [...busy.show, 'hsp001', 'hsp002'],
}
const stat = (show: readonly string[], relocation = report.relocation): Reply => ({
  reply: 'stat',
  report: { ...report, show, relocation },
})

t.test('words become requests', async (t) => {
  const asked = async (line: string): Promise<unknown> => (await run(t, line)).asked[0]
  const request = { op: 'hotspare', cwd: '/here' }
  t.same(await asked('metahs -a hsp001'), { ...request, action: 'add', pool: 'hsp001', words: [] })
  t.same(await asked('metahs -a all vdx vdy'), { ...request, action: 'add', pool: 'all', words: ['vdx', 'vdy'] })
  t.same(await asked('metahs -d hsp001 vdx'), { ...request, action: 'delete', pool: 'hsp001', words: ['vdx'] })
  t.same(await asked('metahs -e vdx vdy'), { ...request, action: 'enable', pool: null, words: ['vdx', 'vdy'] })
  t.same(await asked('metahs -r all vdx vdy'), { ...request, action: 'replace', pool: 'all', words: ['vdx', 'vdy'] })
})

t.test('what is done is said in SVM words, and the status is the daemon’s', async (t) => {
  const said = async (change: Extract<Reply, { reply: 'change' }>['change']): Promise<string> =>
    (await run(t, 'metahs -a hsp001 vdx', [[{ reply: 'change', change }, done()]])).out
  t.equal(await said({ change: 'setUp', kind: 'pool', name: 'hsp001' }), 'hsp001: Hotspare pool is setup\n')
  t.equal(await said({ change: 'sparesAdded', name: 'hsp001', count: 1 }), 'hsp001: Hotspare is added\n')
  t.equal(await said({ change: 'sparesAdded', name: 'hsp001', count: 2 }), 'hsp001: Hotspares are added\n')
  t.equal(await said({ change: 'sparesDeleted', name: 'hsp001', count: 1 }), 'hsp001: Hotspare is deleted\n')
  t.equal(await said({ change: 'sparesDeleted', name: 'hsp001', count: 3 }), 'hsp001: Hotspares are deleted\n')
  t.equal(await said({ change: 'cleared', kind: 'pool', name: 'hsp001' }), 'hsp001: Hotspare pool is cleared\n')
  t.equal(
    await said({ change: 'spareReplaced', name: 'hsp001', spare: 'vdx', by: 'vdy' }),
    'hsp001: Hotspare vdx is replaced with vdy\n',
  )
  t.equal(await said({ change: 'spareEnabled', spare: 'vdx' }), 'hotspare vdx is enabled\n')
  const stale = await run(t, 'metahs -d hsp001 vdx', [[{ reply: 'error', error: { code: 'stale' } }, done(66)]])
  t.same([stale.status, stale.err], [66, 'metahs: ada: stale databases\n\n'])
})

t.test('usage: exactly one of -a -d -e -r -i, with its operands', async (t) => {
  for (const line of [
    'metahs',
    'metahs hsp001',
    'metahs -a -d hsp001',
    'metahs -a',
    'metahs -d',
    'metahs -e',
    'metahs -r hsp001 vdx',
    'metahs -r hsp001 vdx vdy vdz',
    'metahs -n -a hsp001',
  ]) {
    const r = await run(t, line)
    t.equal(r.status, 1, line)
    t.match(r.err, /usage:\tmetahs \[--root DIR\] -a hotsparepool \[component\.\.\.\]\n/, line)
    t.same(r.asked, [], line)
  }
  const help = await run(t, 'metahs -h')
  t.same([help.status, help.out], [0, ''])
})

t.test('-i shows pools as metastat does, with their own drives', async (t) => {
  const own = [{ device: 'vdx', relocatable: false, id: null }]
  const r = await run(t, 'metahs -i', [
    [stat(report.show), done()],
    [stat(['hsp001', 'hsp002'], own), done()],
  ])
  t.equal(r.status, 0)
  t.match(r.asked, [{ names: [] }, { names: ['hsp001', 'hsp002'] }])
  t.equal(
    r.out,
    'hsp001: 1 hot spare\n\tDevice   Status      Length  \t\tReloc\n' +
      '        vdx      Available    2048 blocks\tYes\n\nhsp002: is empty\n\n' +
      'Device Relocation Information:\nDevice   Reloc\tDevice ID\nvdx      No   \t-\n',
  )
})

t.test('-i: what is no pool', async (t) => {
  const none = await run(t, 'metahs -i', [[stat(busy.show), done()]])
  t.same([none.status, none.out, none.err], [1, '', 'metahs: ada: no hotspare pools found\n\n'])
  const mixed = await run(t, 'metahs -i hsp002 d50 hsp009', [
    [stat(['hsp002', 'd50']), { reply: 'error', error: { code: 'unitNotSetUp', object: 'hsp009' } }, done(1)],
  ])
  t.equal(mixed.status, 1)
  t.equal(mixed.out, 'hsp002: is empty\n\n')
  t.equal(mixed.err, 'metahs: ada: hsp009: invalid hotspare pool\n\nmetahs: ada: d50: invalid hotspare pool\n\n')
})
