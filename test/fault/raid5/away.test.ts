/** Columns that are not there when metad starts, and a state database that may not be written. */
import { existsSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Metad, startMetad } from '../../tools/daemon.js'
import { NbdClient } from '../../tools/nbdclient.js'
import { answered, isOkay, MIB, pattern } from './rig.js'

t.setTimeout(1_200_000)
const OFFSET = BigInt(5 * MIB + 512)
const DATA = pattern(7, 96 << 10)

interface Away {
  readonly metad: Metad
  /** Takes a column's file away, or brings it back. */
  readonly move: (...columns: readonly string[]) => void
  readonly client: () => Promise<NbdClient>
  readonly reads: (what: string) => Promise<void>
  readonly stat: () => string
  readonly okay: () => Promise<void>
}

/** d5 holds DATA, flushed, and metad was killed: its journal has something to replay. */
const away = async (t: Test, conf = ''): Promise<Away> => {
  const metad = await startMetad(t, { conf })
  const disks = ['a', 'b', 'c'].map((d) => metad.disk(d, 24))
  metad.must('metadb', ['-a', '-f', join(metad.root, 'db1'), join(metad.root, 'db2')])
  metad.must('metainit', ['d5', '-r', ...disks, '-i', '16k'])
  const stat = (): string => metad.must('metastat', ['d5'])
  const okay = async (): Promise<void> => {
    for (const end = Date.now() + 60_000; !isOkay(stat()); await sleep(50))
      if (Date.now() > end) throw new Error(`not Okay:\n${stat()}\n${metad.log()}`)
  }
  const client = async (): Promise<NbdClient> => {
    const nbd = await NbdClient.open(metad.socket, { name: 'd5' })
    t.teardown(() => nbd.destroy())
    return nbd
  }
  await okay()
  const nbd = await client()
  t.equal(await answered(nbd.write(OFFSET, DATA)), 0)
  t.equal(await answered(nbd.flush()), 0)
  nbd.destroy()
  await metad.kill9()
  return {
    metad,
    stat,
    okay,
    client,
    move: (...columns) => {
      for (const c of columns) {
        const here = join(metad.root, 'disks', c)
        const there = join(metad.root, `${c}.away`)
        if (existsSync(here)) renameSync(here, there)
        else renameSync(there, here)
      }
    },
    reads: async (what) => {
      const nbd = await client()
      const { error, data } = await nbd.read(OFFSET, DATA.length)
      t.ok(error === 0 && data.equals(DATA), what)
      nbd.destroy()
    },
  }
}

t.test('one column is away, and back before anybody came: nothing is recorded, everything is replayed', async (t) => {
  const { metad, move, reads, stat } = await away(t)
  move('c')
  await metad.start()
  t.match(stat(), /c +\d+ +\S+ +Unavailable/)
  t.notMatch(metad.log(), /journal replayed/, 'a replay without it would leave it behind')
  move('c')
  metad.must('metastat', ['-i'])
  t.ok(isOkay(stat()), stat())
  t.match(metad.log(), /journal replayed/)
  await reads('as it was written')
  t.equal(metad.must('metasync', ['--verify', 'd5']), 'd5: parity is right\n')
})

t.test('one column is away when a client comes: it is in Maintenance first, and stays so', async (t) => {
  const { metad, move, okay, reads, stat } = await away(t)
  move('b')
  await metad.start()
  await reads('without it')
  t.match(stat(), /State: Needs Maintenance/)
  t.match(metad.log(), /d5 failed to open. open error on/)
  t.equal(await metad.stop(), 0)
  move('b')
  await metad.start()
  t.match(stat(), /State: Needs Maintenance/, 'it missed what was written')
  await reads('after a restart')
  metad.must('metareplace', ['-e', 'd5', join(metad.root, 'disks/b')])
  await okay()
  t.equal(metad.must('metasync', ['--verify', 'd5']), 'd5: parity is right\n')
  await metad.kill9()
  move('a')
  await metad.start()
  await reads('from what was regenerated')
})

t.test('two columns are away: unavailable, nothing is recorded, and all is well when they are back', async (t) => {
  const { metad, client, move, reads, stat } = await away(t)
  move('a', 'b')
  await metad.start()
  t.match(stat(), /State: Unavailable/)
  await t.rejects(client(), 'nobody is let in')
  move('a', 'b')
  metad.must('metastat', ['-i'])
  t.ok(isOkay(stat()), stat())
  await reads('as it was written')
})

t.test('a stale state database: not served, because its start would write; well again, it is', async (t) => {
  const { metad, client, reads } = await away(t)
  renameSync(join(metad.root, 'db2'), join(metad.root, 'db2.away'))
  await metad.start()
  await t.rejects(client(), 'nobody is let in')
  t.notMatch(metad.log(), /journal replayed/)
  await metad.stop()
  renameSync(join(metad.root, 'db2.away'), join(metad.root, 'db2'))
  await metad.start()
  await reads('as it was written')
  t.match(metad.log(), /journal replayed/)
})

t.test('a column that only waits to join is away: the device is served, and grows when it is back', async (t) => {
  const { metad, client, move, okay, reads, stat } = await away(t, 'resync_bytes_per_second = 4194304\n')
  await metad.start()
  const { size } = await client()
  metad.must('metattach', ['d5', metad.disk('d', 24)])
  await metad.kill9()
  move('d')
  await metad.start()
  await reads('without it')
  t.equal((await client()).size, size, 'not larger yet')
  t.notMatch(stat(), /Needs Maintenance/)
  move('d')
  metad.must('metastat', ['-i'])
  await okay()
  t.ok((await client()).size > size, 'larger')
  await reads('as before')
})

for (const opened of [false, true])
  t.test(`columns are attached while one is away, ${opened ? 'and a client comes' : 'and nobody comes'}`, async (t) => {
    const { metad, client, move, okay, reads, stat } = await away(t)
    await metad.start()
    const before = await client()
    const { size } = before
    before.destroy()
    t.equal(await metad.stop(), 0)
    move('c')
    await metad.start()
    metad.must('metattach', ['d5', metad.disk('d', 24)])
    metad.must('metasync', ['d5'])
    await sleep(200)
    t.match(stat(), /c +\d+ +\S+ +Unavailable/, 'it may only be a cable')
    t.match(stat(), /Initializing/)
    if (opened) {
      await reads('without it')
      for (const end = Date.now() + 60_000; (await client()).size === size; await sleep(50))
        if (Date.now() > end) throw new Error(`does not grow:\n${stat()}`)
      t.match(stat(), /State: Needs Maintenance/)
      await reads('grown without it')
    }
    move('c')
    if (opened) metad.must('metareplace', ['-e', 'd5', join(metad.root, 'disks/c')])
    else metad.must('metastat', ['-i'])
    await okay()
    t.ok((await client()).size > size, 'larger')
    await reads('as before')
    t.equal(metad.must('metasync', ['--verify', 'd5']), 'd5: parity is right\n')
  })

t.test('what a column is copied to is away for a while: it is copied from the beginning', async (t) => {
  const conf = 'resync_bytes_per_second = 4194304\nresync_checkpoint_seconds = 1\n'
  const { metad, client, move, okay, reads, stat } = await away(t, conf)
  await metad.start()
  metad.must('metareplace', ['d5', join(metad.root, 'disks/b'), metad.disk('d', 24)])
  const percent = (): number => Number(/Resync in progress: +([\d.]+)%/.exec(stat())?.[1] ?? 0)
  for (const end = Date.now() + 60_000; percent() < 40; await sleep(50))
    if (Date.now() > end) throw new Error(`not under way:\n${stat()}`)
  await metad.kill9()
  move('d')
  await metad.start()
  const nbd = await client()
  const later = pattern(8, 512 << 10)
  t.equal(await answered(nbd.write(0n, later)), 0, 'below what was copied')
  t.equal(await answered(nbd.flush()), 0)
  move('d')
  metad.must('metastat', ['-i'])
  await okay()
  const begun = [...metad.log().matchAll(/"target":\{"kind":"copy","column":1\},"from":(\d+),"msg":"job begins"/g)]
  t.same([begun.length, begun.at(-1)?.[1]], [2, '0'])
  t.equal(metad.must('metasync', ['--verify', 'd5']), 'd5: parity is right\n')
  const got = await nbd.read(0n, later.length)
  t.ok(got.error === 0 && got.data.equals(later), 'as it was written')
  await reads('as before')
})
