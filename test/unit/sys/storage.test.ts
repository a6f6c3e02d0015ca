import t from 'tap'
import { linkSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { execFileSync } from 'node:child_process'
import { gather } from '../../../src/sys/inventory.js'
import { examine, sameAfterRestart } from '../../../src/sys/storage.js'

t.test('links do not make other storage', async (t) => {
  const dir = t.testdir()
  const file = join(dir, 'disk')
  writeFileSync(file, Buffer.alloc(1 << 20))
  linkSync(file, join(dir, 'hard'))
  symlinkSync(file, join(dir, 'soft'))
  const [a, b, c] = await Promise.all(['disk', 'hard', 'soft'].map((n) => examine(join(dir, n))))
  t.equal(a?.size, 2048)
  t.equal(a?.identity, b?.identity)
  t.equal(a?.identity, c?.identity)
  writeFileSync(join(dir, 'other'), Buffer.alloc(512))
  t.not((await examine(join(dir, 'other')))?.identity, a?.identity)
})

t.test(
  'a loop device is an extent of its backing file',
  { skip: process.getuid?.() !== 0 && 'needs root' },
  async (t) => {
    const file = join(t.testdir(), 'disk')
    writeFileSync(file, Buffer.alloc(1 << 20))
    let loop
    try {
      loop = execFileSync('losetup', ['--show', '-f', '-o', '4096', file], { encoding: 'utf8' }).trim()
    } catch {
      t.comment('no loop device is free')
      return
    }
    t.teardown(() => execFileSync('losetup', ['-d', loop]))
    const [below, above] = await Promise.all([examine(file), examine(loop)])
    t.equal(above?.identity, below?.identity)
    t.same([above?.first, above?.size], [8, 2040])
  },
)

t.test('neither file nor block device is no storage', async (t) => {
  t.equal(await examine('/dev/null'), undefined)
  t.equal(await examine('/'), undefined)
})

t.test('after a restart the device number may differ, inode and birth may not', async (t) => {
  t.ok(sameAfterRestart('file:1:2:3', 'file:9:2:3'))
  t.notOk(sameAfterRestart('file:1:2:3', 'file:1:2:4'))
  t.notOk(sameAfterRestart('file:1:2:3', 'file:1:5:3'))
  t.notOk(sameAfterRestart('file:1:2:3', 'block:1:2:3'))
  t.ok(sameAfterRestart('block:8:0:SER', 'block:8:16:SER'))
  t.notOk(sameAfterRestart('block:8:0:SER', 'block:8:0:OTHER'))
})

t.test('the inventory answers for paths, relative paths and slices, and says what is wrong', async (t) => {
  const dir = t.testdir({ 'disks.tab': '' })
  const file = join(dir, 'disk')
  writeFileSync(file, Buffer.alloc(1 << 20))
  writeFileSync(join(dir, 'disks.tab'), `# name path\nc0t0d0 ${file}\n`)
  const words = [file, 'disk', 'c0t0d0s0', '/nonexistent', '/dev/null', 'nbd://host/x']
  const look = await gather(words, { cwd: dir, disksTab: join(dir, 'disks.tab'), replicas: [], limitMillis: 0 })
  const a = look(file)
  const b = look('disk')
  t.ok(a.ok && b.ok && a.value.identity === b.value.identity)
  t.match(look('c0t0d0s0'), { ok: false, error: { code: 'sys', args: [/no disk label/] } })
  t.match(look('/nonexistent'), { ok: false, error: { args: ['No such file or directory'] } })
  t.match(look('/dev/null'), { ok: false, error: { code: 'notADisk' } })
  t.match(look('nbd://host/x'), { ok: false, error: { code: 'unsupported' } })
})
