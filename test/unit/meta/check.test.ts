import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { lookUpWords } from '../../../src/meta/check.js'
import { EMPTY_TREE } from '../../../src/meta/tree.js'
import type { Device } from '../../../src/meta/types.js'
import { CYLINDER, device, HOST, inventoryOf, metainit, refusals, treeOf } from './world.js'

const extent = (first: number, size: number) => ({ first: blocks(first), blocks: blocks(size) })
const N = 10 * CYLINDER
const A = device('/a', N)

t.test('the same storage twice in one definition', async (t) => {
  t.same(refusals(metainit('d0 1 2 /disks/a /disks/a')), [
    '/disks/a: has appeared more than once in the specification of d0',
  ])
  t.same(refusals(metainit('d0 2 1 /disks/a 1 /disks/a')).length, 1, 'in two rows')
})

t.test('the same storage in two metadevices', async (t) => {
  const tree = treeOf(['d0 1 1 /disks/a'])
  t.same(refusals(metainit('d1 1 1 /disks/a', { tree })), [
    '/disks/a: has appeared more than once in the specification of d0',
  ])
  t.same(refusals(metainit('d1 1 1 /disks/a', { tree, force: true })).length, 1, 'force does not help')
})

t.test('other names of the same storage: hard link, symlink, loop device, bind mount', async (t) => {
  const link = device('/link', N, { identity: A.identity })
  const inventory = inventoryOf([A, link])
  const tree = treeOf(['d0 1 1 /a'], { inventory })
  t.same(refusals(metainit('d1 1 1 /link', { tree, inventory })), [
    '/link: has appeared more than once in the specification of d0',
  ])
  t.same(refusals(metainit('d1 1 2 /a /link', { inventory })), [
    '/link: has appeared more than once in the specification of d1',
  ])
})

t.test('overlapping pieces of one disk', async (t) => {
  const part = (name: string, first: number, size: number): Device =>
    device(name, size, { identity: 'block:8:0:', extent: extent(first, size) })
  const inventory = inventoryOf([
    part('/sda', 0, 4 * N),
    part('/sda1', 2048, N),
    part('/sda2', 2048 + N, N),
    part('/sda3', 2048 + N - 1, N),
  ])
  const tree = treeOf(['d0 1 1 /sda1'], { inventory })
  t.same(refusals(metainit('d1 1 1 /sda2', { tree, inventory })), [], 'neighbours do not overlap')
  const behind = treeOf(['d0 1 1 /sda2'], { inventory })
  t.same(refusals(metainit('d1 1 1 /sda1', { tree: behind, inventory })), [], 'on either side')
  t.same(refusals(metainit('d1 1 1 /sda3', { tree, inventory })), ['/sda3: overlaps with device in d0'])
  t.same(refusals(metainit('d1 1 1 /sda', { tree, inventory })), ['/sda: overlaps with device in d0'])
})

t.test('what was recorded is compared by what its name means now', async (t) => {
  const tree = treeOf(['d0 1 1 /a'], { inventory: inventoryOf([A]) })
  // After a restart the kernel numbers the same file system differently.
  const renumbered = { ...A, identity: 'file:2:/a' }
  const link = device('/link', N, { identity: 'file:2:/a' })
  const inventory = inventoryOf([renumbered, link])
  t.same(refusals(metainit('d1 1 1 /link', { tree, inventory })), [
    '/link: has appeared more than once in the specification of d0',
  ])
  t.same(lookUpWords(['/link'], tree), ['/link', '/a'])
})

t.test('storage in other use', async (t) => {
  const inventory = inventoryOf([
    device('/m', N, { usedBy: { how: 'mounted', where: '/home' } }),
    device('/s', N, { usedBy: { how: 'swap', where: '/s' } }),
    device('/b', N, { usedBy: { how: 'busy', where: 'dm-0' } }),
    device('/r', N, { isReplica: true }),
    A,
  ])
  const refused = (word: string, force: boolean) => refusals(metainit(`d0 1 1 ${word}`, { inventory, force }))
  t.same(refused('/m', false), ['/m: is mounted on /home'])
  t.same(refused('/s', false), ['/s: is swapped on'])
  t.same(refused('/m', true), [])
  t.same(refused('/s', true), [])
  t.same(refused('/b', true), ['/b: Device or resource busy'])
  t.same(refused('/r', true), ['/r: has a metadevice database replica'])
  t.same(refused('/none', false), ['/none: No such file or directory'])
  t.same(refused('/a', false), [])
})

t.test('metadevices are no components', async (t) => {
  const tree = treeOf(['d1 1 1 /disks/a'])
  t.same(refusals(metainit('d0 1 1 d1', { tree })), ['d1: is a metadevice'])
  t.same(refusals(metainit('d0 1 1 /dev/md/rdsk/d1', { tree })), ['d1: is a metadevice'])
  t.same(refusals(metainit('d0 1 1 /dev/md/dsk/d9', { tree })), ['d9: unit not found'])
  t.same(refusals(metainit('d0 1 1 d1', { tree: EMPTY_TREE, inventory: HOST })), ['d1: No such file or directory'])
})

t.test('a name that md.tab cannot hold is refused', async (t) => {
  const inventory = inventoryOf([device('/my\tdisk', N), device('/y\\', N)])
  t.same(refusals(metainit('d0 1 1 /my\tdisk', { inventory })), ['d0: "/my\tdisk": syntax error'])
  t.same(refusals(metainit('d0 1 1 /y\\', { inventory })), ['d0: "/y\\": syntax error'])
})
