/**
 * Disks with the labels of Solaris, by the names of Solaris: data written through a metadevice is found by
 * a raw reader at the block where Solaris would have put it, and no label is ever written over.
 */
import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { startMetad } from '../tools/daemon.js'
import { sizeOf } from '../tools/foreign.js'
import { efiLabel, mbr, sparcLabel, writeAt, x86Label } from '../tools/labels.js'
import { NbdClient } from '../tools/nbdclient.js'

const EINVAL_ = 22
const MEBIBYTES = 64
const TOTAL = (MEBIBYTES << 20) / 512
/** 1008 blocks, which is no power of two, so that a wrong rounding shows. */
const SHAPE = { heads: 16, sectors: 63, cylinders: Math.floor(TOTAL / 1008) - 2 }
const CYLINDER = 16 * 63
/** Where fdisk put the Solaris partition. */
const PARTITION = 16065

const metad = await startMetad(t)
const disks = {
  sparc: metad.disk('sparc.img', MEBIBYTES),
  x86: metad.disk('x86.img', MEBIBYTES),
  efi: metad.disk('efi.img', MEBIBYTES),
}
writeAt(
  disks.sparc,
  sparcLabel(
    [
      { slice: 0, first: 0, size: 20 * CYLINDER },
      { slice: 2, first: 0, size: SHAPE.cylinders * CYLINDER },
      { slice: 6, first: 20 * CYLINDER, size: 20 * CYLINDER + 17 },
      { slice: 7, first: 41 * CYLINDER, size: 20 * CYLINDER },
    ],
    SHAPE,
  ),
  0,
)
writeAt(disks.x86, mbr(0xbf, PARTITION, 80 * CYLINDER), 0)
writeAt(
  disks.x86,
  x86Label(
    [
      { slice: 0, first: CYLINDER, size: 20 * CYLINDER },
      { slice: 2, first: 0, size: 80 * CYLINDER },
      { slice: 5, first: 21 * CYLINDER, size: 30 * CYLINDER },
      { slice: 8, first: 0, size: CYLINDER },
    ],
    SHAPE,
  ),
  PARTITION + 1,
)
const EFI_CYLINDER = 32768
writeAt(
  disks.efi,
  efiLabel(
    [
      { slice: 0, first: 256, size: EFI_CYLINDER + 300 },
      { slice: 1, first: 70_000, size: EFI_CYLINDER + 1 },
    ],
    TOTAL,
  ),
  0,
)
writeFileSync(
  join(metad.root, 'etc/disks.tab'),
  `c0t0d0 ${disks.sparc}\nc1d0 ${disks.x86}\nc2t600A0B800011D0d0 ${disks.efi}\n`,
)
metad.must('metadb', ['-a', '-f', join(metad.root, 'disks/replica')])

const original = Object.fromEntries(
  Object.entries(disks).map(([name, path]) => [name, readFileSync(path).subarray(0, 34 * 512)]),
)

/** Writes pattern through the metadevice and looks for it in the image, block by block. */
const found = async (unit: string, image: string, map: (block: number) => number): Promise<string | null> => {
  const client = await NbdClient.open(metad.socket, { name: unit })
  try {
    const total = Number(client.size) / 512
    for (const block of [1, 2, 1007, 1008, 1009, Math.floor(total / 2), total - 1]) {
      const data = randomBytes(512)
      if ((await client.write(BigInt(block) * 512n, data, 1)).error !== 0) return `block ${block} cannot be written`
      const at = map(block) * 512
      if (
        !readFileSync(image)
          .subarray(at, at + 512)
          .equals(data)
      )
        return `block ${block} is not at ${map(block)}`
    }
    return null
  } finally {
    await client.disconnect()
  }
}
const writeFirst = async (unit: string): Promise<number> => {
  const client = await NbdClient.open(metad.socket, { name: unit })
  const { error } = await client.write(0n, randomBytes(512))
  await client.disconnect()
  return error
}

t.test('SPARC label', async (t) => {
  metad.must('metainit', ['d1', '1', '1', 'c0t0d0s6'])
  t.equal(sizeOf(metad, 'd1'), 20 * CYLINDER * 512, 'whole cylinders of the disk')
  t.equal(await found('d1', disks.sparc, (b) => 20 * CYLINDER + b), null, 'a slice in the middle of the disk')
  t.equal(await writeFirst('d1'), 0, 'its first block is a block like any other')

  metad.must('metainit', ['d2', '1', '1', '/dev/dsk/c0t0d0s0'])
  t.equal(sizeOf(metad, 'd2'), 20 * CYLINDER * 512)
  t.equal(await found('d2', disks.sparc, (b) => b), null, 'the slice with the label, as first component')
  t.equal(await writeFirst('d2'), EINVAL_, 'the label cannot be written')
  metad.must('metaclear', ['d2'])

  metad.must('metainit', ['d2', '2', '1', 'c0t0d0s7', '1', 'c0t0d0s0'])
  t.equal(sizeOf(metad, 'd2'), (20 + 19) * CYLINDER * 512, 'elsewhere the slice with the label loses a cylinder')
  const map = (b: number): number => (b < 20 * CYLINDER ? 41 * CYLINDER + b : CYLINDER + (b - 20 * CYLINDER))
  t.equal(await found('d2', disks.sparc, map), null, 'and its data begins behind it')
  t.match(metad.must('metastat', ['d2']), /c0t0d0s0 +1008 +No/, 'metastat shows the start block')
  t.match(metad.must('metastat', ['-p', 'd2']), /^d2 2 1 \/dev\/rdsk\/c0t0d0s7 \\\n\t 1 \/dev\/rdsk\/c0t0d0s0\n$/)
})

t.test('x86 label in its fdisk partition', async (t) => {
  metad.must('metainit', ['d11', '1', '2', 'c1d0s0', 'c1d0s5', '-i', '16k'])
  t.equal(sizeOf(metad, 'd11'), Math.floor((2 * Math.floor((20 * CYLINDER) / 32) * 32) / CYLINDER) * CYLINDER * 512)
  const chunk = 32
  const map = (b: number): number => {
    const at = Math.floor(b / chunk / 2) * chunk + (b % chunk)
    return PARTITION + (Math.floor(b / chunk) % 2 === 0 ? CYLINDER : 21 * CYLINDER) + at
  }
  t.equal(await found('d11', disks.x86, map), null, 'a stripe over two slices of one partition')
  const whole = metad.run('metainit', ['d12', '1', '1', 'c1d0s2'])
  t.match(whole, { status: 1, stderr: /c1d0s2: overlaps with device in d11\n/ })
  metad.must('metaclear', ['d11'])
  metad.must('metainit', ['d12', '1', '1', 'c1d0s2'])
  t.equal(await writeFirst('d12'), EINVAL_, 'the first block of the partition stays as it is')
})

t.test('EFI label', async (t) => {
  metad.must('metainit', ['d21', '1', '1', 'c2t600A0B800011D0d0s0'])
  t.equal(sizeOf(metad, 'd21'), EFI_CYLINDER * 512, 'rounded to the cylinders Solaris pretends')
  t.equal(await found('d21', disks.efi, (b) => 256 + b), null)
  t.equal(await writeFirst('d21'), 0)
  metad.must('metattach', ['d21', 'c2t600A0B800011D0d0s1'])
  const first = EFI_CYLINDER + 300
  t.equal(await found('d21', disks.efi, (b) => (b < first ? 256 + b : 70_000 + b - first)), null)
})

t.test('what a label does not have', async (t) => {
  t.match(metad.run('metainit', ['d31', '1', '1', 'c0t0d0s5']).stderr, /c0t0d0s5: No such device or address\n/)
  t.match(metad.run('metainit', ['d31', '1', '1', 'c0t0d0s16']).stderr, /c0t0d0s16: No such device or address\n/)
  t.match(metad.run('metainit', ['d31', '1', '1', 'c9t9d9s0']).stderr, /c9t9d9s0: No such file or directory\n/)
  const path = metad.disk('blank.img', 8)
  writeFileSync(join(metad.root, 'etc/disks.tab'), `c3d0 ${path}\n`, { flag: 'a' })
  t.match(metad.run('metainit', ['d31', '1', '1', 'c3d0s0']).stderr, /c3d0s0: no disk label on .*blank\.img\n/)
})

t.test('after a restart everything is where it was', async (t) => {
  await metad.stop()
  await metad.start()
  t.equal(await found('d1', disks.sparc, (b) => 20 * CYLINDER + b), null)
  for (const [name, path] of Object.entries(disks)) {
    const now = readFileSync(path).subarray(0, 34 * 512)
    // Of the SPARC disk only block 0 is the label; data follows at once.
    const label = name === 'sparc' ? 512 : now.length
    t.ok(
      now.subarray(0, label).equals(original[name]?.subarray(0, label) ?? Buffer.alloc(0)),
      `${name}: the label is untouched`,
    )
  }
})
