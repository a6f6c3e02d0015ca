import t from 'tap'
import { setImmediate as turn } from 'node:timers/promises'
import { blocks } from '../../../src/base/units.js'
import type { UnitName } from '../../../src/meta/types.js'
import { type ResyncHost, ResyncScheduler, type Target } from '../../../src/resync/scheduler.js'

const name = (s: string): UnitName => s as UnitName

/** A host with a list of targets per mirror; `log` is what was asked of it, in order. */
const fixture = (targets: Record<string, Target[]>) => {
  const log: string[] = []
  const jobs = new Map<string, number>()
  const host: ResyncHost = {
    next: async (m) => targets[m]?.[0],
    ended: async (m, target, outcome) => {
      log.push(`ended ${m} ${target.slot} ${outcome}`)
      if (outcome === 'done') targets[m]?.shift()
    },
    start: (m, target, job, from) => {
      jobs.set(m, job)
      log.push(`start ${m} ${target.slot} ${from}`)
    },
    cancel: (m) => {
      log.push(`cancel ${m}`)
      finish(m, 'cancelled', 40)
    },
  }
  const scheduler = new ResyncScheduler(host)
  const finish = (m: string, outcome: 'done' | 'cancelled' | 'failed', done: number): void =>
    scheduler.event({
      kind: 'resyncEnded',
      device: 0,
      job: jobs.get(m) ?? -1,
      outcome,
      errno: 0,
      done: blocks(done),
      component: null,
      mismatches: 0,
    })
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 10; i++) await turn()
  }
  return { log, scheduler, finish, settle }
}

t.test('targets of a mirror are copied one after another', async (t) => {
  const f = fixture({
    d0: [{ slot: 1 }, { slot: 2 }],
  })
  const all = f.scheduler.kick(name('d0'))
  await f.settle()
  t.same(f.log, ['start d0 1 0'])
  f.finish('d0', 'done', 100)
  await f.settle()
  t.ok(f.scheduler.isRunning(name('d0')))
  f.finish('d0', 'done', 100)
  await all
  t.same(f.log, ['start d0 1 0', 'ended d0 1 done', 'start d0 2 0', 'ended d0 2 done'])
  t.notOk(f.scheduler.isRunning(name('d0')))
})

t.test('a failed copy is recorded and not tried for ever', async (t) => {
  const f = fixture({ d0: [{ slot: 1 }] })
  const all = f.scheduler.kick(name('d0'))
  await f.settle()
  f.finish('d0', 'failed', 7)
  await all
  t.same(f.log, ['start d0 1 0', 'ended d0 1 failed'])
})

t.test('a cancelled copy goes on where it stopped', async (t) => {
  const f = fixture({ d0: [{ slot: 1 }] })
  const first = f.scheduler.kick(name('d0'))
  await f.settle()
  t.ok(await f.scheduler.cancel(name('d0')))
  await first
  t.same(f.scheduler.progress(name('d0')), { state: 'cancelled', done: 40, total: 0 })
  void f.scheduler.kick(name('d0'))
  await f.settle()
  t.same(f.log.at(-1), 'start d0 1 40')
})

t.test('a plan swap interrupts the copy and nothing is recorded as cancelled', async (t) => {
  const f = fixture({ d0: [{ slot: 1 }] })
  const all = f.scheduler.kick(name('d0'))
  await f.settle()
  await f.scheduler.paused(name('d0'), async () => {
    f.log.push('swap')
  })
  await f.settle()
  t.same(f.log, ['start d0 1 0', 'cancel d0', 'swap', 'start d0 1 40'])
  f.finish('d0', 'done', 100)
  await all
})

t.test('passes run one after another, pass 0 never', async (t) => {
  const f = fixture({ a: [{ slot: 1 }], b: [{ slot: 1 }], c: [{ slot: 1 }] })
  const all = f.scheduler.kickAll([
    { name: name('a'), pass: 2 },
    { name: name('b'), pass: 1 },
    { name: name('c'), pass: 0 },
  ])
  await f.settle()
  t.same(f.log, ['start b 1 0'])
  f.finish('b', 'done', 1)
  await f.settle()
  f.finish('a', 'done', 1)
  await all
  t.same(f.log, ['start b 1 0', 'ended b 1 done', 'start a 1 0', 'ended a 1 done'])
})

t.test('stop leaves the record as it is', async (t) => {
  const f = fixture({ d0: [{ slot: 1 }] })
  void f.scheduler.kick(name('d0'))
  await f.settle()
  await f.scheduler.stop()
  t.same(f.log, ['start d0 1 0', 'cancel d0'])
})
