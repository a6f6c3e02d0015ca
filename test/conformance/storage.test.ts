/**
 * The same battery on every sort of storage a component may lie on: a stripe of two, foreign clients, then a random
 * load compared with a byte array and at the end with the storage itself, read behind metad's back. Requests of a
 * batch run at once, span both components and lie side by side inside the same sectors: where a component wants
 * aligned I/O, neighbours must survive each other.
 *
 * SEED= replays.
 */
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  constants,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test as Tap } from 'tap'
import { CMD_FLAG } from '../../src/nbd/constants.js'
import { startMetad, type Metad, type Test } from '../tools/daemon.js'
import { faultyDisk } from '../tools/faultydisk.js'
import { missing, mustRun, sizeOf } from '../tools/foreign.js'
import { attachLoop, detachLoop } from '../tools/fuse.js'
import { missingBlock } from '../tools/mounts.js'
import { NbdClient } from '../tools/nbdclient.js'
import { seed } from '../tools/seed.js'

const MEBIBYTES = 8
const BATCHES = 50
const INTERLACE = 16 << 10

let state = seed
/** 0 to n - 1. */
const pick = (n: number): number => {
  state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0
  return (state >>> 5) % n
}

interface Place {
  /** What metainit gets. */
  readonly component: string
  /** Where the bytes are to be found without metad. */
  readonly behind: string
  readonly conf: string
}
interface Storage {
  readonly name: string
  /** Whether metad must have it open with O_DIRECT. */
  readonly direct: boolean
  readonly skip: string | false
  readonly make: (t: Test, directory: string) => Promise<Place>
}

const file = (path: string): string => {
  closeSync(openSync(path, 'a'))
  truncateSync(path, MEBIBYTES << 20)
  return path
}

/** Value for `skip`: whether files of this directory open with O_DIRECT. */
const missingDirect = (directory: string): string | false => {
  const made = mkdtempSync(join(directory, 'direct-'))
  try {
    closeSync(openSync(file(join(made, 'probe')), constants.O_RDWR | constants.O_DIRECT))
    return false
  } catch {
    return `no O_DIRECT in ${directory}`
  } finally {
    rmSync(made, { recursive: true })
  }
}

const loop =
  (sector: number, conf: string) =>
  async (t: Test, directory: string): Promise<Place> => {
    const behind = file(join(directory, 'image'))
    const device = await attachLoop(behind, '-b', String(sector))
    t.teardown(() => detachLoop(device))
    return { component: device, behind, conf: conf === '' ? '' : `io ${device} = ${conf}\n` }
  }

const plain =
  (conf: (path: string) => string) =>
  (_t: Test, directory: string): Promise<Place> => {
    const behind = file(join(directory, 'image'))
    return Promise.resolve({ component: behind, behind, conf: conf(behind) })
  }

const SHM = '/dev/shm'
const STORAGE: readonly Storage[] = [
  {
    name: 'a file, through the page cache',
    direct: false,
    skip: false,
    make: plain((path) => `io ${path} = buffered\n`),
  },
  {
    name: 'a file, O_DIRECT',
    direct: true,
    skip: missingDirect(tmpdir()),
    make: plain((path) => `io ${path} = direct\n`),
  },
  { name: 'a disk of 512-byte sectors', direct: true, skip: missingBlock(), make: loop(512, '') },
  { name: 'a disk of 4096-byte sectors', direct: true, skip: missingBlock(), make: loop(4096, '') },
  { name: 'a disk, through the page cache', direct: false, skip: missingBlock(), make: loop(512, 'buffered') },
  {
    name: 'a file in memory',
    direct: false,
    skip: existsSync(SHM) ? false : `no ${SHM}`,
    make: (t) => {
      const inside = mkdtempSync(join(SHM, 'storage-'))
      t.teardown(() => Promise.resolve(rmSync(inside, { recursive: true })))
      return plain(() => '')(t, inside)
    },
  },
  {
    name: 'a file on FUSE',
    direct: false,
    skip: missing('nbdkit', 'nbdfuse', 'fusermount3'),
    make: async (t, directory) => {
      const { path } = await faultyDisk(t, directory, MEBIBYTES)
      return { component: path, behind: path, conf: '' }
    },
  },
]

const content = (path: string, offset: number, length: number): Buffer => {
  const fd = openSync(path, 'r')
  try {
    const into = Buffer.alloc(length)
    let done = 0
    while (done < length) {
      const n = readSync(fd, into, done, length - done, offset + done)
      if (n === 0) break
      done += n
    }
    return into.subarray(0, done)
  } finally {
    closeSync(fd)
  }
}

/** Whether metad has it open past the page cache. */
const isDirect = (metad: Metad, path: string): boolean => {
  const at = `/proc/${metad.pid() ?? 0}`
  const fds = readdirSync(`${at}/fd`).filter((fd) => {
    try {
      return readlinkSync(`${at}/fd/${fd}`) === path
    } catch {
      return false
    }
  })
  if (fds.length === 0) throw new Error(`${path} is not open`)
  return fds.some((fd) => {
    const flags = /^flags:\s*([0-7]+)/m.exec(readFileSync(`${at}/fdinfo/${fd}`, 'utf8'))?.[1] ?? '0'
    return (Number.parseInt(flags, 8) & constants.O_DIRECT) !== 0
  })
}

/** What the components hold of the metadevice, each from `begins` on. */
const together = (places: readonly Place[], begins: number, size: number): Buffer => {
  const columns = places.map((p) => content(p.behind, begins, Math.ceil(size / places.length)))
  const whole = Buffer.alloc(size)
  for (let at = 0, i = 0; at < size; at += INTERLACE, i++)
    columns[i % columns.length]?.copy(
      whole,
      at,
      Math.floor(i / columns.length) * INTERLACE,
      (Math.floor(i / columns.length) + 1) * INTERLACE,
    )
  return whole
}

/** Side by side, beginning anywhere: most of them small and in the same sectors. */
const batch = (size: number): readonly { readonly offset: number; readonly length: number }[] => {
  const ranges: { offset: number; length: number }[] = []
  let at = pick(size)
  while (ranges.length < 8) {
    const length = pick(4) === 0 ? 1 + pick(200_000) : 1 + pick(1500)
    if (at + length > size) break
    ranges.push({ offset: at, length })
    at += length + (pick(2) === 0 ? 0 : pick(700))
  }
  return ranges
}

t.setTimeout(280_000)
t.comment(`SEED=${seed}`)
const ENOUGH = missing('qemu-io', 'fio', 'nbdcopy')

const placesOf = new Map<Storage, readonly Place[]>()
for (const storage of STORAGE) {
  if (storage.skip !== false) continue
  const places: Place[] = []
  for (const _ of [1, 2]) {
    const directory = mkdtempSync(join(tmpdir(), 'storage-'))
    t.teardown(() => rmSync(directory, { recursive: true, force: true }))
    places.push(await storage.make(t, directory))
  }
  placesOf.set(storage, places)
}
const conf = [...placesOf.values()].flat().map((p) => p.conf)
const metad = await startMetad(t, { conf: `threads = 2\n${conf.join('')}` })
metad.must('metadb', ['-a', '-f', ...[0, 1, 2].map((i) => join(metad.root, `disks/replica${i}`))])

/** Foreign clients; the device holds random bytes afterwards, which are answered. */
const foreignClients = async (t: Tap, name: string): Promise<Buffer> => {
  const uri = metad.nbdUri(name)
  const io = ['write -P 0x11 1 3M', 'write -f -P 0x22 65000 3000', 'write -z 1M 64k', 'discard 2M 64k', 'flush']
  const back = ['read -P 0x22 65000 3000', 'read -P 0 1M 64k', 'read -P 0x11 2500k 500k']
  const said = await mustRun('qemu-io', ['-f', 'raw', ...[...io, ...back].flatMap((c) => ['-c', c]), uri])
  t.notMatch(said, /failed|error/i, 'qemu-io')
  const load = ['--name=v', '--ioengine=nbd', `--uri=${uri}`, '--rw=randwrite', '--bsrange=512-64k', '--size=4M']
  const check = ['--blockalign=512', '--iodepth=16', '--verify=crc32c', '--verify_fatal=1', '--fsync=64']
  await mustRun('fio', [...load, ...check, `--aux-path=${metad.root}`])
  const image = join(metad.root, 'image')
  writeFileSync(image, randomBytes(sizeOf(metad, name)))
  await mustRun('nbdcopy', ['--flush', image, uri])
  return readFileSync(image)
}

/** Batches of writes and zeroes on two connections, each followed by a read; `model` follows. */
const randomLoad = async (t: Tap, one: NbdClient, two: NbdClient, model: Buffer): Promise<void> => {
  for (let i = 0; i < BATCHES; i++) {
    const errors = await Promise.all(
      batch(model.length).map(async ({ offset, length }) => {
        const client = pick(2) === 0 ? one : two
        const fua = pick(3) === 0 ? CMD_FLAG.fua : 0
        if (pick(4) === 0) {
          model.fill(0, offset, offset + length)
          return (await client.zero(BigInt(offset), length, fua | (pick(2) === 0 ? CMD_FLAG.noHole : 0))).error
        }
        const data = Buffer.alloc(length, Buffer.from([1 + pick(255), 1 + pick(255), 1 + pick(255)]))
        data.copy(model, offset)
        return (await client.write(BigInt(offset), data, fua)).error
      }),
    )
    if (errors.some((e) => e !== 0)) t.fail(`batch ${i}: ${errors.join(' ')}`)
    const from = pick(model.length)
    const length = Math.min(model.length - from, 1 + pick(400_000))
    const read = await (pick(2) === 0 ? one : two).read(BigInt(from), length)
    if (!read.data.equals(model.subarray(from, from + length))) t.fail(`batch ${i}: read of ${length} at ${from}`)
  }
}

const held: { readonly storage: Storage; readonly places: readonly Place[]; readonly model: Buffer }[] = []
for (const [i, storage] of STORAGE.entries()) {
  t.test(storage.name, { skip: storage.skip }, async (t) => {
    const places = placesOf.get(storage) ?? []
    const name = `d${i}`
    metad.must('metainit', [name, '1', '2', ...places.map((p) => p.component), '-i', '16k'])
    if (ENOUGH !== false) t.comment(ENOUGH)
    const model = ENOUGH === false ? await foreignClients(t, name) : Buffer.alloc(sizeOf(metad, name))
    for (const { component } of places)
      t.equal(isDirect(metad, component), storage.direct, storage.direct ? 'O_DIRECT' : 'page cache')
    const [one, two] = [await NbdClient.open(metad.socket, { name }), await NbdClient.open(metad.socket, { name })]
    await randomLoad(t, one, two, model)
    // A trim may leave anything, so what it touched is written again.
    t.equal((await one.trim(4096n, 1_000_000)).error, 0)
    t.equal((await two.cache(0n, model.length)).error, 0)
    t.equal((await two.write(4096n, model.subarray(4096, 1_004_096))).error, 0)
    t.equal((await one.flush()).error, 0)
    const marker = Buffer.from(`metadisk ${seed} marks where ${name} begins`.padEnd(64))
    t.equal((await one.write(0n, marker, CMD_FLAG.fua)).error, 0)
    marker.copy(model)
    if (ENOUGH === false) {
      await mustRun('nbdcopy', [metad.nbdUri(name), join(metad.root, 'image')])
      t.ok(readFileSync(join(metad.root, 'image')).equals(model), 'nbdcopy')
    }
    await Promise.all([one.disconnect(), two.disconnect()])
    held.push({ storage, places, model })
  })
}

t.test('the storage holds, byte for byte, what the clients wrote', async (t) => {
  t.equal(await metad.stop(), 0)
  for (const { storage, places, model } of held) {
    const begins = content(places[0]?.behind ?? '', 0, 1 << 20).indexOf(model.subarray(0, 64))
    t.ok(begins >= 0 && together(places, begins, model.length).equals(model), storage.name)
  }
  t.equal(held.length, placesOf.size)
})
