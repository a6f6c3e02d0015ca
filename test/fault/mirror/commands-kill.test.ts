/**
 * metad is killed while it carries out a command, at any instant and around the commit: after the restart each
 * command took effect wholly or not at all, and wholly when it had said so. A client writes to the mirror that
 * half of the commands change.
 *
 * What "wholly" means is found out first, by the same commands in the same order without kills: the snapshots
 * between them are the only states there may ever be. CYCLES counts kills.
 */
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { sleep } from '../../../bench/lib/process.js'
import { missingFaultDisk } from '../../tools/faultdisk.js'
import { cyclesOr, Ordeal } from '../../tools/ordeal.js'
import { seed } from '../../tools/seed.js'

const CYCLES = cyclesOr(16)
const CONF = 'component_timeout = 5\nregion_clean_seconds = 1\nresync_checkpoint_seconds = 1\n'

const TIMEOUT_MS = 180_000 + CYCLES * 20_000
t.setTimeout(TIMEOUT_MS)

interface Step {
  readonly words: readonly string[]
  /** What the command needs that a start of metad undoes, or that makes its effect visible. */
  readonly before?: () => Promise<unknown>
  /** Undoes what a start of metad would undo. */
  readonly after?: () => Promise<unknown>
}

const NONE: Step = { words: [] }

t.test(`${CYCLES} commands cut off, SEED=${seed}`, { skip: missingFaultDisk(), timeout: TIMEOUT_MS }, async (t) => {
  const rig = await Ordeal.mirror(t, CONF, { c1: 8 })
  const { disks, dice } = rig
  const [b1 = '', c1 = ''] = ['b1', 'c1'].map((d) => disks.path(d))
  const [x1 = '', x2 = '', x3 = '', x4 = '', x5 = ''] = [1, 2, 3, 4, 5].map((i) => {
    const path = join(rig.dir, `x${i}`)
    writeFileSync(path, '')
    truncateSync(path, 2 << 20)
    return path
  })
  // Back to the beginning at the end of them.
  const steps: readonly Step[] = [
    // A start brings back what was offline.
    { words: ['metaoffline', 'd0', 'd2'], after: () => rig.run('metaonline', 'd0', 'd2') },
    { words: ['metaonline', 'd0', 'd1'], before: () => rig.run('metaoffline', 'd0', 'd1') },
    { words: ['metareplace', 'd0', b1, c1] },
    { words: ['metareplace', 'd0', c1, b1], before: async () => rig.scribble('b1') },
    { words: ['metadetach', 'd0', 'd2'] },
    { words: ['metattach', 'd0', 'd2'], before: async () => rig.scribble('b1') },
    { words: ['metaparam', '-r', 'first', '-p', '3', 'd0'] },
    { words: ['metainit', 'd10', '1', '1', x1] },
    { words: ['metattach', 'd10', x2] },
    { words: ['metainit', 'd11', '1', '1', x3] },
    { words: ['metainit', 'd20', '-m', 'd11'] },
    { words: ['metainit', 'hsp001', x4] },
    { words: ['metahs', '-a', 'hsp001', x5] },
    { words: ['metaparam', '-h', 'hsp001', 'd1'] },
    { words: ['metahs', '-d', 'hsp001', x4] },
    { words: ['metahs', '-r', 'hsp001', x5, x4] },
    { words: ['metaparam', '-h', 'none', 'd1'] },
    { words: ['metaclear', 'hsp001'] },
    { words: ['metaclear', '-r', 'd20'] },
    { words: ['metaclear', 'd10'] },
    { words: ['metaparam', '-r', 'roundrobin', '-p', '1', 'd0'] },
  ]

  /** All that a command may change: names, layouts, parameters, pools and the states of their spares. */
  const snapshot = async (): Promise<string> => {
    const { units } = await rig.stat()
    const lines = units.map((u) => `${u.tab} ${u.kind === 'pool' ? u.spares.map((s) => s.state).join() : ''}`)
    return lines.sort().join('\n')
  }
  /** md.cf is what metastat -p says. */
  const written = async (what: string): Promise<void> => {
    const file = readFileSync(join(rig.metad.root, 'etc/md.cf'), 'utf8')
    const lines = (text: string): string => text.replace(/^#.*\n/gm, '').trim()
    t.equal(lines(file), lines(await rig.run('metastat', '-p')), `${what}: md.cf says the same`)
  }

  /** @returns milliseconds it took */
  const whole = async (step: Step): Promise<number> => {
    await rig.inStep()
    await step.before?.()
    const began = Date.now()
    await rig.run(...step.words)
    const took = Date.now() - began
    await step.after?.()
    return took
  }

  const states = [await snapshot()]
  const millis: number[] = []
  for (const step of steps) {
    millis.push(await whole(step))
    states.push(await snapshot())
    await written(step.words.join(' '))
  }
  t.equal(states.at(-1), states[0], 'the commands lead back to where they began')
  await rig.metad.stop()
  await rig.restart()
  t.equal(await snapshot(), states[0], 'also for who starts anew')

  const met = { nothing: 0, all: 0, answered: 0 }
  for (let kill = 1, at = 0; kill <= CYCLES; kill++, at++) {
    // The ones before it are carried out undisturbed.
    for (let skipped = dice.below(3); skipped > 0; skipped--) await whole(steps[at++ % steps.length] ?? NONE)
    at %= steps.length
    const step = steps[at] ?? NONE
    const what = `kill ${kill}: ${step.words.join(' ').replaceAll(rig.dir, '')}`
    await rig.inStep()
    await step.before?.()
    const load = await rig.load(60)
    const command = rig.run(...step.words).then(
      () => true,
      () => false,
    )
    if (dice.chance(40)) await sleep(dice.below((millis[at] ?? 0) * 2))
    else await rig.commit(1000).then(() => sleep(dice.below(10)))
    await rig.kill()
    const answered = await command
    await rig.unharmed(what, load)
    await rig.restart()

    const found = await snapshot()
    const [before, after] = [states[at], states[at + 1]]
    if (answered) met.answered++
    if (before !== after) met[found === after ? 'all' : 'nothing']++
    if (found === after || (found === before && !answered)) t.pass(what)
    else t.fail(what, { seed, dir: rig.dir, answered, found, before, after })
    await written(what)
    await rig.sound(what, ['--settle'])
    if (found !== after) await whole(step)
    t.equal(await snapshot(), after, `${what}: in the end`)
    await rig.inStep()
    if (/^d0 -m d1 d2 /m.test(await snapshot())) await rig.sidesEqual(what)
  }
  await rig.sound('in the end')
  t.comment(`${met.all} took effect, ${met.answered} of them had said so, ${met.nothing} did not`)
  t.ok(rig.cutOff > 0, 'requests were cut off')
})
