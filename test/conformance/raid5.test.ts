/**
 * RAID5 devices on disks that a reader of its own lays out and takes apart: a volume as Solaris left it reads
 * right through -k, and what is written through metad is where Solaris would look for it, with its parity.
 */
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { startMetad } from '../tools/daemon.js'
import { writeAt } from '../tools/labels.js'
import { NbdClient } from '../tools/nbdclient.js'
import { parityOf, readColumns, segmentsOf, volumeOf, wrongParity } from '../tools/raid5columns.js'

const CYLINDER = 2048

interface Layout {
  readonly originals: number
  readonly columns: number
  readonly interlace: number
  readonly lines: number
}

const bytesOf = (l: Layout): number => l.interlace * 512

/** The columns of a device with this content, and room for a prewrite area of so many blocks. */
const columnsOf = (l: Layout, prewrite: number, content: Buffer): readonly Buffer[] => {
  const size = bytesOf(l)
  const columns = Array.from({ length: l.columns }, () => Buffer.alloc(prewrite * 512 + l.lines * size))
  const at = (line: number): number => prewrite * 512 + line * size
  for (const [i, [line, column]] of segmentsOf(l.originals, l.columns, l.lines).entries()) {
    const segment = content.subarray(i * size, (i + 1) * size)
    columns[column]?.set(segment, at(line))
    const parity = columns[parityOf(l.originals, line)] ?? segment
    for (let b = 0; b < size; b++) parity[at(line) + b] = (parity[at(line) + b] ?? 0) ^ (segment[b] ?? 0)
  }
  return columns
}

/** What lies on the disks, and the lines in which parity is not the sum of the others. */
const onDisk = (disks: readonly string[]): { readonly content: Buffer; readonly wrong: readonly number[] } => {
  const found = readColumns(disks.map((d) => readFileSync(d)))
  return { content: volumeOf(found), wrong: wrongParity(found) }
}

const metad = await startMetad(t)
metad.must('metadb', ['-a', '-f', `${metad.root}/disks/replica`])

const whole = async (name: string): Promise<Buffer> => {
  const client = await NbdClient.open(metad.socket, { name })
  const parts: Buffer[] = []
  const size = Number(client.size)
  for (let at = 0; at < size; at += 1 << 20)
    parts.push((await client.read(BigInt(at), Math.min(1 << 20, size - at))).data)
  await client.disconnect()
  return Buffer.concat(parts)
}

/** Short and long pieces over every border; FUA now and then. Changes `model` alike. */
const scribble = async (name: string, model: Buffer): Promise<void> => {
  const client = await NbdClient.open(metad.socket, { name })
  const blocks = Number(client.size) / 512
  for (let i = 0; i < 300; i++) {
    const length = 1 + Math.floor(Math.random() * (i % 10 === 0 ? 400 : 40))
    const block = Math.floor(Math.random() * (blocks - length))
    const data = randomBytes(length * 512)
    const { error } = await client.write(BigInt(block) * 512n, data, i % 50 === 0 ? 1 : 0)
    if (error !== 0) throw new Error(`write of ${length} blocks at ${block}: ${error}`)
    data.copy(model, block * 512)
  }
  await client.disconnect()
}

const SHAPES = [
  {
    wide: true,
    little: false,
    name: 'SPARC',
    originals: 3,
    columns: 4,
    interlace: 32,
    lines: 300,
    slots: 10,
    slot: 33,
  },
  { wide: false, little: true, name: 'x86', originals: 4, columns: 4, interlace: 7, lines: 1200, slots: 11, slot: 8 },
] as const

/** Offsets of the fields after the number of the column (driver.md 4.4). */
const solarisHeader = (s: (typeof SHAPES)[number], column: number, prewrite: number): Buffer => {
  const block = Buffer.alloc(512)
  const view = new DataView(block.buffer, block.byteOffset)
  const at = s.wide ? [44, 48, 52, 56, 60, 64, 72, 80, 84, 88, 96] : [32, 36, 40, 44, 48, 52, 56, 60, 64, 68, 72]
  const values = [column, 12, 0xbadbabe3, s.originals, s.columns, s.interlace, s.lines, s.slots, prewrite, prewrite, 0]
  for (const [i, value] of values.entries()) {
    if (s.wide && [6, 9, 10].includes(i)) view.setBigUint64(at[i] ?? 0, BigInt(value), s.little)
    else view.setUint32(at[i] ?? 0, value, s.little)
  }
  return block
}

for (const s of SHAPES)
  t.test(`a volume of ${s.name}, kept, written, cleared and kept again`, async (t) => {
    const prewrite = Math.ceil((s.slots * s.slot) / 2) * 2
    const disks = Array.from({ length: s.columns }, (_, i) => metad.disk(`${s.name}${i}`, 8))
    const content = randomBytes(s.lines * s.interlace * (s.columns - 1) * 512)
    for (const [i, bytes] of columnsOf(s, prewrite, content).entries()) {
      solarisHeader(s, i, prewrite).copy(bytes)
      writeAt(disks[i] ?? '', bytes, 0)
    }
    const size = Math.floor(content.length / 512 / CYLINDER) * CYLINDER * 512
    const options = ['-k', '-i', `${s.interlace}b`]
    const attached = s.columns > s.originals ? ['-o', String(s.originals)] : []
    const twisted = [...disks.slice(1), ...disks.slice(0, 1)]
    t.match(metad.run('metainit', ['d5', '-r', ...twisted, ...options, ...attached]), {
      status: 1,
      stderr: /: d5: devices were not RAIDed previously or are specified in the wrong order\n\n$/,
    })
    const made = metad.must('metainit', ['d5', '-r', ...disks, ...options, ...attached])
    t.equal(made, 'd5: RAID is setup\n')
    t.match(
      metad.must('metastat', ['d5']),
      new RegExp(`^d5: RAID\\n    State: Okay +\\n    Interlace: ${s.interlace} blocks\n`),
    )
    const model = content.subarray(0, size)
    t.ok((await whole('d5')).equals(model), 'it reads as it was written on Solaris')

    await scribble('d5', model)
    t.ok((await whole('d5')).equals(model))
    const tab = metad.must('metastat', ['-p', 'd5'])
    const slots = s.slots === 10 ? [] : ['-w', String(s.slots)]
    t.equal(tab, `d5 -r ${[...disks, ...options, ...slots, ...attached].join(' ')}\n`)
    metad.must('metaclear', ['d5'])
    const raw = onDisk(disks)
    t.ok(raw.content.equals(content), 'everything is in place')
    t.same(raw.wrong, [], 'with its parity')

    const again = tab.trim().split(' ')
    t.match(metad.run('metainit', ['d5', '-r', ...twisted, ...options, ...attached]), { status: 1 }, 'our own headers')
    metad.must('metainit', again)
    t.ok((await whole('d5')).equals(model))
    metad.must('metaclear', ['d5'])

    // The others have heard of a change of states that this one has not: nothing on it is believed.
    const behind = disks[1] ?? ''
    for (const disk of disks) {
      const bytes = readFileSync(disk).subarray(0, 512)
      if (disk === behind) writeAt(disk, randomBytes(s.lines * s.interlace * 512), prewrite)
      else writeAt(disk, Buffer.from(bytes).fill(9, 96, 97), 0)
    }
    const degraded = metad.run('metainit', again)
    t.match(degraded, { status: 0, stderr: `metainit: d5: WARNING: ${behind} is behind the other columns.\n` })
    t.match(metad.must('metastat', ['d5']), `Invoke: metareplace d5 ${behind} <new device>\n`)
    t.ok((await whole('d5')).equals(model), 'the others have its data')
    t.match(metad.run('metaclear', ['d5']), { status: 1, stderr: /d5: operation requires -f \(force\) flag\n/ })
    metad.must('metaclear', ['-f', 'd5'])
  })

t.test('made by metad: zeroed, and every block where it belongs', async (t) => {
  const disks = ['m0', 'm1', 'm2'].map((n) => metad.disk(n, 6))
  for (const d of disks) writeAt(d, randomBytes(6 << 20), 0)
  metad.must('metainit', ['d6', '-r', ...disks, '-i', '16k'])
  const state = (): string => /State: (.*?) *\n/.exec(metad.must('metastat', ['d6']))?.[1] ?? ''
  const end = Date.now() + 120_000
  while (state() === 'Initializing' && Date.now() < end) await sleep(50)
  t.equal(state(), 'Okay')
  // Slots of 32 blocks, 10 of them; (12288 - 320) div 32 lines, and nothing is left over.
  const content = Buffer.alloc(374 * 2 * 32 * 512)
  const model = content.subarray(0, Math.floor((374 * 64) / CYLINDER) * CYLINDER * 512)
  t.ok((await whole('d6')).equals(model), 'zeroes')
  await scribble('d6', model)
  t.match(metad.must('metastat', ['-c', 'd6']), /^d6 +r +11MB \S+m0 \S+m1 \S+m2\n$/)
  const tab = metad.must('metastat', ['-p', 'd6'])
  t.equal(tab, `d6 -r ${disks.join(' ')} -k -i 32b\n`)
  metad.must('metaclear', ['d6'])
  const raw = onDisk(disks)
  t.ok(raw.content.equals(content))
  t.same(raw.wrong, [])
  metad.must('metainit', tab.trim().split(' '))
  t.ok((await whole('d6')).equals(model), 'kept')
})
