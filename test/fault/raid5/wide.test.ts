/** As many columns as there may be, on the least memory. */
import { join } from 'node:path'
import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { startMetad } from '../../tools/daemon.js'
import { NbdClient } from '../../tools/nbdclient.js'
import { answered, isOkay, MIB, pattern } from './rig.js'

t.setTimeout(1_200_000)

t.test('64 columns in 8 MiB: written, killed, replayed', async (t) => {
  const metad = await startMetad(t, { conf: 'raid5_cache_bytes = 8388608\n' })
  const disks = Array.from({ length: 64 }, (_, i) => metad.disk(`c${i}`, 8))
  metad.must('metadb', ['-a', '-f', join(metad.root, 'db')])
  metad.must('metainit', ['d5', '-r', ...disks, '-i', '64k'])
  for (const end = Date.now() + 60_000; !isOkay(metad.must('metastat', ['d5'])); await sleep(50))
    if (Date.now() > end) throw new Error(metad.log())
  const nbd = await NbdClient.open(metad.socket, { name: 'd5' })
  t.teardown(() => nbd.destroy())
  const data = pattern(3, 8 * MIB)
  const places = [0, 1, 2, 3].map((i) => BigInt(i * 12 * MIB + 512))
  for (const at of places) t.equal(await answered(nbd.write(at, data)), 0)
  t.equal(await answered(nbd.flush()), 0)
  await metad.kill9()
  await metad.start()
  const again = await NbdClient.open(metad.socket, { name: 'd5' })
  t.teardown(() => again.destroy())
  for (const at of places) t.ok((await again.read(at, data.length)).data.equals(data), String(at))
  t.equal(metad.must('metasync', ['--verify', 'd5']), 'd5: parity is right\n')
})
