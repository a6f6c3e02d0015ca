/** What foreign clients are told before any data moves: nbdinfo, nbd-client, qemu-nbd. */
import t from 'tap'
import { startMetad } from '../tools/daemon.js'
import { everyKind, foreign, missing, mustRun, sizeOf } from '../tools/foreign.js'
import { freePort } from '../tools/ports.js'

const port = await freePort()
const metad = await startMetad(t, { conf: `nbd_tcp = 127.0.0.1:${port}\n` })
const kinds = await everyKind(metad, 8)
const NAMES = ['d0', 'd3', 'd4', 'd5']

interface NbdInfo {
  readonly exports: readonly Record<string, unknown>[]
}
const info = async (...args: string[]): Promise<NbdInfo> =>
  JSON.parse(await mustRun('nbdinfo', ['--json', ...args])) as NbdInfo

t.test('nbdinfo: size, flags, block sizes and contexts of every kind', { skip: missing('nbdinfo') }, async (t) => {
  for (const { name, kind } of kinds) {
    const [found] = (await info(metad.nbdUri(name))).exports
    t.match(
      found,
      {
        'export-name': name,
        'export-size': sizeOf(metad, name),
        contexts: ['base:allocation', 'metadisk:state'],
        is_rotational: false,
        is_read_only: false,
        can_cache: true,
        can_df: true,
        can_fast_zero: true,
        can_flush: true,
        can_fua: true,
        can_multi_conn: true,
        can_trim: true,
        can_zero: true,
        block_size_minimum: 1,
        block_size_maximum: 32 << 20,
      },
      kind,
    )
  }
  const [raw] = (await info(metad.nbdUri('rdsk/d0'))).exports
  t.match(raw, { block_size_minimum: 512, 'export-size': sizeOf(metad, 'd0') }, 'the raw device wants whole blocks')
  for (const alias of ['dsk/d0', '/dev/md/dsk/d0'])
    t.equal((await mustRun('nbdinfo', ['--size', metad.nbdUri(alias)])).trim(), String(sizeOf(metad, 'd0')), alias)
  for (const wrong of ['d99', '', 'rdsk', '../d0'])
    t.not((await foreign('nbdinfo', [metad.nbdUri(wrong)])).status, 0, `no export ${JSON.stringify(wrong)}`)
})

t.test('nbdinfo --map reports every byte once', { skip: missing('nbdinfo') }, async (t) => {
  for (const context of ['base:allocation', 'metadisk:state']) {
    const map = JSON.parse(await mustRun('nbdinfo', [`--map=${context}`, '--json', metad.nbdUri('d0')])) as {
      offset: number
      length: number
      type: number
    }[]
    let at = 0
    for (const extent of map) {
      if (extent.offset !== at) break
      at += extent.length
      t.equal(extent.type, 0, `${context}: ${context === 'metadisk:state' ? 'both sides in service' : 'data'}`)
    }
    t.equal(at, sizeOf(metad, 'd0'))
  }
})

t.test('nbdinfo --list names what can be used', { skip: missing('nbdinfo') }, async (t) => {
  const names = (await info('--list', '--no-content', metad.nbdUri(''))).exports.map((e) => String(e['export-name']))
  for (const name of NAMES) t.ok(names.includes(name), name)
  t.equal(new Set(names).size, names.length, 'each once')
})

t.test('nbd-client -l, unix and TCP', { skip: missing('nbd-client') }, async (t) => {
  for (const target of [
    ['-unix', metad.socket],
    ['127.0.0.1', String(port)],
  ]) {
    const list = await mustRun('nbd-client', ['-l', ...target])
    for (const name of NAMES) t.match(list, new RegExp(`^${name}(:|$)`, 'm'), `${target[0] ?? ''} ${name}`)
  }
})

t.test('qemu-nbd -L sees sizes and contexts', { skip: missing('qemu-nbd') }, async (t) => {
  const list = await mustRun('qemu-nbd', ['-L', '-k', metad.socket])
  for (const name of NAMES) t.match(list, `export: '${name}'`)
  t.match(list, `size:  ${sizeOf(metad, 'd3')}`)
  t.match(list, /base:allocation[\s\S]*metadisk:state/)
})

t.test('growth is seen by new clients', { skip: missing('nbdinfo') }, async (t) => {
  const before = Number(await mustRun('nbdinfo', ['--size', metad.nbdUri('d4')]))
  metad.must('metattach', ['d4', metad.disk('more', 8)])
  const after = Number(await mustRun('nbdinfo', ['--size', metad.nbdUri('d4')]))
  t.ok(after >= before + (7 << 20), `${before} to ${after}`)
  t.equal(after, sizeOf(metad, 'd4'))
})
