/** Headers of RAID5 columns on real files, through every way in which a column may be open. */
import { closeSync, constants, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { err, ok } from '../../../src/base/result.js'
import { blocks } from '../../../src/base/units.js'
import type { Opener } from '../../../src/daemon/limited.js'
import { gatherHeaders, writeHeaders } from '../../../src/daemon/raid5headers.js'
import { encodeHeader, headerOf } from '../../../src/meta/raid5header.js'
import type { Device, Raid5Unit, Tree } from '../../../src/meta/types.js'
import { errorText, type MetaResult, metaError } from '../../../src/msg/errors.js'
import type { ComponentId } from '../../../src/plan/types.js'
import { HOST_FILES } from '../../../src/sys/hostfiles.js'
import { CYLINDER, device, inventoryOf, metainit, name, refusals } from '../meta/world.js'

const open = new Set<number>()
const opener = (align: number): Opener => {
  const fds = new Map<string, number>()
  return {
    acquire: (slice) => {
      const direct = align > 512
      const fd = openSync(slice.path, constants.O_RDWR | (direct ? constants.O_DIRECT : 0))
      fds.set(slice.path, fd)
      open.add(fd)
      const component = 1 as ComponentId
      return Promise.resolve(
        ok({ component, fd, direct, align, blockDevice: false, size: slice.size, timeoutMillis: 0 }),
      )
    },
    release: (slice) => {
      const fd = fds.get(slice.path) ?? -1
      open.delete(fd)
      closeSync(fd)
    },
  }
}

interface Disks {
  readonly devices: readonly Device[]
  readonly words: string
  readonly unit: Raid5Unit
}
const raid5In = (tree: Tree): Raid5Unit => {
  const unit = tree.get(name('d5'))
  if (unit?.kind !== 'raid5') throw new Error('no d5')
  return unit
}
/** Three files full of something, a device on them; the second column does not begin on a page. */
const disks = (t: Test): Disks => {
  const dir = t.testdir({})
  const devices = ['a', 'b', 'c'].map((n, i) => {
    const path = join(dir, n)
    writeFileSync(path, Buffer.alloc(4 * CYLINDER * 512, `content of ${n}`))
    const size = 4 * CYLINDER - 1
    return i === 1 ? device(path, size, { offset: blocks(1) }) : device(path, size)
  })
  const words = devices.map((d) => d.path).join(' ')
  const made = metainit(`d5 -r ${words} -i 16b`, { inventory: inventoryOf(devices) })
  return { devices, words, unit: raid5In(made.outcome.tree) }
}
const why = (r: MetaResult<unknown>): string => (r.ok ? 'done' : errorText(r.error))
const ALL = [0, 1, 2]
const SLOW = { limitSeconds: 30, files: HOST_FILES }
const keep = async ({ devices, words }: Disks, line = `d5 -r ${words} -k -i 16b`) =>
  metainit(line, { inventory: inventoryOf(devices), headers: await gatherHeaders(devices, 0) })

t.test('written, and found again by -k; nothing else is changed', async (t) => {
  for (const align of [512, 4096])
    await t.test(`${align} bytes`, async (t) => {
      const at = disks(t)
      t.match(refusals(await keep(at))[0], /^d5: devices were not RAIDed previously/)
      const before = at.devices.map((d) => readFileSync(d.path))
      t.equal(why(await writeHeaders(at.unit, ALL, opener(align), { ...SLOW, inService: false })), 'done')
      for (const [i, d] of at.devices.entries()) {
        const header = headerOf(at.unit, i)
        const want = Buffer.from(before[i] ?? [])
        want.set(header === null ? [] : encodeHeader(header), (d.offset + (at.unit.columns[i]?.start ?? 0)) * 512)
        t.ok(readFileSync(d.path).equals(want), d.name)
      }
      const again = await keep(at)
      t.same(refusals(again), [])
      t.match(raid5In(again.outcome.tree), { lines: at.unit.lines, prewrite: at.unit.prewrite })
      t.same(refusals(await keep(at, `d5 -r ${at.words.split(' ').reverse().join(' ')} -k -i 16b`)).length, 1)
      t.equal(open.size, 0)
    })
})

t.test('what is right already is not written; with the engine at work the neighbours are left alone', async (t) => {
  const at = disks(t)
  const never = { ...HOST_FILES, write: () => Promise.reject(new Error('written')) }
  const now = (align: number, inService: boolean, files = HOST_FILES) =>
    writeHeaders(at.unit, ALL, opener(align), { limitSeconds: 30, inService, files })
  t.equal(why(await now(4096, true, never)), 'done', 'not written')
  t.equal(why(await now(512, true)), 'done')
  t.equal(why(await now(512, true, never)), 'done', 'there already')
  t.equal(why(await now(4096, false, never)), 'done')
  const joining = { ...at.unit, columns: [...at.unit.columns, ...at.unit.columns.slice(0, 1)] }
  const header = (u: Raid5Unit) =>
    writeHeaders(u, [0], opener(512), { limitSeconds: 30, inService: false, files: never })
  t.equal(why(await header(joining)), 'done', 'a column that is to join is not part of it')
  await t.rejects(header({ ...joining, serving: 4 }), /written/)
})

t.test('a column that fails is named', async (t) => {
  const at = disks(t)
  const how = { ...SLOW, inService: false }
  const fails = (code: string) => Promise.reject(Object.assign(new Error(code), { code }))
  for (const [files, text] of [
    [{ ...HOST_FILES, read: () => fails('EIO') }, 'Input/output error'],
    [{ ...HOST_FILES, write: () => fails('ENOSPC') }, 'No space left on device'],
    [{ ...HOST_FILES, sync: () => fails('EIO') }, 'Input/output error'],
  ] as const)
    t.match(await writeHeaders(at.unit, [1], opener(512), { ...how, files }), {
      ok: false,
      error: { object: at.devices[1]?.name, args: [text] },
    })
  const refusing: Opener = {
    acquire: (s) => Promise.resolve(err(metaError('replaced', s.name))),
    release: () => t.fail('nothing was opened'),
  }
  t.equal(why(await writeHeaders(at.unit, ALL, refusing, how)), 'storage was replaced since it was configured')
  t.equal(why(await writeHeaders(at.unit, [7], opener(512), how)), 'Invalid argument')
  t.equal(open.size, 0)
})

t.test('the journal ends for all columns, or for none', async (t) => {
  const at = disks(t)
  const journals = async () =>
    (await gatherHeaders(at.devices, 0).then((found) => at.devices.map((d) => found(d)))).map((f) =>
      f.ok ? f.value?.header.journal : null,
    )
  const how = { ...SLOW, inService: false }
  t.equal(why(await writeHeaders(at.unit, ALL, opener(512), how)), 'done')
  const before = await journals()
  t.not(before[0], 0)
  const away: Opener = {
    ...opener(512),
    acquire: (s) =>
      s.path === at.devices[2]?.path ? Promise.resolve(err(metaError('replaced', s.name))) : opener(512).acquire(s),
    release: () => undefined,
  }
  t.equal(
    why(await writeHeaders(at.unit, ALL, away, { ...how, inPlace: true })),
    'storage was replaced since it was configured',
  )
  t.same(await journals(), before, 'one could not be opened')
  for (const fd of open) closeSync(fd)
  open.clear()
  let syncs = 0
  const failing = {
    ...HOST_FILES,
    sync: (fd: number) =>
      ++syncs === 3 ? Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' })) : HOST_FILES.sync(fd),
  }
  t.equal(
    why(await writeHeaders(at.unit, ALL, opener(512), { ...how, inPlace: true, files: failing })),
    'Input/output error',
  )
  t.same(await journals(), before, 'one could not be synced')
  t.equal(why(await writeHeaders(at.unit, ALL, opener(512), { ...how, inPlace: true })), 'done')
  t.same(await journals(), [0, 0, 0])
})

t.test('a journal of Solaris with writes in it', async (t) => {
  const at = disks(t)
  // The form of a 32-bit unit on SPARC (driver.md 4.4): slots of 17 blocks, ten of them.
  for (const [i, d] of at.devices.entries()) {
    const file = readFileSync(d.path)
    const first = (d.offset + (at.unit.columns[i]?.start ?? 0)) * 512
    file.fill(0, first, first + 170 * 512)
    const values = [i, 9, 0xbadbabe3, 3, 3, 16, 300, 10, 170, 170, 0]
    for (const [n, value] of values.entries()) file.writeUInt32BE(value, first + 36 + n * 4)
    writeFileSync(d.path, file)
  }
  const kept = await keep(at)
  t.same(refusals(kept), [])
  t.match(raid5In(kept.outcome.tree), { lines: 300, prewrite: 170, slots: 10 })
  const [, b] = at.devices
  if (b === undefined) throw new Error('no disk')
  const file = readFileSync(b.path)
  file.writeUInt32BE(0xbadbabe3, (b.offset + 9 * 17) * 512)
  writeFileSync(b.path, file)
  t.match(refusals(await keep(at))[0], `d5: ${b.name}: journal holds writes that are not in place yet`)
})

t.test('what cannot be read is an error, what ends too early is no header', async (t) => {
  const dir = t.testdir({ short: 'x' })
  const gone = device(join(dir, 'gone'), 100)
  const short = device(join(dir, 'short'), 100)
  const labelled = device(join(dir, 'short'), 100, { name: 'c0', labelAtStart: true })
  const headers = await gatherHeaders([gone, short, labelled], 1000)
  t.equal(why(headers(gone)), 'No such file or directory')
  t.equal(why(headers(short)), 'Input/output error')
  t.same(headers(labelled), { ok: true, value: null }, 'nothing is left behind the label')
  t.same(headers(device('other', 1)), { ok: true, value: null })
  const cut = Buffer.alloc(50 * 512)
  for (const [n, value] of [0, 9, 0xbadbabe3, 3, 3, 16, 300, 10, 170, 170, 0].entries())
    cut.writeUInt32BE(value, 36 + n * 4)
  writeFileSync(join(dir, 'cut'), cut)
  const small = device(join(dir, 'cut'), 50)
  t.same((await gatherHeaders([small], 1000))(small), { ok: true, value: null }, 'its journal would not fit')
})
