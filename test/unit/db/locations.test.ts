import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import type { Listed } from '../../../src/db/format.js'
import { formatLocations, parseLocations, readLocations, writeLocations } from '../../../src/db/locations.js'

const entry = (path: string, index: number, more: Partial<Listed> = {}): Listed => ({
  id: String(index).padStart(32, '0'),
  path,
  place: path,
  kind: 'file',
  index,
  firstBlock: 16 + index * 8192,
  blocks: 8192,
  identity: null,
  ...more,
})

t.test('lines are SVM columns and sum to 42', async (t) => {
  const text = formatLocations([
    entry('/r/a b\té%', 0),
    entry('/r/dir/mddb.1', 1),
    entry('/dev/sdb7', 2, { kind: 'block' }),
  ])
  const lines = text.split('\n')
  t.equal(lines[0], '#metadevice database location file do not hand edit')
  t.equal(lines[1], '#driver\tminor_t\tdaddr_t\tdevice id\tchecksum')
  for (const line of lines.slice(2, -1)) {
    const [driver = '', minor, block, id = '', sum] = line.split('\t')
    const bytes = (s: string): number => [...Buffer.from(s)].reduce((a, b) => a + b, 0)
    t.equal(bytes(driver) + Number(minor) + Number(block) + bytes(id) + Number(sum), 42, line)
  }
  const { list, notices, any } = parseLocations(text)
  t.same(notices, [])
  t.ok(any)
  t.same(
    list.map((l) => [l.path, l.place, l.kind, l.index]),
    [
      ['/r/a b\té%', '/r/a b\té%', 'file', 0],
      ['/r/dir/mddb.1', '/r/dir', 'file', 1],
      ['/dev/sdb7', '/dev/sdb7', 'block', 2],
    ],
  )
})

t.test('a bad line is reported and skipped', async (t) => {
  const good = formatLocations([entry('/a', 0), entry('/b', 1), entry('/c', 2)]).split('\n')
  const flipped = good.map((l) => l.replace('\t8208\t', '\t8209\t')).join('\n')
  const parsed = parseLocations(`${flipped}nonsense\n\n`)
  t.same(
    parsed.list.map((l) => l.path),
    ['/a', '/c'],
  )
  t.same(parsed.notices, ['checksum error in mddb.cf file', 'error in mddb.cf file'])
  t.notOk(parseLocations('# only\n').any)
  const noise = Buffer.from(Array.from({ length: 4000 }, (_, i) => (i * 7919) % 256)).toString('latin1')
  t.same(parseLocations(noise).list, [])
})

t.test('written in one step, read back', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'mddb-cf-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  t.same(await readLocations(dir), { any: false, list: [], notices: [] })
  t.equal(await writeLocations(dir, [entry('/a', 0)]), null)
  t.same(
    (await readLocations(dir)).list.map((l) => l.path),
    ['/a'],
  )
  t.same(readdirSync(dir), ['mddb.cf'])
  writeFileSync(join(dir, 'mddb.cf.new'), 'left by a crash')
  t.equal(await writeLocations(dir, [entry('/b', 1)]), null)
  t.match(readFileSync(join(dir, 'mddb.cf'), 'utf8'), '/b')
  t.same(readdirSync(dir), ['mddb.cf'])
  t.ok(await writeLocations(join(dir, 'absent'), []), 'a failure is a value')
  t.ok((await readLocations(join(dir, 'mddb.cf'))).any, 'what cannot be read is not taken for none')
})
