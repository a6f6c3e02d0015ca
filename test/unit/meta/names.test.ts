import t from 'tap'
import { fitsTab, parseQualifiedName, parseUnitName, rawPath, tabComponent } from '../../../src/meta/names.js'
import { name, text } from './world.js'

t.test('accepted spellings mean the same metadevice', async (t) => {
  for (const word of ['d0', '/dev/md/dsk/d0', '/dev/md/rdsk/d0', '//dev///md/rdsk//d0'])
    t.same(parseUnitName(word), { ok: true, value: 'd0' }, word)
  for (const word of ['employee_files', 'A', 'x.y-z_1', `a${'b'.repeat(254)}`]) t.ok(parseUnitName(word).ok, word)
})

t.test('names that are refused', async (t) => {
  const bad = ['', '0d', '_a', 'd 0', 'd/0/1', 'all', 'ALL', 'none', 'NONE', 'd\n', 'dé', `a${'b'.repeat(255)}`]
  bad.push('/dev/md/d0', '/dev/md/dsk/', '/dev/md/x/y/d0', '/dev/md/blue/x/d0')
  for (const word of bad) {
    const r = parseUnitName(word)
    t.equal(r.ok ? '' : r.error.code, 'invalidName', JSON.stringify(word))
  }
  t.ok(parseUnitName('All').ok, 'only the listed spellings are reserved')
})

t.test('named sets do not exist', async (t) => {
  for (const word of ['blue/d0', '/dev/md/blue/dsk/d0', '/dev/md/blue/rdsk/d0']) {
    const r = parseUnitName(word)
    t.equal(r.ok ? '' : text(r.error), 'setname "blue": no such set')
    t.same(parseQualifiedName(word), { ok: true, value: { set: 'blue', name: 'd0' } })
  }
  t.notOk(parseQualifiedName('b*e/d0').ok)
})

t.test('printed forms', async (t) => {
  t.equal(rawPath(name('d10')), '/dev/md/rdsk/d10')
  t.equal(tabComponent('c0t1d0s3'), '/dev/rdsk/c0t1d0s3')
  t.equal(tabComponent('/disks/a'), '/disks/a')
  for (const word of ['', 'a b', 'a\tb', 'a\nb', 'a\\', 'a\u0000']) t.notOk(fitsTab(word), JSON.stringify(word))
  t.ok(fitsTab('/disks/a\\b#'))
})
