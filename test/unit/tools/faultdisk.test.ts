/** The disks that fail on demand fail as told, and only as told: other tests believe them. */
import { spawn } from 'node:child_process'
import { closeSync, fsyncSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type FaultDisks, missingFaultDisk, startFaultDisks } from '../../tools/faultdisk.js'
import { until } from '../../../bench/lib/process.js'

const skip = missingFaultDisk()
const MIB = 1 << 20

const disks = async (t: Test): Promise<FaultDisks> => {
  const dir = mkdtempSync(join(tmpdir(), 'faultdisk-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  return startFaultDisks(t, dir, { a: 4, b: 4 })
}

const opened = (t: Test, path: string): number => {
  const fd = openSync(path, 'r+')
  t.teardown(() => {
    try {
      closeSync(fd)
    } catch {
      // A pulled disk cannot be asked to flush.
    }
  })
  return fd
}

const block = (fill: string, bytes = 4096): Buffer => Buffer.alloc(bytes, fill)
const readAt = (fd: number, at: number, bytes = 4096): Buffer => {
  const data = Buffer.alloc(bytes)
  return data.subarray(0, readSync(fd, data, 0, bytes, at))
}

t.test('errors by operation, range and count', { skip }, async (t) => {
  const d = await disks(t)
  const a = opened(t, d.path('a'))
  const b = opened(t, d.path('b'))
  writeSync(a, block('x'), 0, 4096, 0)
  t.same(readAt(a, 0), block('x'))
  t.same(readFileSync(d.image('a')).subarray(0, 4096), block('x'), 'the image has it')

  d.tell(`a fail read EIO from=${MIB} bytes=4096`)
  t.same(readAt(a, 0), block('x'), 'outside the range')
  t.throws(() => readAt(a, MIB - 2048), { code: 'EIO' })
  t.same(readAt(b, MIB), block('\0'), 'the other disk is well')
  t.equal(writeSync(a, block('y'), 0, 4096, MIB), 4096, 'writes are not reads')
  d.tell('a ok')

  d.tell('a fail write ENOSPC count=2')
  t.throws(() => writeSync(a, block('z'), 0, 4096, 0), { code: 'ENOSPC' })
  t.throws(() => writeSync(a, block('z'), 0, 4096, 0), { code: 'ENOSPC' })
  t.equal(writeSync(a, block('z'), 0, 4096, 0), 4096)

  d.tell('a fail sync EIO')
  t.throws(() => fsyncSync(a), { code: 'EIO' })
  d.tell('a ok')
  fsyncSync(a)

  d.tell('a short read')
  t.equal(readAt(a, 0).length, 2048)
  d.tell('a ok')
  t.equal(d.counters('a').failed, 4)
  t.throws(() => d.tell('a frobnicate'), /a frobnicate/)
  t.throws(() => d.tell('nobody ok'), /nobody ok/)
})

t.test('a bad sector is mended by a write', { skip }, async (t) => {
  const d = await disks(t)
  const a = opened(t, d.path('a'))
  d.tell('a fail read EIO from=8192 bytes=512 until-written')
  t.throws(() => readAt(a, 8192), { code: 'EIO' })
  writeSync(a, block('m', 256), 0, 256, 8192)
  t.throws(() => readAt(a, 8192), { code: 'EIO' }, 'half of it is not enough')
  writeSync(a, block('m'), 0, 4096, 8192)
  t.same(readAt(a, 8192), block('m'))
})

t.test('a hanging disk holds its own requests only', { skip }, async (t) => {
  const d = await disks(t)
  d.tell('a hang read')
  const reader = spawn('dd', [`if=${d.path('a')}`, 'of=/dev/null', 'bs=4k', 'count=1'], { stdio: 'ignore' })
  const done = new Promise((resolve) => reader.once('exit', resolve))
  await until('a read hangs', () => d.counters('a').held > 0)
  t.same(readAt(opened(t, d.path('b')), 0), block('\0'))
  t.equal(reader.exitCode, null)
  d.tell('a ok')
  t.equal(await done, 0)
})

t.test('a power cut loses what was not synced, by whole sectors', { skip }, async (t) => {
  const d = await disks(t)
  const a = opened(t, d.path('a'))
  d.tell('a volatile on')
  writeSync(a, block('s'), 0, 4096, 0)
  fsyncSync(a)
  t.equal(d.counters('a').unsynced, 0)
  writeSync(a, block('u', 64 * 1024), 0, 64 * 1024, 0)
  t.same(readAt(a, 0), block('u'), 'readable before it is stable')
  t.same(readFileSync(d.image('a')).subarray(0, 4096), block('s'))
  d.tell('a powercut 7')
  t.throws(() => readAt(a, 0), { code: 'EIO' })
  d.tell('a ok')
  const after = readAt(a, 0, 64 * 1024)
  let kept = 0
  for (let at = 0; at < after.length; at += 512) {
    const sector = after.subarray(at, at + 512)
    const old = block(at < 4096 ? 's' : '\0', 512)
    if (sector.equals(block('u', 512))) kept++
    else t.same(sector, old, `sector ${at / 512} is old or new`)
  }
  t.ok(kept > 20 && kept < 108, `${kept} of 128 were kept`)
})

t.test('a pulled cable', { skip }, async (t) => {
  const d = await disks(t)
  const a = opened(t, d.path('a'))
  readAt(a, 0)
  d.vanish()
  await until('the disk is gone', () => {
    try {
      readAt(a, 0)
      return false
    } catch {
      return true
    }
  })
  t.throws(() => writeSync(a, block('x'), 0, 4096, 0))
})
