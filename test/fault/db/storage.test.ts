/**
 * Replicas on full, read-only and raw storage, on real file systems and loop devices. Needs root; skipped otherwise.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, readdirSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { allGood, eventually, hashOf, makeRig, must, randomOf, set } from './rig.js'
import { seed } from '../../tools/seed.js'

t.setTimeout(600_000)
t.comment(`SEED=${seed}`)
const random = randomOf(seed + 3)

const run = (...argv: readonly string[]): { ok: boolean; out: string } => {
  const r = spawnSync(argv[0] ?? '', argv.slice(1), { encoding: 'utf8' })
  return { ok: r.status === 0, out: r.stdout.trim() }
}
const root = process.getuid?.() === 0

interface Owner {
  teardown(done: () => void): void
}
const tmpfs = (t: Owner, dir: string, size: string): boolean => {
  mkdirSync(dir, { recursive: true })
  const { ok } = run('mount', '-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', dir)
  if (ok) t.teardown(() => void run('umount', '-l', dir))
  return ok
}
const fill = (dir: string): void => {
  for (let i = 0, size = 1 << 20; size >= 1; i++) {
    try {
      writeFileSync(join(dir, `fill${i}`), Buffer.alloc(size, 1))
    } catch {
      size = size >> 1
    }
  }
}

t.test('full disks: before a start, while running, while adding', { skip: !root && 'needs root' }, async (t) => {
  for (const n of [1, 3]) {
    const rig = makeRig(n)
    t.teardown(() => rig.remove())
    const dirs = rig.replicas.map((_, i) => join(rig.dir, `fs${i}`))
    if (!dirs.every((d) => tmpfs(t, d, '4m'))) return t.comment('no tmpfs here')
    let db = await rig.open()
    must(
      await db.add(
        dirs.map((d) => ({ path: join(d, 'r') })),
        { force: true, count: 1, length: 2048 },
      ),
    )
    // Any subset may be full; all of them is the hardest.
    for (const d of dirs) fill(d)
    for (let i = 0; i < 150; i++) must(await db.commit(set(`k${i % 40}`, 'x'.repeat(random.below(4000)))))
    must(await db.commit(new Map(Array.from({ length: 20 }, (_, i) => [`k${i}`, null]))))
    t.ok(await allGood(db), `${n}: commits need no new space`)
    await db.close()
    db = await rig.open()
    t.equal(db.health, 'good', `${n}: starts on full disks`)
    t.equal(db.records.size, 20)
    must(await db.commit(set('after', 1)))
    const full = await db.commit(set('big', 'x'.repeat(300_000)))
    t.equal(full.ok ? 'ok' : full.error.code, 'databaseFull', 'what does not fit is refused before anything is written')
    t.equal(db.health, 'good')
    const other = join(dirs[0] ?? '', 'another')
    const added = await db.add([{ path: other }], { force: false, count: 1, length: null })
    t.match(added, { ok: false, error: { object: other } }, 'no room for a new replica')
    t.notOk(existsSync(other), 'and nothing is left of it')
    t.equal((await db.status()).length, n)
    must(await db.commit(set('after', 2)))
    await db.close()
  }
})

t.test('a damaged replica on a full disk stays out until there is room', { skip: !root && 'needs root' }, async (t) => {
  const rig = makeRig(2)
  t.teardown(() => rig.remove())
  const dir = join(rig.dir, 'fs')
  if (!tmpfs(t, dir, '4m')) return t.comment('no tmpfs here')
  const db = await rig.open()
  const path = join(dir, 'r')
  must(await db.add([{ path }, { path: rig.replicas[0] ?? '' }], { force: true, count: 1, length: 2048 }))
  truncateSync(path, 5000)
  fill(dir)
  must(await db.commit(set('a', 1)))
  t.ok(await eventually(async () => /[SW]/.test((await db.status())[0]?.flags ?? '')), 'flagged')
  for (const f of readdirSync(dir).filter((x) => x.startsWith('fill'))) run('rm', join(dir, f))
  t.ok(await eventually(() => allGood(db)), 'back when there is room')
  await db.close()
})

t.test('read-only file systems', { skip: !root && 'needs root' }, async (t) => {
  for (const [n, bad] of [
    [1, 1],
    [3, 1],
    [3, 2],
    [4, 2],
  ] as const) {
    const rig = makeRig(n)
    t.teardown(() => rig.remove())
    const dirs = rig.replicas.map((_, i) => join(rig.dir, `fs${i}`))
    if (!dirs.every((d) => tmpfs(t, d, '4m'))) return t.comment('no tmpfs here')
    const places = dirs.map((d) => join(d, 'r'))
    let db = await rig.open()
    const list = places.map((path) => ({ path }))
    must(await db.add(list, { force: true, count: 1, length: 2048 }))
    must(await db.commit(set('a', 1)))
    await db.close()
    for (const d of dirs.slice(0, bad)) t.ok(run('mount', '-o', 'remount,ro', d).ok, 'made read-only')
    const before = places.map(hashOf).join()
    db = await rig.open()
    t.equal(db.records.get('a'), 1, 'readable all the same')
    if (n - bad > n / 2) {
      t.equal(db.health, 'good')
      must(await db.commit(set('a', 2)))
      t.match((await db.status())[0]?.flags, /^[^a]{5} W/)
      for (const d of dirs.slice(0, bad)) run('mount', '-o', 'remount,rw', d)
      t.ok(await eventually(() => allGood(db)), 'repaired when writable')
    } else {
      t.equal(db.health, 'stale', `${bad} of ${n}`)
      t.equal((await db.commit(set('a', 2))).ok, false)
      t.equal(places.map(hashOf).join(), before, 'no byte changed')
      const added = await db.add([{ path: join(dirs[0] ?? '', 'x') }], { force: false, count: 1, length: null })
      t.equal(added.ok, false, 'no replica on a read-only file system')
    }
    await db.close()
  }
})

t.test('raw block devices', { skip: !root && 'needs root' }, async (t) => {
  const rig = makeRig(1)
  t.teardown(() => rig.remove())
  const image = join(rig.dir, 'disk')
  const small = join(rig.dir, 'small')
  writeFileSync(image, Buffer.alloc(6 << 20, 0xa5))
  writeFileSync(small, Buffer.alloc(3 << 20))
  const device = run('losetup', '--show', '-f', image).out
  const tiny = run('losetup', '--show', '-f', small).out
  if (device === '' || tiny === '') return t.comment('no loop devices here')
  t.teardown(() => {
    for (const d of [device, tiny]) run('losetup', '-d', d)
    run('rm', '-f', `${device}-lock`)
  })
  let db = await rig.open()
  const options = { force: true, count: 1, length: null }
  t.match(await db.add([{ path: tiny }], options), {
    ok: false,
    error: { code: 'replicaTooSmall', object: tiny, args: ['6144'] },
  })
  t.equal(db.health, 'none')
  must(await db.add([{ path: device }, { path: rig.replicas[0] ?? '' }], options))
  for (let i = 0; i < 200; i++) must(await db.commit(set(`k${i % 30}`, { i, text: 'y'.repeat(i * 10) })))
  t.match(await db.add([{ path: device }], options), { ok: false, error: { code: 'replicaExists', object: device } })
  t.ok(db.places().includes(device))
  await db.close()
  db = await rig.open()
  t.equal(db.health, 'good')
  t.ok(await allGood(db))
  t.match(db.records.get('k19'), { i: 199 })
  t.match((await db.status())[0], { path: device, firstBlock: 16, blocks: 8192 })
  must(await db.delete([{ path: device }], { force: false }))
  t.notOk(
    readFileSync(device)
      .subarray(0, 65536)
      .some((b) => b !== 0),
    'a deleted replica is not found again',
  )
  must(await db.add([{ path: device }], { ...options, force: false }))
  await db.close()
  // Two of two are needed: with the device's first pages gone the set is stale, and nobody writes to the device.
  const fd = await import('node:fs').then((fs) => fs.openSync(device, 'r+'))
  await import('node:fs').then((fs) => {
    fs.writeSync(fd, Buffer.alloc(65536, 0x11), 0, 65536, 0)
    fs.fsyncSync(fd)
    fs.closeSync(fd)
  })
  const before = hashOf(device)
  db = await rig.open()
  t.equal(db.health, 'stale')
  t.equal(hashOf(device), before)
  t.match(
    (await db.status()).find((r) => r.path === device),
    { firstBlock: null, blocks: null, flags: /^ {4}M/ },
  )
  must(await db.delete([{ path: device }], { force: false }))
  t.equal(hashOf(device), before, 'a device that is not known to be ours is not wiped either')
  await db.close()
  db = await rig.open()
  t.equal(db.health, 'good', 'deleting the broken one and starting again ends it')
  await db.close()
})
