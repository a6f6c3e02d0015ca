/**
 * The whole control plane under a seeded simulation: requests, disk errors, commands, deaths and power
 * losses at every moment; after each step promises P1 to P5 are checked at the grain of cells.
 *
 * SEED= EVENTS= replays one run; without them RUNS seeds share EVENTS events, 120,000 by default.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { Play, type Tally } from '../../tools/sim/play.js'

const EVENTS = Number(process.env['EVENTS'] ?? 120_000)
const SEED = process.env['SEED']
const RUNS = 40
const SHOWN_LINES = 60

const TIMEOUT_MS = 240_000
t.setTimeout(TIMEOUT_MS)

const etc = mkdtempSync(join(tmpdir(), 'simulation-'))
t.teardown(() => rmSync(etc, { recursive: true, force: true }))

const seeds =
  SEED === undefined ? Array.from({ length: RUNS }, (_, i) => (Date.now() % 1_000_000) * 100 + i) : [Number(SEED)]

t.test(`${seeds.length} runs, ${EVENTS} events`, { timeout: TIMEOUT_MS }, async (t) => {
  const total: Tally = {
    events: 0,
    kills: 0,
    powerLosses: 0,
    faults: 0,
    evictions: 0,
    answered: 0,
    errors: 0,
    commits: 0,
  }
  for (const seed of seeds) {
    const play = new Play(seed, etc)
    try {
      const tally = await play.run(Math.ceil(EVENTS / seeds.length))
      for (const key of Object.keys(total) as (keyof Tally)[]) total[key] += tally[key]
    } catch (e) {
      t.fail(`SEED=${seed} EVENTS=${Math.ceil(EVENTS / seeds.length)}`, {
        error: e instanceof Error ? (e.stack ?? e.message) : String(e),
        story: play.world.story.slice(-SHOWN_LINES),
      })
      return
    }
  }
  t.comment(JSON.stringify(total))
  t.ok(total.events >= EVENTS, `${total.events} events`)
  if (SEED !== undefined) return
  t.ok(
    total.kills > EVENTS / 2500 && total.powerLosses > EVENTS / 4000,
    `${total.kills} kills, ${total.powerLosses} power losses`,
  )
  t.ok(total.evictions > EVENTS / 2500, `${total.evictions} components went into maintenance`)
  t.ok(total.answered > EVENTS / 100, `${total.answered} requests answered, ${total.errors} with an error`)
})
