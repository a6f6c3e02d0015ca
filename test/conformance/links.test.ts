/** dev/md under the root: a link for every export and for nothing else, whose text a foreign client takes. */
import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { startMetad } from '../tools/daemon.js'
import { missing, mustRun, resynced } from '../tools/foreign.js'

const metad = await startMetad(t)
const links = (kind: 'dsk' | 'rdsk'): string[] => readdirSync(join(metad.root, 'dev/md', kind)).sort()
const uri = (path: string): string => readlinkSync(join(metad.root, 'dev/md', path))
const both = (t: Test, names: readonly string[], why: string): void => {
  t.same(links('dsk'), names, why)
  t.same(links('rdsk'), names, `${why} (raw)`)
}

t.test('links follow the exports', async (t) => {
  const disk = [0, 1, 2, 3].map((i) => metad.disk(`disk${i}`, 16))
  metad.must('metadb', ['-a', '-f', join(metad.root, 'disks/replica')])
  metad.must('metainit', ['-n', 'd9', '1', '1', disk[0] ?? ''])
  for (const n of [1, 2]) metad.must('metainit', [`d${n}`, '1', '1', disk[n] ?? ''])
  both(t, ['d1', 'd2'], 'two stripes; -n made none')
  metad.must('metainit', ['d0', '-m', 'd1'])
  both(t, ['d0', 'd2'], 'a submirror is no export')
  metad.must('metattach', ['d0', 'd2'])
  await resynced(metad)
  both(t, ['d0'], 'attached')
  metad.must('metadetach', ['d0', 'd2'])
  both(t, ['d0', 'd2'], 'detached')
  metad.must('metaclear', ['d2'])
  both(t, ['d0'], 'cleared')
  t.not(metad.run('metainit', ['d5', '1', '1', disk[1] ?? '']).status, 0)
  both(t, ['d0'], 'a refused command changes nothing')
})

t.test('the text of a link is what an NBD client takes', { skip: missing('nbdcopy', 'nbdinfo') }, async (t) => {
  const image = join(metad.root, 'image')
  writeFileSync(image, randomBytes(16 << 20))
  await mustRun('nbdcopy', ['--flush', image, uri('dsk/d0')])
  const copy = join(metad.root, 'copy')
  await mustRun('nbdcopy', [uri('rdsk/d0'), copy])
  t.ok(readFileSync(copy).equals(readFileSync(image)))
  t.match(await mustRun('nbdinfo', [uri('rdsk/d0')]), /block_size_minimum: 512\b/)
})

t.test('restarts: a stopped metad leaves none, a killed one is tidied up after', async (t) => {
  await metad.stop()
  both(t, [], 'stopped')
  await metad.start()
  both(t, ['d0'], 'started')
  await metad.kill9()
  both(t, ['d0'], 'killed')
  symlinkSync('nbd+unix:///d77?socket=/gone', join(metad.root, 'dev/md/dsk/d77'))
  writeFileSync(join(metad.root, 'dev/md/rdsk/d5'), 'not ours')
  await metad.start()
  t.same(links('dsk'), ['d0'], 'the left-over is gone')
  t.same(links('rdsk'), ['d0', 'd5'], 'what is not ours stays')
  metad.must('metainit', ['d5', '1', '1', metad.disk('disk3', 16)])
  t.equal(readFileSync(join(metad.root, 'dev/md/rdsk/d5'), 'utf8'), 'not ours')
  t.match(metad.log(), /rdsk\/d5: exists and is not a link of metad; left alone/)
  t.match(uri('dsk/d5'), /^nbd\+unix:\/\/\/d5\?socket=/)
})
