import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { DeviceLinks, exportUri } from '../../../src/sys/links.js'

const make = (dev: string, socket = '/run/metadisk/nbd.sock'): { links: DeviceLinks; said: string[] } => {
  const said: string[] = []
  return { links: new DeviceLinks(dev, socket, (text) => void said.push(text)), said }
}

t.test('the text is the URI of the export; what a URI would read as its own is escaped', async (t) => {
  t.equal(exportUri('dsk', 'd0', '/run/metadisk/nbd.sock'), 'nbd+unix:///d0?socket=/run/metadisk/nbd.sock')
  t.equal(exportUri('rdsk', 'd0', '/a b/c&d=e#f%/s'), 'nbd+unix:///rdsk/d0?socket=/a%20b/c%26d%3De%23f%25/s')
})

t.test('links come, are replaced in place, and go', async (t) => {
  const dev = join(t.testdir(), 'dev/md')
  const { links, said } = make(dev)
  await links.clear()
  await links.add('d0')
  t.equal(readlinkSync(join(dev, 'dsk/d0')), 'nbd+unix:///d0?socket=/run/metadisk/nbd.sock')
  t.equal(readlinkSync(join(dev, 'rdsk/d0')), 'nbd+unix:///rdsk/d0?socket=/run/metadisk/nbd.sock')
  await make(dev, '/other/socket').links.add('d0')
  t.equal(readlinkSync(join(dev, 'dsk/d0')), 'nbd+unix:///d0?socket=/other/socket')
  await links.add('d1')
  await links.remove('d0')
  await links.remove('d7')
  t.same(readdirSync(join(dev, 'dsk')), ['d1'])
  t.same(readdirSync(join(dev, 'rdsk')), ['d1'])
  await links.clear()
  t.same(readdirSync(join(dev, 'dsk')), [])
  t.same(said, [])
})

t.test('nothing of somebody else is touched, and it is said', async (t) => {
  const dev = t.testdir({ dsk: { d0: 'precious' }, rdsk: {} })
  symlinkSync('/dev/null', join(dev, 'rdsk/d0'))
  mkdirSync(join(dev, 'dsk/d1'))
  const { links, said } = make(dev)
  for (const name of ['d0', 'd1']) await links.add(name)
  for (const name of ['d0', 'd1']) await links.remove(name)
  await links.clear()
  t.equal(readFileSync(join(dev, 'dsk/d0'), 'utf8'), 'precious')
  t.equal(readlinkSync(join(dev, 'rdsk/d0')), '/dev/null')
  t.ok(lstatSync(join(dev, 'dsk/d1')).isDirectory())
  t.notOk(existsSync(join(dev, 'rdsk/d1')))
  t.equal(said.length, 3)
  for (const text of said) t.match(text, /not a link of metad; left alone$/)
})

t.test('a place that cannot be written is said, not thrown', async (t) => {
  const dir = t.testdir({ file: '' })
  const { links, said } = make(join(dir, 'file/md'))
  await links.add('d0')
  await links.clear()
  t.ok(said.length > 0)
  for (const text of said) t.match(text, /Not a directory/)
})

t.test('opening a link makes no file anywhere', async (t) => {
  const dev = t.testdir()
  await make(dev).links.add('d0')
  t.throws(() => writeFileSync(join(dev, 'dsk/d0'), 'x'), { code: 'ENOENT' })
  t.throws(() => readFileSync(join(dev, 'rdsk/d0')), { code: 'ENOENT' })
})
