/** Verified load from foreign programs: qemu-io patterns and fio's nbd engine. */
import { join } from 'node:path'
import t from 'tap'
import { startMetad } from '../tools/daemon.js'
import { everyKind, foreign, missing, mustRun, sizeOf } from '../tools/foreign.js'

const metad = await startMetad(t)
const kinds = await everyKind(metad, 16)

const io = (name: string, ...commands: string[]): string[] => [
  '-f',
  'raw',
  ...commands.flatMap((c) => ['-c', c]),
  metad.nbdUri(name),
]

t.test('qemu-io patterns', { skip: missing('qemu-io') }, async (t) => {
  for (const { name, kind } of kinds) {
    const size = sizeOf(metad, name)
    const said = await mustRun(
      'qemu-io',
      io(
        name,
        'write -P 0x11 0 4M',
        'write -P 0x22 -f 65000 3000',
        'write -z 1M 64k',
        'write -z -u 1200k 64k',
        'discard 2M 64k',
        `write -P 0x33 ${size - 1000} 1000`,
        'aio_write -P 0x44 3M 256k',
        'aio_write -P 0x55 3500k 64k',
        'aio_flush',
        'flush',
        'read -P 0x11 0 65000',
        'read -P 0x22 65000 3000',
        'read -P 0x11 68000 900000',
        'read -P 0 1M 64k',
        'read -P 0 1200k 64k',
        'read -P 0x44 3M 256k',
        'read -P 0x55 3500k 64k',
        `read -P 0x33 ${size - 1000} 1000`,
      ),
    )
    t.notMatch(said, /failed|error/i, kind)
    // The pattern check must be able to fail.
    t.not((await foreign('qemu-io', io(name, 'read -P 0x12 0 512'))).status, 0)
  }
})

t.test('what was flushed is there after an orderly restart', { skip: missing('qemu-io') }, async (t) => {
  await mustRun('qemu-io', io('d0', 'write -P 0x77 5M 1M', 'flush'))
  t.equal(await metad.stop(), 0, 'orderly')
  await metad.start()
  t.notMatch(await mustRun('qemu-io', io('d0', 'read -P 0x77 5M 1M')), /failed/)
})

t.test('what was flushed is there after kill -9', { skip: missing('qemu-io') }, async (t) => {
  for (const { name, kind } of kinds)
    await mustRun('qemu-io', io(name, 'write -P 0x66 5M 1M', 'flush')).then(() => t.ok(kind))
  await metad.kill9()
  await metad.start()
  for (const { name, kind } of kinds)
    t.notMatch(await mustRun('qemu-io', io(name, 'read -P 0x66 5M 1M')), /failed/, kind)
})

t.test('fio verifies what it wrote', { skip: missing('fio') }, async (t) => {
  for (const { name, kind } of kinds) {
    const bytes = Math.floor(sizeOf(metad, name) / (1 << 20)) << 20
    const said = await mustRun('fio', [
      '--name=verify',
      '--ioengine=nbd',
      `--uri=${metad.nbdUri(name)}`,
      '--rw=randwrite',
      '--bsrange=512-64k',
      '--blockalign=512',
      '--iodepth=32',
      `--size=${bytes}`,
      '--verify=crc32c',
      '--verify_fatal=1',
      '--fsync=64',
      '--randrepeat=1',
      '--minimal',
      `--aux-path=${join(metad.root)}`,
    ])
    // Terse format: field 5 is the error number of the job.
    t.equal(
      said
        .split('\n')
        .find((l) => l.startsWith('3;'))
        ?.split(';')[4],
      '0',
      kind,
    )
  }
})
