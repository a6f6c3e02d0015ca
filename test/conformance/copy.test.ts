/** Whole metadevices through foreign copiers, both ways, byte for byte: nbdcopy and qemu-img. */
import { createHash, randomBytes } from 'node:crypto'
import { createReadStream, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import t from 'tap'
import { startMetad } from '../tools/daemon.js'
import { everyKind, foreign, missing, mustRun, sizeOf } from '../tools/foreign.js'

const metad = await startMetad(t)
const kinds = await everyKind(metad, 24)
const file = (name: string): string => join(metad.root, name)

const digest = async (path: string): Promise<string> => {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return hash.digest('hex')
}

/** Random with runs of zeroes, so that zero detection and sparse writes are used too. */
const image = (path: string, bytes: number): void => {
  const content = randomBytes(bytes)
  for (let at = 0; at < bytes; at += 3 << 20) content.fill(0, at, at + (1 << 20))
  writeFileSync(path, content)
}

t.test('nbdcopy in and out', { skip: missing('nbdcopy') }, async (t) => {
  for (const { name, kind } of kinds) {
    const [source, copy] = [file(`${name}.in`), file(`${name}.out`)]
    image(source, sizeOf(metad, name))
    await mustRun('nbdcopy', ['--flush', source, metad.nbdUri(name)])
    await mustRun('nbdcopy', [metad.nbdUri(name), copy])
    t.equal(statSync(copy).size, sizeOf(metad, name))
    t.equal(await digest(copy), await digest(source), kind)
  }
})

t.test('nbdcopy: odd request sizes, several connections, synchronous', { skip: missing('nbdcopy') }, async (t) => {
  const source = file('odd.in')
  for (const options of [['--request-size=65536', '-C', '8'], ['--synchronous'], ['--allocated', '-R', '32']]) {
    image(source, sizeOf(metad, 'd3'))
    await mustRun('nbdcopy', [...options, source, metad.nbdUri('d3')])
    await mustRun('nbdcopy', [metad.nbdUri('d3'), file('odd.out')])
    t.ok(readFileSync(file('odd.out')).equals(readFileSync(source)), options.join(' '))
  }
})

t.test('nbdcopy from one metadevice to another', { skip: missing('nbdcopy', 'qemu-img') }, async (t) => {
  const bytes = sizeOf(metad, 'd4')
  image(file('small'), bytes)
  await mustRun('nbdcopy', [file('small'), metad.nbdUri('d4')])
  await mustRun('nbdcopy', [metad.nbdUri('d4'), metad.nbdUri('d0')])
  await mustRun('nbdcopy', [metad.nbdUri('d0'), file('d0.copy')])
  t.ok(
    readFileSync(file('d0.copy'))
      .subarray(0, bytes)
      .equals(readFileSync(file('small'))),
  )
})

t.test('qemu-img: info, convert and compare', { skip: missing('qemu-img') }, async (t) => {
  for (const { name, kind } of kinds) {
    const size = sizeOf(metad, name)
    const info = JSON.parse(await mustRun('qemu-img', ['info', '--output=json', metad.nbdUri(name)])) as Record<
      string,
      unknown
    >
    t.match(info, { 'virtual-size': size, format: 'raw' }, kind)
    const source = file(`${name}.qemu`)
    image(source, size)
    await mustRun('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', source, metad.nbdUri(name)])
    const same = await foreign('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', source, metad.nbdUri(name)])
    t.equal(same.status, 0, `${kind}: identical`)
    // The comparison must be able to fail.
    const other = readFileSync(source)
    other[size - 1] = (other[size - 1] ?? 0) ^ 1
    writeFileSync(source, other)
    t.equal((await foreign('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', source, metad.nbdUri(name)])).status, 1)
  }
})

t.test('the sides of a mirror hold the same bytes', async (t) => {
  await metad.stop()
  const [one, two] = [readFileSync(file('disks/disk6')), readFileSync(file('disks/disk7'))]
  const size = one.length
  t.ok(one.subarray(1 << 20, size).equals(two.subarray(1 << 20, size)))
  await metad.start()
})
