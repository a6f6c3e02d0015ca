/** What the administrator and the clients of a RAID5 device see: made, written, killed, degraded, repaired, grown, cleared. */
import { closeSync, openSync, writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { missingFaultDisk } from '../../tools/faultdisk.js'
import { NbdClient } from '../../tools/nbdclient.js'
import { answered, CONF, isOkay, MIB, pattern, rig, type Rig } from './rig.js'

t.setTimeout(1_200_000)
const skip = missingFaultDisk()
const EIO = 5

/** Places that no two tests share: seed, offset and length. */
const PLACES = [
  [1, 0, 64 << 10],
  [2, 3 * MIB + 512, 4096],
  [3, 7 * MIB + 1536, 200 << 10],
  [4, 20 * MIB, 512],
] as const

const writeAll = async (t: Test, nbd: NbdClient, salt = 0): Promise<void> => {
  for (const [seed, offset, length] of PLACES)
    t.equal(await answered(nbd.write(BigInt(offset), pattern(seed + salt, length))), 0, `write ${offset}`)
}
const readAll = async (t: Test, nbd: NbdClient, what: string, salt = 0): Promise<void> => {
  for (const [seed, offset, length] of PLACES) {
    const answer = await nbd.read(BigInt(offset), length)
    t.ok(answer.error === 0 && answer.data.equals(pattern(seed + salt, length)), `${what}: ${offset}`)
  }
}
const parityIsRight = (t: Test, { metad }: Rig, what: string): void => {
  t.equal(metad.must('metasync', ['--verify', 'd5']), 'd5: parity is right\n', what)
}

t.test('kill -9: what was flushed is there again, and the journal is replayed once', { skip }, async (t) => {
  const r = await rig(t)
  const nbd = await r.client()
  await writeAll(t, nbd)
  t.equal(await answered(nbd.flush()), 0)
  await r.again()
  await readAll(t, await r.client(), 'after the kill')
  t.match(r.metad.log(), /"groups":[1-9]\d*,"blocks":\d+,"msg":"journal replayed"/)
  const replays = (): number => r.metad.log().split('journal replayed').length - 1
  const before = replays()
  await r.again()
  t.equal(replays(), before, 'nothing of an older epoch is replayed')
  await readAll(t, await r.client(), 'after another')
  parityIsRight(t, r, 'parity')
  t.equal(await r.metad.stop(), 0)
})

t.test('SIGTERM brings everything to the columns, flushed or not', { skip }, async (t) => {
  const r = await rig(t)
  await writeAll(t, await r.client())
  t.equal(await r.metad.stop(), 0)
  await r.metad.start()
  await readAll(t, await r.client(), 'after the stop')
  parityIsRight(t, r, 'parity')
})

t.test('a column fails: nobody sees it, a crash then loses nothing, metareplace -e repairs it', { skip }, async (t) => {
  const r = await rig(t)
  const { metad, disks } = r
  const nbd = await r.client()
  await writeAll(t, nbd)
  disks.tell('b fail write,sync EIO')
  await writeAll(t, nbd, 10)
  t.equal(await answered(nbd.flush()), 0, 'the client sees no error')
  const bad = r.stat()
  t.match(bad, /State: Needs Maintenance/)
  t.match(bad, `Invoke: metareplace d5 ${disks.path('b')} <new device>`)
  t.match(metad.log(), /d5: \S*b needs maintenance/)
  await readAll(t, nbd, 'degraded', 10)
  await r.again()
  await readAll(t, await r.client(), 'degraded, after a kill', 10)
  disks.tell('b ok')
  t.match(metad.must('metareplace', ['-e', 'd5', disks.path('b')]), /^d5: device \S*b is enabled\n$/)
  await r.until('in step', isOkay)
  parityIsRight(t, r, 'parity after the resync')
  disks.tell('a fail all EIO')
  await readAll(t, await r.client(), 'from what was regenerated', 10)
  disks.tell('a ok')
})

t.test(
  'a column that is gone at the start: recorded when the first client comes, and replayed without it',
  { skip },
  async (t) => {
    const r = await rig(t)
    const { metad, disks } = r
    const nbd = await r.client()
    await writeAll(t, nbd)
    t.equal(await answered(nbd.flush()), 0)
    disks.tell('c fail all EIO')
    nbd.destroy()
    await metad.kill9()
    await metad.start()
    await readAll(t, await r.client(), 'without the column')
    t.match(r.stat(), /State: Needs Maintenance/)
    disks.tell('c ok')
    metad.must('metareplace', ['-e', 'd5', disks.path('c')])
    await r.until('in step', isOkay)
    parityIsRight(t, r, 'parity')
  },
)

t.test('a second failure costs writes, not data, and ends when the column is back', { skip }, async (t) => {
  const r = await rig(t)
  const { metad, disks } = r
  const nbd = await r.client()
  await writeAll(t, nbd)
  t.equal(await answered(nbd.flush()), 0)
  disks.tell('a fail all EIO')
  t.equal(await answered(nbd.write(0n, pattern(1, 64 << 10))), 0)
  t.equal(await answered(nbd.flush()), 0)
  disks.tell('b fail write EIO')
  const first = await answered(nbd.write(BigInt(MIB), pattern(8, 4096)))
  t.ok(first === EIO || (await answered(nbd.flush())) === EIO, 'the client is told')
  t.match(r.stat(), /Last Erred/)
  await readAll(t, nbd, 'what can be read is read')
  disks.tell('b ok')
  metad.must('metastat', ['-i'])
  t.equal(await answered(nbd.write(BigInt(MIB), pattern(9, 4096))), 0)
  t.equal(await answered(nbd.flush()), 0)
  t.ok((await nbd.read(BigInt(MIB), 4096)).data.equals(pattern(9, 4096)))
  disks.tell('a ok')
  metad.must('metareplace', ['-e', 'd5', disks.path('a')])
  await r.until('in step', isOkay)
  await readAll(t, nbd, 'whole again')
  parityIsRight(t, r, 'parity')
})

t.test('a column hangs: given up after its time limit, and a client goes on', { skip }, async (t) => {
  const r = await rig(t)
  const { metad, disks } = r
  const nbd = await r.client()
  await writeAll(t, nbd)
  disks.tell('c hang all')
  await writeAll(t, nbd, 40)
  t.equal(await answered(nbd.flush()), 0)
  t.match(r.stat(), /State: Needs Maintenance/)
  await readAll(t, nbd, 'without the column', 40)
  disks.tell('c ok')
  await r.until('usable again', () => metad.run('metareplace', ['-e', 'd5', disks.path('c')]).status === 0)
  await r.until('in step', isOkay)
  parityIsRight(t, r, 'parity')
})

t.test('a resync goes on where it was, after SIGKILL', { skip }, async (t) => {
  const r = await rig(t, `${CONF}resync_bytes_per_second = 4194304\n`)
  const { metad, disks } = r
  const nbd = await r.client()
  await writeAll(t, nbd)
  disks.tell('b fail write,sync EIO')
  await writeAll(t, nbd, 50)
  t.equal(await answered(nbd.flush()), 0)
  disks.tell('b ok')
  metad.must('metareplace', ['-e', 'd5', disks.path('b')])
  await r.until('under way', (s) => Number(/Resync in progress: +([\d.]+)%/.exec(s)?.[1] ?? 0) > 30)
  await writeAll(t, nbd, 60)
  t.equal(await answered(nbd.flush()), 0)
  await r.again()
  await r.until('in step', isOkay)
  const begun = [
    ...metad.log().matchAll(/"target":\{"kind":"regenerate","column":1\},"from":(\d+),"msg":"job begins"/g),
  ]
  t.ok(Number(begun.at(-1)?.[1]) > 0, `it went on from ${begun.at(-1)?.[1]}`)
  parityIsRight(t, r, 'parity')
  disks.tell('a fail all EIO')
  await readAll(t, await r.client(), 'from the column that was made again', 60)
  disks.tell('a ok')
})

t.test('a copy goes on where it was, after SIGKILL, with what was written meanwhile', { skip }, async (t) => {
  const r = await rig(t, `${CONF}resync_bytes_per_second = 4194304\n`)
  const { metad, disks } = r
  const nbd = await r.client()
  await writeAll(t, nbd)
  const replaced = metad.must('metareplace', ['d5', disks.path('b'), disks.path('t')])
  t.match(replaced, /^d5: device \S*b is replaced with \S*t\n$/)
  const shown = await r.until('under way', (s) => Number(/Resync in progress: +([\d.]+)%/.exec(s)?.[1] ?? 0) > 30)
  t.match(
    shown,
    /^d5: RAID\n {4}State: Resyncing {4}\n {4}Resync in progress: [3-9]\d\.\d% done\n {4}Interlace: 32 blocks\n/,
  )
  t.match(shown, /\/a .* Okay .*\n.*\/t .* Resyncing .*\n.*\/c .* Okay/, 'the new disk in place of the old one')
  t.notMatch(shown, /\/b +\d+ .* Okay/)
  const { units } = JSON.parse(metad.must('metastat', ['--json', 'd5'])) as {
    readonly units: readonly {
      readonly work: { readonly doneBlocks: number; readonly totalBlocks: number }
      readonly original: { readonly columns: readonly unknown[] }
    }[]
  }
  t.match(units, [{ state: 'Resyncing', invoke: null, work: { work: 'resync', running: true } }])
  t.match(units[0]?.original.columns, [
    { state: 'Okay' },
    { device: disks.path('t'), state: 'Resyncing' },
    { state: 'Okay' },
  ])
  const { doneBlocks, totalBlocks } = units[0]?.work ?? { doneBlocks: 0, totalBlocks: 0 }
  t.ok(doneBlocks > 0.3 * totalBlocks && doneBlocks <= totalBlocks, `${doneBlocks} of ${totalBlocks}`)
  t.match(metad.run('metasync', ['d5']), { status: 255, stderr: /d5: resync in progress/ })
  await writeAll(t, nbd, 60)
  t.equal(await answered(nbd.flush()), 0)
  await writeAll(t, nbd, 70)
  await r.again()
  await r.until('in step', isOkay)
  const begun = [...metad.log().matchAll(/"target":\{"kind":"copy","column":1\},"from":(\d+),"msg":"job begins"/g)]
  t.ok(Number(begun.at(-1)?.[1]) > 0, `it went on from ${begun.at(-1)?.[1]}`)
  parityIsRight(t, r, 'parity with the new disk')
  t.match(r.stat(), disks.path('t'))
})

t.test('a hot spare takes over, and gives back', { skip }, async (t) => {
  const r = await rig(t)
  const { metad, disks } = r
  metad.must('metainit', ['hsp001', disks.path('s')])
  metad.must('metaparam', ['-h', 'hsp001', 'd5'])
  const nbd = await r.client()
  await writeAll(t, nbd)
  disks.tell('b fail write,sync EIO')
  await writeAll(t, nbd, 20)
  t.equal(await answered(nbd.flush()), 0)
  await r.until('spared', (s) => isOkay(s) && s.includes(disks.path('s')))
  await readAll(t, nbd, 'on the spare', 20)
  parityIsRight(t, r, 'parity on the spare')
  disks.tell('b ok')
  metad.must('metareplace', ['-e', 'd5', disks.path('b')])
  await r.until('given back', (s) => isOkay(s) && !s.includes(disks.path('s')))
  t.match(metad.must('metastat', ['hsp001']), /Available/)
  await readAll(t, nbd, 'on its own column', 20)
})

t.test('metattach: zeroed while clients write, then larger, protected like the rest', { skip }, async (t) => {
  const r = await rig(t, `${CONF}resync_bytes_per_second = 8388608\n`)
  const { metad, disks } = r
  const nbd = await r.client()
  await writeAll(t, nbd)
  const { size } = nbd
  t.match(metad.must('metattach', ['d5', disks.path('t')]), /d5/)
  let [salt, refused, joined] = [20, 0, false]
  const writing = (async () => {
    while (!joined) {
      salt += 10
      for (const [seed, offset, length] of PLACES)
        if ((await answered(nbd.write(BigInt(offset), pattern(seed + salt, length)))) !== 0) refused++
    }
  })()
  await r.until('joined', (s) => isOkay(s) && /Concatenated Devices?:|Attached/i.test(s))
  joined = true
  await writing
  t.equal(refused, 0, `${salt / 10} rounds of writes while it was zeroed and joined`)
  const larger = await r.client()
  t.ok(larger.size > size, `${larger.size} bytes`)
  const data = pattern(31, 64 << 10)
  t.equal(await answered(larger.write(larger.size - 65536n, data)), 0)
  t.equal(await answered(larger.flush()), 0)
  await readAll(t, larger, 'as before', salt)
  disks.tell('t fail all EIO')
  t.ok((await larger.read(larger.size - 65536n, data.length)).data.equals(data), 'without the column that joined')
  disks.tell('t ok')
  await r.again()
  t.ok((await (await r.client()).read(larger.size - 65536n, data.length)).data.equals(data), 'after a kill')
})

t.test('metasync, metaclear and what is refused meanwhile', { skip }, async (t) => {
  const r = await rig(t, `${CONF}resync_bytes_per_second = 3145728\n`)
  const { metad } = r
  metad.must('metasync', ['d5'])
  metad.must('metasync', ['-p', 'd5'])
  t.match(r.stat(), /State: Regen/)
  t.equal(metad.run('metasync', ['d5']).status, 255)
  t.match(metad.run('metaclear', ['d5']).stderr, /metadevice is open/)
  await r.again()
  t.match(r.stat(), /State: Regen/, 'wanted until it is done')
  const nbd = await r.client()
  t.match(metad.run('metaclear', ['d5']).stderr, /metadevice is open/)
  await nbd.disconnect()
})

t.test('while it is initialised nobody is let in, and a start begins again', { skip }, async (t) => {
  const r = await rig(t, `${CONF}resync_bytes_per_second = 4194304\n`)
  const { metad, disks } = r
  metad.must('metaclear', ['d5'])
  metad.must('metainit', ['d5', '-r', disks.path('a'), disks.path('b'), disks.path('c')])
  t.match(r.stat(), /State: Initializing/)
  await t.rejects(NbdClient.open(metad.socket, { name: 'd5' }), /not initialized/)
  await metad.kill9()
  await metad.start()
  t.match(r.stat(), /State: Initializing/)
  await r.until('initialised', isOkay)
  const nbd = await r.client()
  t.ok((await nbd.read(0n, MIB)).data.every((b) => b === 0))
})

t.test('metasync --verify finds what no error told of, and --repair makes parity fit', { skip }, async (t) => {
  const r = await rig(t)
  const { metad, disks } = r
  await writeAll(t, await r.client())
  t.equal(await metad.stop(), 0)
  // Behind metad's back: eight blocks, in the data area of every layout of a disk of this size.
  const image = openSync(disks.image('c'), 'r+')
  writeSync(image, Buffer.alloc(4096, 0xa5), 0, 4096, 15 * MIB)
  closeSync(image)
  await metad.start()
  const found = metad.run('metasync', ['--verify', 'd5'])
  t.equal(found.status, 2)
  t.match(found.stdout, /^d5: 8 blocks of parity are wrong\n {4}\d+-\d+\n$/)
  t.equal(metad.run('metasync', ['--verify', 'd5']).status, 2, 'looking changes nothing')
  t.match(
    metad.must('metasync', ['--verify', '--repair', 'd5']),
    /^d5: 8 blocks of parity were wrong and were made again\n/,
  )
  parityIsRight(t, r, 'parity')
  await readAll(t, await r.client(), 'elsewhere nothing changed')
})

t.test('an initialization that fails: only metaclear -f is left, also after a restart', { skip }, async (t) => {
  const r = await rig(t)
  const { metad, disks } = r
  metad.must('metaclear', ['d5'])
  disks.tell('b fail write,zero EIO')
  metad.must('metainit', ['d5', '-r', disks.path('a'), disks.path('b'), disks.path('c')])
  const failed = (stat: string): boolean => /State: Initialization Failed/.test(stat)
  t.match(await r.until('failed', failed), 'Invoke: metaclear -f d5')
  await t.rejects(NbdClient.open(metad.socket, { name: 'd5' }), /not initialized/)
  t.match(metad.run('metasync', ['d5']), { status: 255, stderr: /only valid action is metaclear/ })
  t.equal(await metad.stop(), 0)
  disks.tell('b ok')
  await metad.start()
  t.ok(failed(r.stat()))
  await t.rejects(NbdClient.open(metad.socket, { name: 'd5' }), /not initialized/)
  t.not(metad.run('metaclear', ['d5']).status, 0)
  metad.must('metaclear', ['-f', 'd5'])
})

t.test(
  'two columns fail the replay: not served, tried no further by itself, and again when asked',
  { skip },
  async (t) => {
    const r = await rig(t)
    const { metad, disks } = r
    const nbd = await r.client()
    await writeAll(t, nbd)
    t.equal(await answered(nbd.flush()), 0)
    nbd.destroy()
    await metad.kill9()
    for (const d of ['a', 'b']) disks.tell(`${d} fail all EIO`)
    await metad.start()
    await t.rejects(r.client(), 'nobody is let in')
    const out = ['a', 'b'].filter((d) => new RegExp(`/${d} +\\d+ +\\S+ +Maintenance`).test(r.stat()))
    t.equal(out.length, 1, 'the first of them: the other one may only be asked too early')
    const tries = (): number => disks.counters('b').failed
    const before = tries()
    await sleep(500)
    t.equal(tries(), before, 'nobody asked')
    for (const d of ['a', 'b']) disks.tell(`${d} ok`)
    metad.must('metastat', ['-i'])
    await readAll(t, await r.client(), 'as it was flushed')
    t.notMatch(r.stat(), /Last Erred/)
    metad.must('metareplace', ['-e', 'd5', disks.path(out[0] ?? '')])
    await r.until('in step', isOkay)
    parityIsRight(t, r, 'parity')
    await readAll(t, await r.client(), 'whole again')
  },
)
