import t from 'tap'
import { setImmediate as turn } from 'node:timers/promises'
import { blocks } from '../../../src/base/units.js'
import type { ResyncTarget } from '../../../src/meta/mirrorstate.js'
import type { UnitName } from '../../../src/meta/types.js'
import { type Job, type ResyncHost, ResyncScheduler } from '../../../src/resync/scheduler.js'

const name = (s: string): UnitName => s as UnitName
const d0 = name('d0')
const full = (slot: 0 | 1 | 2 | 3, from = 0, identity = `disk ${slot}`): Job<ResyncTarget> => ({
  target: { kind: 'full', slot },
  from: blocks(from),
  identity,
})
const sameTarget = (a: ResyncTarget, b: ResyncTarget): boolean => a.kind === b.kind && a.slot === b.slot

/** A host with the copies every mirror wants; `log` is what was asked of it, in order. */
const fixture = (wanted: Record<string, Job<ResyncTarget>[]>) => {
  const log: string[] = []
  const rested: string[] = []
  const running = new Map<string, number>()
  const host: ResyncHost<ResyncTarget> = {
    next: async (m, tried) => wanted[m]?.find((j) => !tried.some((t) => sameTarget(t, j.target))),
    ended: async (m, job, end, ending) => {
      log.push(`ended ${m} ${job.target.slot} ${ending} ${end.done}`)
      if (ending === 'done') wanted[m] = (wanted[m] ?? []).filter((j) => j !== job)
      if (ending === 'cancelled') wanted[m] = (wanted[m] ?? []).map((j) => (j === job ? { ...j, from: end.done } : j))
    },
    checkpoint: (m, job, done) => log.push(`checkpoint ${m} ${job.target.slot} ${done}`),
    start: (m, work, number, from) => {
      running.set(m, number)
      log.push(`start ${m} ${work.kind === 'verify' ? 'verify' : work.job.target.slot} ${from}`)
      return true
    },
    cancel: (m) => {
      log.push(`cancel ${m}`)
      finish(m, 'cancelled', 40)
    },
    broke: (m, e) => log.push(`broke ${m} ${(e as Error).message}`),
    rested: (m) => rested.push(m),
  }
  const scheduler = new ResyncScheduler(host)
  const finish = (m: string, outcome: 'done' | 'cancelled' | 'failed', done: number, mismatches = 0): void =>
    scheduler.event({
      kind: 'resyncEnded',
      device: 0,
      job: running.get(m) ?? -1,
      outcome,
      errno: 0,
      done: blocks(done),
      component: null,
      mismatches,
    })
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 10; i++) await turn()
  }
  const job = (m: string): number => running.get(m) ?? -1
  return { log, rested, wanted, host, scheduler, finish, settle, job }
}

t.test('copies of a mirror are made one after another, from where they are to begin', async (t) => {
  const f = fixture({ d0: [full(1), full(2, 500)] })
  const all = f.scheduler.kick(d0)
  await f.settle()
  t.same(f.log, ['start d0 1 0'])
  f.finish('d0', 'done', 100)
  await f.settle()
  t.ok(f.scheduler.isRunning(d0))
  f.finish('d0', 'done', 100)
  await all
  t.same(f.log, ['start d0 1 0', 'ended d0 1 done 100', 'start d0 2 500', 'ended d0 2 done 100'])
  t.notOk(f.scheduler.isRunning(d0))
  t.same(f.rested, ['d0'], 'once, when all is done')
})

t.test('a failed copy is recorded, does not stop the next one, and is not tried again by itself', async (t) => {
  const f = fixture({ d0: [full(1), full(2)] })
  const all = f.scheduler.kick(d0)
  await f.settle()
  f.finish('d0', 'failed', 7)
  await f.settle()
  f.finish('d0', 'done', 100)
  await all
  t.same(f.log, ['start d0 1 0', 'ended d0 1 failed 7', 'start d0 2 0', 'ended d0 2 done 100'])
  void f.scheduler.kick(d0)
  await f.settle()
  t.equal(f.log.at(-1), 'start d0 1 0', 'but by the next kick')
})

t.test('a kick while a mirror is at work is not lost, and lets it try again what failed', async (t) => {
  const f = fixture({ d0: [full(1)] })
  const all = f.scheduler.kick(d0)
  await f.settle()
  void f.scheduler.kick(d0)
  f.finish('d0', 'failed', 7)
  await f.settle()
  t.same(f.log, ['start d0 1 0', 'ended d0 1 failed 7', 'start d0 1 0'])
  f.finish('d0', 'done', 9)
  await all
})

t.test('checkpoints are passed on while the copy runs, and not after', async (t) => {
  const f = fixture({ d0: [full(1)] })
  const all = f.scheduler.kick(d0)
  await f.settle()
  const checkpoint = { kind: 'resyncCheckpoint', device: 0, job: f.job('d0'), done: blocks(30) } as const
  f.scheduler.event(checkpoint)
  f.finish('d0', 'done', 100)
  f.scheduler.event(checkpoint)
  await all
  t.same(f.log, ['start d0 1 0', 'checkpoint d0 1 30', 'ended d0 1 done 100'])
})

t.test('cancelled: recorded with its stopping point, and nothing else is begun', async (t) => {
  const f = fixture({ d0: [full(1), full(2)] })
  const first = f.scheduler.kick(d0)
  await f.settle()
  t.ok(await f.scheduler.cancel(d0))
  await first
  t.same(f.log, ['start d0 1 0', 'cancel d0', 'ended d0 1 cancelled 40'])
  t.notOk(await f.scheduler.cancel(d0), 'nothing runs')
})

t.test('wanted again while it is being cancelled: it runs again afterwards', async (t) => {
  const f = fixture({ d0: [full(1)] })
  void f.scheduler.kick(d0)
  await f.settle()
  const cancelling = f.scheduler.cancel(d0)
  void f.scheduler.kick(d0)
  await cancelling
  await f.settle()
  t.same(f.log, ['start d0 1 0', 'cancel d0', 'ended d0 1 cancelled 40', 'start d0 1 40'])
})

t.test('a plan swap interrupts the copy; it goes on where it was', async (t) => {
  const f = fixture({ d0: [full(1)] })
  const all = f.scheduler.kick(d0)
  await f.settle()
  await f.scheduler.paused(d0, async () => {
    await f.settle()
    f.log.push('swap')
    t.ok(f.scheduler.isRunning(d0))
  })
  await f.settle()
  t.same(f.log, ['start d0 1 0', 'cancel d0', 'swap', 'start d0 1 40'])
  f.finish('d0', 'done', 100)
  await all
})

t.test('after a plan swap another target, or other storage, begins where it has to', async (t) => {
  const f = fixture({ d0: [full(1)] })
  void f.scheduler.kick(d0)
  await f.settle()
  await f.scheduler.paused(d0, async () => {
    f.wanted['d0'] = [full(1, 0, 'another disk')]
  })
  await f.settle()
  t.equal(f.log.at(-1), 'start d0 1 0')
})

t.test('nothing begins during a plan swap, whenever it was kicked', async (t) => {
  const f = fixture({ d0: [full(1)] })
  let swapped = false
  const swap = f.scheduler.paused(d0, async () => {
    await f.settle()
    swapped = true
  })
  void f.scheduler.kick(d0)
  const start = f.host.start.bind(f.host)
  f.host.start = (...args) => {
    t.ok(swapped)
    return start(...args)
  }
  await swap
  await f.settle()
  t.same(f.log, ['start d0 1 0'])
})

t.test('passes run one after another, pass 0 never', async (t) => {
  const f = fixture({ a: [full(1)], b: [full(1)], c: [full(1)] })
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
  t.same(f.log, ['start b 1 0', 'ended b 1 done 1', 'start a 1 0', 'ended a 1 done 1'])
})

t.test('a stop is told apart from a cancel', async (t) => {
  const f = fixture({ d0: [full(1), full(2)] })
  void f.scheduler.kick(d0)
  await f.settle()
  await f.scheduler.stop()
  t.same(f.log, ['start d0 1 0', 'cancel d0', 'ended d0 1 stopped 40'])
})

t.test('a comparison reports what differs', async (t) => {
  const f = fixture({})
  const verified = f.scheduler.verify(d0, true)
  t.equal(f.scheduler.verify(d0, false), null, 'one at a time')
  await f.settle()
  t.same(f.log, ['start d0 verify 0'])
  t.notOk(f.scheduler.isRunning(d0), 'it is no resync')
  f.scheduler.event({ kind: 'verifyMismatch', device: 0, job: f.job('d0'), block: blocks(8), blocks: blocks(2) })
  f.finish('d0', 'done', 100, 2)
  t.same(await verified, { ending: 'done', errno: 0, mismatchBlocks: 2, ranges: [{ block: 8, blocks: 2 }] })
})

t.test('a comparison fails when its metadevice is served no longer', async (t) => {
  const f = fixture({})
  const verified = f.scheduler.verify(d0, false)
  await f.settle()
  f.host.start = () => false
  await f.scheduler.paused(d0, async () => f.settle())
  t.same(await verified, { ending: 'failed', errno: 6, mismatchBlocks: 0, ranges: [] })
  await f.settle()
  t.same(f.log, ['start d0 verify 0', 'cancel d0'], 'which is no defect')
  t.same(f.rested, ['d0'])
})

t.test('a copy of what is served no longer waits until it is again', async (t) => {
  const f = fixture({ d0: [full(1)] })
  const start = f.host.start.bind(f.host)
  f.host.start = () => {
    f.wanted['d0'] = []
    return false
  }
  await f.scheduler.kick(d0)
  t.same(f.log, [], 'nothing is recorded of it')
  f.host.start = start
  f.wanted['d0'] = [full(1)]
  void f.scheduler.kick(d0)
  await f.settle()
  t.same(f.log, ['start d0 1 0'])
})

t.test('a copy goes before a comparison, which goes on afterwards with what it knows', async (t) => {
  const f = fixture({})
  const verified = f.scheduler.verify(d0, false)
  await f.settle()
  f.scheduler.event({ kind: 'verifyMismatch', device: 0, job: f.job('d0'), block: blocks(8), blocks: blocks(2) })
  f.wanted['d0'] = [full(1)]
  void f.scheduler.kick(d0)
  await f.settle()
  f.finish('d0', 'done', 100)
  await f.settle()
  t.same(f.log, ['start d0 verify 0', 'cancel d0', 'start d0 1 0', 'ended d0 1 done 100', 'start d0 verify 40'])
  f.finish('d0', 'failed', 60, 1)
  t.match(await verified, { ending: 'failed', mismatchBlocks: 1, ranges: [{ block: 8, blocks: 2 }] })
})

t.test('whoever waits for a comparison is told when it is cancelled, or metad ends', async (t) => {
  const f = fixture({})
  const cancelled = f.scheduler.verify(d0, false)
  await f.settle()
  await f.scheduler.cancel(d0)
  t.match(await cancelled, { ending: 'cancelled' })
  const stopped = f.scheduler.verify(d0, false)
  await f.settle()
  await f.scheduler.stop()
  t.match(await stopped, { ending: 'cancelled' })
})

t.test('a defect in the host ends the work of that mirror and is reported', async (t) => {
  const f = fixture({ d0: [full(1)] })
  f.host.start = () => {
    throw new Error('not served')
  }
  const verified = f.scheduler.verify(d0, false)
  await f.scheduler.kick(d0)
  t.same(f.log, ['broke d0 not served'])
  t.match(await verified, { ending: 'failed' })
  t.notOk(f.scheduler.isRunning(d0))
})
