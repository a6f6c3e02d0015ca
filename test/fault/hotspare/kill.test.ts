/**
 * metad is killed while a hot spare takes over: before it is reserved, while it is filled, when it is done, and
 * while what it stood in for is brought back. Spares may fail as well.
 *
 * Whatever was recorded when it died, in the end the disks that stand in the mirror hold every block, and the
 * pools say of each spare what is true.
 */
import { basename } from 'node:path'
import t from 'tap'
import { sleep } from '../../../bench/lib/process.js'
import type { SpareReport, StatReport } from '../../../src/msg/report.js'
import { missingFaultDisk } from '../../tools/faultdisk.js'
import { brokenOf, componentsOf, cyclesOr, isInStep, Ordeal } from '../../tools/ordeal.js'
import { seed } from '../../tools/seed.js'

const CYCLES = cyclesOr(5)
const DISKS = ['a1', 'a2', 'b1'] as const
const SPARES = ['s1', 's2', 's3'] as const
/** A spare is filled in one to three seconds. */
const CONF =
  'component_timeout = 5\nregion_clean_seconds = 1\nresync_checkpoint_seconds = 1\n' +
  'resync_bytes_per_second = 4194304\nresync_buffer_blocks = 64\n'

const TIMEOUT_MS = 120_000 + CYCLES * 40_000
t.setTimeout(TIMEOUT_MS)

const sparesOf = (report: StatReport): readonly SpareReport[] =>
  report.units.flatMap((u) => (u.kind === 'pool' ? u.spares : []))
const standingIn = (report: StatReport): readonly string[] =>
  componentsOf(report).flatMap((c) => (c.hotSpare === null ? [] : [basename(c.hotSpare)]))
const inState = (report: StatReport, state: string): readonly string[] =>
  sparesOf(report).flatMap((s) => (s.state === state ? [basename(s.device)] : []))

t.test(`${CYCLES} takeovers, SEED=${seed}`, { skip: missingFaultDisk(), timeout: TIMEOUT_MS }, async (t) => {
  const rig = await Ordeal.mirror(t, CONF, { s1: 4, s2: 8, s3: 8 }, 'hsp001')
  const { disks, dice } = rig
  let taken = 0
  let killedFilling = 0

  /** In use is what stands in, and what did until the component that relieves it is in step. */
  const consistent = async (what: string): Promise<void> => {
    const report = await rig.stat()
    const used = inState(report, 'In use')
    const standing = standingIn(report)
    const relieved = used.filter((s) => !standing.includes(s))
    const filling = componentsOf(report).filter((c) => c.hotSpare === null && c.state === 'Resyncing')
    const good = standing.every((s) => used.includes(s)) && relieved.length <= filling.length
    if (good && new Set(standing).size === standing.length) t.pass(`${what}: what is in use stands in`)
    else t.fail(`${what}: spares`, { seed, dir: rig.dir, report })
  }

  const strike = async (what: string, longest: number): Promise<void> => {
    const load = await rig.load(60)
    if (dice.chance(50)) await sleep(dice.below(longest))
    else await rig.commit(1000)
    if (componentsOf(await rig.stat()).some((c) => c.state === 'Resyncing')) killedFilling++
    await rig.kill()
    await rig.unharmed(what, load)
    await rig.restart()
    await consistent(what)
    await rig.sound(what, ['--settle'])
  }

  for (let cycle = 1; cycle <= CYCLES; cycle++) {
    const victim = dice.pick(DISKS)
    const bad = dice.chance(30) ? dice.pick(SPARES) : null
    const what = `cycle ${cycle}: ${victim}${bad === null ? '' : `, spare ${bad}`}`
    for (const s of SPARES) rig.scribble(s)
    if (bad !== null) disks.tell(`${bad} fail write EIO from=${dice.below(2) << 20}`)
    disks.tell(`${victim} fail ${dice.pick(['write', 'all'])} EIO`)
    for (let kills = 1 + dice.below(2); kills > 0; kills--) await strike(`${what} fails`, 2500)
    // A disk that failed before anybody recorded it is found by whoever writes next.
    await rig.unharmed(what, await rig.load(0.5))
    await rig.eventually(`${what}: a spare stands in`, (r) => isInStep(r) && brokenOf(r).length === 0)
    const report = await rig.stat()
    taken += standingIn(report).length
    t.equal(standingIn(report).length, 1, `${what}: one spare stands in`)
    await consistent(what)
    await rig.sound(`${what}: with the spare`)
    await rig.sidesEqual(what)

    for (const d of [...DISKS, ...SPARES]) disks.tell(`${d} ok`)
    rig.scribble(victim)
    await rig.run('metareplace', '-e', 'd0', disks.path(victim))
    if (dice.chance(50)) await strike(`${what} comes back`, 1500)
    await rig.inStep()
    for (const s of inState(await rig.stat(), 'Broken')) await rig.run('metahs', '-e', disks.path(s))
    const after = await rig.stat()
    t.same([standingIn(after), inState(after, 'Available').length], [[], SPARES.length], `${what}: given back`)
    await rig.sound(`${what}: as before`)
    await rig.sidesEqual(`${what} is back`)
  }
  t.comment(`${taken} spares taken, ${killedFilling} kills while one was filled, ${rig.cutOff} requests met one`)
  t.ok(taken > 0 && rig.cutOff > 0, 'spares were taken and requests cut off')
})
