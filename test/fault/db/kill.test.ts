/**
 * metad is killed with -9 in the middle of commits, again and again. Permitted: the commit that was under way is there
 * or not. Everything acknowledged is there, every record is whole and of its commit, no helper stays behind.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { FULL, eventually, makeReplicas, makeRig, randomOf } from './rig.js'
import { seed } from '../../tools/seed.js'

t.setTimeout(600_000)
t.comment(`SEED=${seed}`)
const random = randomOf(seed + 2)
const CHILD = fileURLToPath(new URL('./kill-child.js', import.meta.url))

const helpersOf = (dir: string): readonly string[] =>
  readdirSync('/proc').filter((p) => {
    if (!/^\d+$/.test(p) || Number(p) === process.pid) return false
    try {
      return readFileSync(`/proc/${p}/maps`, 'utf8').includes(dir)
    } catch {
      return false
    }
  })

t.test('kill -9 between and during commits', async (t) => {
  const rig = makeRig(3)
  t.teardown(() => rig.remove())
  await (await makeReplicas(rig)).close()
  let floor = 0
  for (let cycle = 0; cycle < (FULL ? 200 : 8); cycle++) {
    const child = spawn(process.execPath, [CHILD, rig.etc], { stdio: ['ignore', 'pipe', 'inherit'] })
    let out = ''
    child.stdout.setEncoding('utf8')
    child.stdout.on('data', (s: string) => (out += s))
    t.ok(await eventually(async () => out.split('\n').length > 3), 'it commits')
    await new Promise((resolve) => setTimeout(resolve, random.below(120)))
    child.kill('SIGKILL')
    await once(child, 'close')
    t.match(out, /^health good/)
    const printed = out.split('\n').slice(0, -1)
    const acknowledged = Number(printed[printed.length - 1])
    t.ok(acknowledged > floor, `cycle ${cycle}: ${acknowledged} acknowledged`)
    const db = await rig.open()
    t.equal(db.health, 'good')
    const count = Number(db.records.get('count'))
    t.ok(count >= acknowledged && count <= acknowledged + 1, `found ${count}`)
    for (let n = Math.max(1, count - 49); n <= count; n++) {
      const cell = db.records.get(`cell/${n % 50}`) as { n: number; text: string } | undefined
      if (cell?.n !== n || cell.text.length !== n % 3000) t.fail(`cell of ${n}`)
    }
    floor = count
    await db.close()
  }
  t.ok(await eventually(async () => helpersOf(rig.dir).length === 0), 'no helper outlives its metad')
})
