/** metadb's rules (commands.md 5) on a real database; damage is in test/fault/db. */
import {
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { MetaResult } from '../../../src/msg/errors.js'
import { errorText } from '../../../src/msg/errors.js'
import type { Json } from '../../../src/db/types.js'
import { allGood, eventually, makeRig, must, set } from '../../fault/db/rig.js'

t.setTimeout(120_000)
const text = <T>(r: MetaResult<T>): string => (r.ok ? 'ok' : errorText(r.error))
const one = { force: false, count: 1, length: null }
const first = { ...one, force: true }

t.test('no replica at all', async (t) => {
  const rig = makeRig(0)
  t.teardown(() => rig.remove())
  const db = await rig.open()
  t.equal(db.health, 'none')
  t.same(await db.status(), [])
  t.same([...db.records], [])
  t.equal(text(await db.add([{ path: join(rig.dir, 'a') }], one)), 'there are no existing databases')
  t.equal(text(await db.commit(set('x', 1))), 'there are no existing databases')
  t.equal(text(await db.delete([{ path: '/x' }], { force: true })), 'there are no existing databases')
  t.same(readdirSync(rig.dir), ['etc'])
  t.same(readdirSync(rig.etc), [])
  await db.close()
})

t.test('what -a refuses, and that it leaves nothing', async (t) => {
  const rig = makeRig(0)
  t.teardown(() => rig.remove())
  const db = await rig.open()
  const at = (name: string) => [{ path: join(rig.dir, name) }]
  writeFileSync(join(rig.dir, 'full'), 'precious')
  writeFileSync(join(rig.dir, 'empty'), '')
  const cases: [string, Promise<MetaResult<void>>][] = [
    ['count (-c) must be 1 or more', db.add(at('a'), { ...first, count: 0 })],
    ['size (-l) is too small', db.add(at('a'), { ...first, length: 15 })],
    ['size (-l) is too big', db.add(at('a'), { ...first, length: 8193 })],
    ['51 metadevice database replicas is too many; the maximum is 50', db.add(at('a'), { ...first, count: 51 })],
    ['no devices specified to attach or detach', db.add([], first)],
    ['No such file or directory', db.add(at('no/where'), first)],
    ['File exists', db.add([...at('a'), ...at('full')], first)],
    ['Not a directory', db.add(at('full/x'), first)],
    ['metadevice database replica exists on device', db.add([...at('a'), ...at('./a')], first)],
    ['not a disk device', db.add([{ path: '/dev/null' }], first)],
  ]
  for (const [wanted, result] of cases) t.equal(text(await result), wanted)
  t.equal(db.health, 'none')
  t.same(readdirSync(rig.dir).sort(), ['empty', 'etc', 'full'])
  t.equal(readFileSync(join(rig.dir, 'full'), 'utf8'), 'precious')

  symlinkSync(join(rig.dir, 'empty'), join(rig.dir, 'link'))
  t.match(text(await db.add([...at('empty'), ...at('link')], first)), 'metadevice database replica exists on device')
  t.same(readFileSync(join(rig.dir, 'empty')).length, 0)
  must(await db.add(at('empty'), { ...first, length: 16 }))
  linkSync(join(rig.dir, 'empty'), join(rig.dir, 'hard'))
  for (const name of ['empty', 'link', 'hard'])
    t.equal(text(await db.add(at(name), one)), 'metadevice database replica exists on device', name)
  await db.close()
})

t.test('layout, flags, lengths', async (t) => {
  const rig = makeRig(0)
  t.teardown(() => rig.remove())
  const dir = join(rig.dir, 'slice')
  mkdirSync(dir)
  const file = join(rig.dir, 'file')
  let db = await rig.open()
  must(await db.add([{ path: dir }], { force: true, count: 2, length: null }))
  must(await db.add([{ path: file }], { force: false, count: 2, length: 1034 }))
  must(await db.add([{ path: join(rig.dir, 'third') }], one))
  const rows = (await db.status()).map((r) => [r.flags, r.firstBlock, r.blocks, r.path.slice(rig.dir.length)])
  const added = '     a        u     '
  t.equal(added.length, 20)
  t.same(rows, [
    [added, 16, 8192, '/slice/mddb.0'],
    [added, 8208, 8192, '/slice/mddb.1'],
    [added, 16, 1034, '/file'],
    [added, 1050, 1034, '/file.1'],
    [added, 16, 1034, '/third'],
  ])
  t.same(db.places(), [`${dir}/mddb.0`, `${dir}/mddb.1`, file, `${file}.1`, join(rig.dir, 'third')])
  t.equal(text(await db.add([{ path: dir }], one)), 'metadevice database replica exists on device')
  await db.close()

  db = await rig.open()
  const flags = (await db.status()).map((r) => r.flags)
  t.equal(flags.filter((f) => f === '     a m  pc luo    ').length, 1, 'one master')
  t.equal(flags.filter((f) => f === '     a    pc luo    ').length, 4)
  t.equal(db.places().length, 5)

  t.equal(text(await db.delete([{ path: '/elsewhere' }], { force: false })), 'no metadevice database replica on device')
  must(await db.delete([{ path: dir }, { path: file }], { force: false }))
  t.same(readdirSync(dir), [], 'deleted files are gone')
  t.same(
    (await db.status()).map((r) => r.path),
    [join(rig.dir, 'third')],
  )
  t.equal(
    text(await db.delete([{ path: join(rig.dir, 'third') }], { force: false })),
    'must have at least 1 database (-f overrides)',
  )
  must(await db.delete([{ path: join(rig.dir, 'third') }], { force: true }))
  t.equal(db.health, 'none')
  t.same(rig.healths, ['good', 'good', 'none'])
  t.notOk(existsSync(join(rig.dir, 'third')))
  t.equal(text(await db.commit(set('x', 1))), 'there are no existing databases')
  await db.close()
  db = await rig.open()
  t.equal(db.health, 'none')
  must(await db.add([{ path: dir }], first))
  t.equal(db.records.size, 0, 'a new database is empty')
  await db.close()
})

t.test('records', async (t) => {
  const rig = makeRig(0)
  t.teardown(() => rig.remove())
  let db = await rig.open()
  must(await db.add([{ path: join(rig.dir, 'a') }, { path: join(rig.dir, 'b') }], first))
  const before = db.epoch
  const many = Array.from({ length: 100 }, (_, i) =>
    db.commit(
      new Map<string, Json | null>([
        [`k${i % 10}`, i],
        [`gone${i - 1}`, null],
        [`gone${i}`, i],
      ]),
    ),
  )
  const done = (await Promise.all(many)).map(must)
  t.ok(db.epoch - before < 100, 'what waits together is committed together')
  t.ok(done.every((d) => d.epoch <= db.epoch && d.epoch > before))
  t.same([...db.records.keys()].sort(), [...Array.from({ length: 10 }, (_, i) => `k${i}`), 'gone99'].sort())
  t.equal(db.records.get('k3'), 93)
  const odd: Json = { 'ключ\u0000': ['\ud83d\ude00', null, true, -0.5, { deep: [] }] }
  must(await db.commit(set('odd/name with é', odd)))
  const seen = db.records
  must(await db.commit(set('later', 1)))
  t.notOk(seen.has('later'), 'a view is a view')
  t.equal(
    text(await db.commit(set('big', 'x'.repeat(1 << 20)))),
    "metadevice database is full, can't create new records",
  )
  const small = await Promise.all([db.commit(set('big', 'x'.repeat(1 << 20))), db.commit(set('fits', 1))])
  t.same(
    small.map(text),
    ["metadevice database is full, can't create new records", 'ok'],
    'only what does not fit is refused',
  )
  await db.close()
  t.equal(text(await db.commit(set('x', 1))), 'state database commit failed', 'closed')
  db = await rig.open()
  t.same(db.records.get('odd/name with é'), odd)
  t.equal(db.records.get('fits'), 1)
  t.ok(db.epoch > before)
  await db.close()
})

t.test('a stale database: readable, replicas can be deleted and added', async (t) => {
  const rig = makeRig(0)
  t.teardown(() => rig.remove())
  const path = (n: string) => join(rig.dir, n)
  let db = await rig.open()
  must(
    await db.add(
      ['a', 'b', 'c', 'd'].map((n) => ({ path: path(n) })),
      first,
    ),
  )
  must(await db.commit(set('x', 1)))
  await db.close()
  unlinkSync(path('a'))
  unlinkSync(path('b'))
  rig.notices.length = 0
  db = await rig.open()
  t.equal(db.health, 'stale', 'exactly half is not enough')
  t.same(rig.notices, ['warning md: state database is stale'])
  t.equal(db.records.get('x'), 1)
  t.equal(text(await db.commit(set('x', 2))), 'stale databases')
  const broken = (await db.status())[0]
  t.match(broken, { flags: '    M     pc        ', firstBlock: null, blocks: null })
  t.match((await db.status())[3]?.flags, /^ {5}a [m ]  pc luo {4}$/)
  t.match(
    text(await db.delete([{ path: path('d') }], { force: false })),
    /^Deleting specified valid replicas results in stale state database/,
  )
  must(await db.delete([{ path: path('a') }], { force: false }))
  must(await db.add([{ path: path('e') }], one))
  t.equal(db.health, 'stale', 'until the next start')
  t.equal(text(await db.commit(set('x', 2))), 'stale databases')
  await db.close()
  db = await rig.open()
  t.equal(db.health, 'good', 'three of four')
  t.equal(db.records.get('x'), 1)
  must(await db.commit(set('x', 3)))
  must(await db.delete([{ path: path('b') }], { force: false }))
  t.ok(await allGood(db))
  t.same(db.places(), ['c', 'd', 'e'].map(path))
  await db.close()

  for (const n of ['c', 'd', 'e']) unlinkSync(path(n))
  db = await rig.open()
  t.equal(db.health, 'stale', 'nothing left')
  t.same([...db.records], [])
  t.equal((await db.status()).length, 3)
  t.equal(
    text(await db.add([{ path: path('f') }], first)),
    'stale databases',
    'no empty database in the place of a lost one',
  )
  must(
    await db.delete(
      ['c', 'd', 'e'].map((n) => ({ path: path(n) })),
      { force: true },
    ),
  )
  t.equal(db.health, 'none')
  must(await db.add([{ path: path('f') }], first))
  t.equal(db.health, 'good')
  await db.close()
})

t.test('mddb.cf lost in part, as a whole, or unreadable', async (t) => {
  const rig = makeRig(0)
  t.teardown(() => rig.remove())
  const names = ['a', 'b', 'c'].map((n) => join(rig.dir, n))
  const cf = join(rig.etc, 'mddb.cf')
  let db = await rig.open()
  must(
    await db.add(
      names.map((path) => ({ path })),
      first,
    ),
  )
  must(await db.commit(set('x', 1)))
  await db.close()
  const whole = readFileSync(cf, 'utf8')
  const lines = whole.split('\n')
  writeFileSync(cf, [lines[0], lines[1], lines[2]?.replace('\t16\t', '\t17\t'), lines[3]].join('\n'))
  rig.notices.length = 0
  db = await rig.open()
  t.same(rig.notices, ['warning checksum error in mddb.cf file'])
  t.equal(db.health, 'good', 'one line leads to all')
  t.equal(db.records.get('x'), 1)
  t.equal((await db.status())[0]?.flags.charAt(11), ' ', 'found by the others, not by the file')
  t.equal((await db.status())[1]?.flags.charAt(11), 'c')
  t.equal(readFileSync(cf, 'utf8'), whole, 'and the file is whole again')
  await db.close()
  writeFileSync(cf, 'garbage\n')
  db = await rig.open()
  t.equal(db.health, 'stale', 'there were replicas, nobody knows where')
  t.equal(text(await db.add([{ path: join(rig.dir, 'z') }], first)), 'stale databases')
  await db.close()
  rmSync(cf)
  db = await rig.open()
  t.equal(db.health, 'none')
  t.equal(
    text(await db.add([{ path: names[0] ?? '' }], first)),
    'metadevice database replica exists on device',
    'a forgotten replica is not overwritten',
  )
  await db.close()
})

t.test('a restored copy is used when it is all there is, and brought up to date when it is not', async (t) => {
  const rig = makeRig(3)
  t.teardown(() => rig.remove())
  let db = await rig.open()
  must(
    await db.add(
      rig.replicas.map((path) => ({ path })),
      first,
    ),
  )
  must(await db.commit(set('x', 1)))
  await db.close()
  const [a = '', b = '', c = ''] = rig.replicas
  const old = readFileSync(b)
  db = await rig.open()
  must(await db.commit(set('x', 2)))
  await db.close()
  unlinkSync(b)
  writeFileSync(b, old)
  db = await rig.open()
  t.equal(db.records.get('x'), 2)
  t.ok(await eventually(() => allGood(db)), 'the old copy is up to date')
  await db.close()
  const newest = readFileSync(c)
  for (const p of [b, c]) {
    unlinkSync(p)
    writeFileSync(p, newest)
  }
  unlinkSync(a)
  db = await rig.open()
  t.equal(db.health, 'stale', 'foreign contents are no majority')
  await db.close()
})
