/** One assertion or more per row of driver.md 2.3 and 2.4, and what deliberately differs. */
import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { type MirrorEvent, type ResyncTarget, targetIdentity } from '../../../src/meta/mirrorstate.js'
import { COMPONENT_NEXT, derive, isRunning, SIDE_NEXT } from '../../../src/meta/mirrortables.js'
import { ALL_OPENABLE } from '../../../src/meta/sources.js'
import type { Slot, Tree } from '../../../src/meta/types.js'
import { after, type After, changed, type Changes } from './mirrors.js'
import { device, DISKS, mirrorIn, name, stripeIn, treeOf } from './world.js'

/** d1: /disks/a then /disks/b; d2: /disks/c then /disks/d; d3: /disks/e, as large as the others. */
const TREE = treeOf(['d1 2 1 /disks/a 1 /disks/b', 'd2 2 1 /disks/c 1 /disks/d', 'd0 -m d1 d2'])
const tree = (what: Changes): Tree => changed(TREE, 'd0', what)
const [A, C, D] = [
  { slot: 0, component: 0 },
  { slot: 1, component: 0 },
  { slot: 1, component: 1 },
] as const
const error = (place: { readonly slot: Slot; readonly component: number }): MirrorEvent => ({ event: 'error', place })
const done = (of: Tree, e: MirrorEvent | readonly MirrorEvent[]): After => {
  const x = after(of, e)
  if (typeof x === 'string') throw new Error(x)
  return x
}
const end = (
  target: ResyncTarget,
  result: 'done' | 'failed' | 'cancelled',
  failed: (typeof A | typeof C | typeof D) | null = null,
): MirrorEvent => ({ event: 'resyncEnd', target, result, done: blocks(4096), failed })
const FULL = { kind: 'full', slot: 1 } as const
const OPTIMIZED = { kind: 'optimized', slot: 1 } as const
const COMPONENT = { kind: 'component', slot: 1, component: 0 } as const
const NEW = { ...device('/new', 204800), start: blocks(0) }

t.test('Okay, I/O error, another source: Maintenance', async (t) => {
  const x = done(TREE, error(A))
  t.equal(x.components, 'erred okay | okay okay')
  t.equal(x.sides, 'okay okay')
  t.same(x.notices, ['md: d1: /disks/a needs maintenance'])
  t.match(x.state.mirror, { errors: 1, submirrors: [{ changed: 5000 }, { changed: 1000 }] })
  t.match(x.state.stripes.get(name('d1'))?.rows[0]?.components[0], { erredOrder: 1, changed: 5000 })
})

t.test('Okay, I/O error, no other source: Last Erred, with both messages', async (t) => {
  const x = done(tree({ components: { c: 'erred' } }), error(A))
  t.equal(x.components, 'lastErred okay | erred okay')
  t.same(x.notices, ['md: d1: /disks/a needs maintenance', 'md: d1: /disks/a last erred'])
  const one = treeOf(['d1 1 1 /disks/a', 'd0 -m d1'])
  t.equal(done(one, error(A)).components, 'lastErred', 'a mirror of one side')
})

t.test('what counts as another source', async (t) => {
  const state = (what: Changes) => done(tree(what), error(A)).components.split(' ')[0]
  t.equal(state({ components: { c: 'lastErred', b: 'erred' } }), 'erred', 'a Last Erred one')
  t.equal(state({ components: { c: 'resync' } }), 'lastErred')
  t.equal(state({ components: { d: 'erred' } }), 'erred', 'another range')
  t.equal(state({ sides: { d2: 'resync' } }), 'lastErred')
  t.equal(state({ sides: { d2: 'offline' } }), 'lastErred')
  t.equal(state({ sides: { d2: 'offlineResync' } }), 'lastErred', 'it missed writes')
  t.equal(state({ sides: { d2: 'optimized' } }), 'erred', 'it holds what was flushed')
})

t.test('several errors at once are judged in order', async (t) => {
  const x = done(TREE, [error(A), error(C)])
  t.equal(x.components, 'erred okay | lastErred okay')
  t.equal(x.state.mirror.errors, 2)
  t.equal(done(TREE, [error(C), error(A)]).components, 'lastErred okay | erred okay')
})

t.test('errors of what is no source never make it one', async (t) => {
  t.equal(done(tree({ components: { a: 'resync', c: 'erred' } }), error(A)).components, 'erred okay | erred okay')
  for (const d2 of ['attached', 'resync', 'offline', 'offlineResync'] as const)
    t.equal(
      done(tree({ sides: { d2 }, components: { a: 'erred' } }), error(C)).components,
      'erred okay | erred okay',
      d2,
    )
  t.equal(
    done(tree({ sides: { d2: 'optimized' }, components: { a: 'erred' } }), error(C)).components,
    'erred okay | lastErred okay',
    'which may still be read',
  )
})

t.test('Last Erred, further error: unchanged and silent; late errors of Maintenance too', async (t) => {
  for (const what of [{ components: { a: 'lastErred', c: 'erred' } }, { components: { a: 'erred' } }] as const) {
    const of = tree(what)
    const x = done(of, error(A))
    t.same(x.notices, [])
    t.equal(x.tree, of, 'nothing to commit')
  }
})

t.test('an error during a submirror resync leaves the side unreadable (driver.md B.2)', async (t) => {
  const x = done(tree({ sides: { d2: 'resync' } }), error(C))
  t.equal(x.sides, 'okay resync')
  t.equal(x.components, 'okay okay | erred okay')
})

t.test('open failure', async (t) => {
  const x = done(TREE, { event: 'openError', place: C })
  t.equal(x.components, 'okay okay | erred okay')
  t.same(x.notices, ['md: d2: /disks/c needs maintenance'])
})

t.test('Last Erred, a copy elsewhere is done: Maintenance, without a word', async (t) => {
  const x = done(tree({ components: { a: 'lastErred', c: 'resync' } }), end(COMPONENT, 'done'))
  t.equal(x.components, 'erred okay | okay okay')
  t.same(x.notices, [])
  t.equal(
    done(tree({ components: { a: 'lastErred' }, sides: { d2: 'resync' } }), end(FULL, 'done')).components,
    'erred okay | okay okay',
    'the same for a side',
  )
  t.equal(
    done(tree({ components: { a: 'lastErred', b: 'lastErred', c: 'resync', d: 'erred' } }), end(COMPONENT, 'done'))
      .components,
    'erred lastErred | okay erred',
    'only what is covered',
  )
})

t.test('of two Last Erred ones with the same data the one that erred last stays', async (t) => {
  const of = treeOf(['d1 1 1 /disks/a', 'd2 1 1 /disks/c', 'd3 1 1 /disks/d', 'd0 -m d1 d2 d3'])
  const both = changed(of, 'd0', {
    sides: { d3: { changed: 1 } },
    components: { a: { state: 'lastErred', erredOrder: 7 }, c: { state: 'lastErred', erredOrder: 3 }, d: 'erred' },
  })
  t.equal(done(both, { event: 'sync' }).components, 'lastErred | erred | erred')
})

t.test('metareplace: Resyncing, in the place of any state', async (t) => {
  for (const state of ['okay', 'erred', 'lastErred', 'resync'] as const) {
    const x = done(tree({ components: { c: state } }), { event: 'replace', place: C, by: NEW })
    t.equal(x.components, 'okay okay | resync okay', state)
    t.match(x.state.stripes.get(name('d2'))?.rows[0]?.components[0], {
      name: '/new',
      identity: 'file:1:/new',
      spare: null,
    })
  }
  const x = done(tree({ sides: { d2: 'attached' }, mirror: { cancelled: true } }), {
    event: 'replace',
    place: C,
    by: NEW,
  })
  t.equal(x.sides, 'okay resync', 'a side that had given up is written again')
  t.equal(x.state.mirror.cancelled, false)
  t.equal(
    after(tree({ sides: { d2: 'offline' } }), { event: 'replace', place: C, by: NEW }),
    'illegal: replace in offline',
  )
})

t.test('hot spare: only for Maintenance', async (t) => {
  const spare = { event: 'spare', place: C, by: NEW, pool: name('hsp001') } as const
  const x = done(tree({ components: { c: 'erred' } }), spare)
  t.equal(x.components, 'okay okay | resync okay')
  t.same(x.notices, ['md: d2: hotspared device /disks/c with /new'])
  t.match(x.state.stripes.get(name('d2'))?.rows[0]?.components[0], {
    name: '/new',
    state: 'resync',
    spare: { pool: 'hsp001', original: { name: '/disks/c', identity: DISKS[2]?.identity, size: 204800 } },
  })
  t.notOk('state' in (x.state.stripes.get(name('d2'))?.rows[0]?.components[0]?.spare?.original ?? {}))
  for (const state of ['okay', 'lastErred', 'resync'] as const)
    t.equal(after(tree({ components: { c: state } }), spare), `illegal: spare in ${state}`)
  t.equal(after(changed(x.tree, 'd0', { components: { new: 'erred' } }), spare), 'illegal: spare in spared already')
  const back = done(x.tree, { event: 'replace', place: C, by: { ...NEW, name: '/disks/c' } })
  t.match(back.state.stripes.get(name('d2'))?.rows[0]?.components[0], {
    name: '/disks/c',
    spare: null,
    state: 'resync',
  })
})

t.test('component resync: done, failed, and an error of its target', async (t) => {
  const of = tree({ components: { c: 'resync' } })
  t.equal(done(of, end(COMPONENT, 'done')).components, 'okay okay | okay okay')
  t.equal(done(of, end(COMPONENT, 'failed')).components, 'okay okay | resync okay')
  t.equal(done(of, [error(C), end(COMPONENT, 'failed', C)]).components, 'okay okay | erred okay')
  t.equal(after(TREE, end(COMPONENT, 'done')), 'illegal: copied in okay')
})

t.test('detach: every component is Okay again, the side is gone', async (t) => {
  const x = done(tree({ components: { c: 'erred', d: 'resync' } }), { event: 'detach', slot: 1 })
  t.equal(x.sides, 'okay')
  t.same(
    stripeIn(x.tree, 'd2').rows.flatMap((r) => r.components.map((c) => [c.state, c.erredOrder, c.changed])),
    [
      ['okay', 0, 5000],
      ['okay', 0, 5000],
    ],
  )
  t.equal(after(x.tree, { event: 'detach', slot: 0 }), 'illegal: detach in the last submirror')
  t.equal(after(x.tree, { event: 'detach', slot: 1 }), 'illegal: detach in no such submirror')
})

t.test('full resync', async (t) => {
  const of = tree({ sides: { d2: 'resync' } })
  t.equal(done(of, end(FULL, 'done')).sides, 'okay okay')
  t.equal(done(of, end(FULL, 'failed')).sides, 'okay attached')
  t.equal(done(of, end(FULL, 'failed', A)).sides, 'okay attached', 'the source cannot be read')
  t.equal(done(of, [error(C), end(FULL, 'failed', C)]).sides, 'okay resync', 'the rest of the side is worth it')
  t.equal(done(of, [error(C), error(D), end(FULL, 'failed', D)]).sides, 'okay attached', 'nothing is left to write')
  t.equal(done(of, end(FULL, 'failed', C)).sides, 'okay attached', 'its component was not found guilty')
  t.equal(done(tree({ sides: { d2: 'resync' }, components: { c: 'erred' } }), end(FULL, 'done')).sides, 'okay okay')
  t.equal(after(TREE, end(FULL, 'done')), 'illegal: fullDone in okay')
  t.equal(after(tree({ sides: { d2: 'offlineResync' } }), end(FULL, 'done')), 'illegal: fullDone in offlineResync')
})

t.test('cancelled, and continued', async (t) => {
  const x = done(tree({ sides: { d2: 'resync' } }), end(FULL, 'cancelled'))
  t.equal(x.sides, 'okay resync', 'it is written all the time')
  t.same(x.notices, ['md: d0: Resync cancelled'])
  t.match(x.state.mirror, { cancelled: true, checkpoint: { slot: 1, component: null, done: 4096 } })
  t.equal(done(x.tree, { event: 'sync' }).state.mirror.cancelled, false)
  t.equal(done(tree({ sides: { d2: 'optimized' } }), end(OPTIMIZED, 'cancelled')).state.mirror.checkpoint, null)
})

t.test('ATTACHED: metasync', async (t) => {
  t.equal(done(tree({ sides: { d2: 'attached' } }), { event: 'sync' }).sides, 'okay resync')
  const dead = tree({ sides: { d2: 'attached' }, components: { c: 'erred', d: 'erred' } })
  t.equal(done(dead, { event: 'sync' }).sides, 'okay attached', 'nothing of it can be written')
  t.equal(done(tree({ sides: { d2: 'offline' } }), { event: 'sync' }).sides, 'okay offline')
})

t.test('offline and online', async (t) => {
  const off = done(TREE, { event: 'offline', slot: 1 })
  t.equal(off.sides, 'okay offline')
  const on = done(off.tree, { event: 'online', slot: 1 })
  t.equal(on.sides, 'okay offlineResync')
  t.equal(done(on.tree, end(OPTIMIZED, 'done')).sides, 'okay okay')
  t.equal(done(on.tree, end(OPTIMIZED, 'failed')).sides, 'okay offline')
  t.equal(after(TREE, { event: 'online', slot: 1 }), 'illegal: online in okay')
  t.equal(after(on.tree, { event: 'offline', slot: 1 }), 'illegal: offline in offlineResync')
})

t.test('what was not in step when it went offline comes back by a full resync', async (t) => {
  for (const d2 of ['resync', 'attached'] as const) {
    const off = done(tree({ sides: { d2 } }), { event: 'offline', slot: 1 })
    t.equal(off.sides, 'okay offline!', d2)
    const on = done(off.tree, { event: 'online', slot: 1 })
    t.equal(on.sides, 'okay resync', d2)
    t.equal(done(off.tree, { event: 'load', log: 'clean', openable: ALL_OPENABLE }).sides, 'okay resync')
  }
  const failed = done(tree({ sides: { d2: 'offlineResync' } }), end(OPTIMIZED, 'failed'))
  t.equal(failed.sides, 'okay offline', 'that one only missed writes')
})

t.test('optimized resync', async (t) => {
  const of = tree({ sides: { d2: 'optimized' } })
  t.equal(done(of, end(OPTIMIZED, 'done')).sides, 'okay okay')
  t.equal(done(of, end(OPTIMIZED, 'failed')).sides, 'okay optimized')
  t.equal(after(TREE, end(OPTIMIZED, 'done')), 'illegal: optimizedDone in okay')
  t.equal(after(of, { event: 'offline', slot: 1 }), 'illegal: offline in optimized')
  const coming = tree({ sides: { d2: 'offlineResync' } })
  t.equal(
    done(coming, [error(C), end(OPTIMIZED, 'failed', C)]).sides,
    'okay offlineResync',
    'its other component goes on',
  )
})

t.test('start', async (t) => {
  const load = (what: Changes, log: 'clean' | 'dirty' | 'lost', closed: readonly string[] = []): string =>
    done(tree(what), { event: 'load', log, openable: (c) => !closed.includes(c.name) }).sides
  t.equal(load({}, 'clean'), 'okay okay')
  t.equal(load({}, 'dirty'), 'okay optimized')
  t.equal(load({}, 'lost'), 'okay optimized')
  t.equal(load({}, 'dirty', ['/disks/a']), 'optimized okay', 'a side that can be opened is right')
  t.equal(load({}, 'dirty', ['/disks/a', '/disks/c']), 'okay optimized', 'in part')
  t.equal(load({ components: { b: 'erred' } }, 'dirty'), 'optimized okay', 'a whole one is preferred')
  t.equal(load({ components: { b: 'lastErred' } }, 'dirty'), 'optimized okay')
  t.equal(
    load({}, 'dirty', ['/disks/a', '/disks/b', '/disks/c', '/disks/d']),
    'okay okay',
    'nothing can be opened: asked again later',
  )
  t.equal(load({ mirror: { pass: 0 } }, 'dirty'), 'okay okay', 'pass 0')
  t.equal(load({ mirror: { pass: 0 }, sides: { d2: 'offline' } }, 'clean'), 'okay offline')
  t.equal(load({ sides: { d2: 'offline' } }, 'clean'), 'okay offlineResync')
  t.equal(load({ sides: { d2: 'offline' } }, 'dirty'), 'okay offlineResync')
  t.equal(load({ sides: { d2: 'offline' } }, 'lost'), 'okay attached')
  t.equal(load({ mirror: { pass: 0 }, sides: { d2: 'offline' } }, 'lost'), 'okay attached')
  t.equal(load({ sides: { d2: 'offlineResync' } }, 'lost'), 'okay resync')
  t.equal(load({ sides: { d2: 'offlineResync' } }, 'dirty'), 'okay offlineResync')
  t.equal(load({ sides: { d2: 'resync' } }, 'dirty'), 'okay resync')
  t.equal(load({ sides: { d1: 'optimized' } }, 'dirty'), 'optimized okay')
  t.equal(load({ sides: { d2: 'attached' } }, 'dirty'), 'okay attached')
})

t.test('checkpoints belong to a target', async (t) => {
  const of = tree({ sides: { d2: 'resync' } })
  const at = (e: MirrorEvent | readonly MirrorEvent[], from = of) => done(from, e).state.mirror.checkpoint
  const mark = (target: ResyncTarget): MirrorEvent => ({ event: 'checkpoint', target, done: blocks(100) })
  const identity = `${DISKS[2]?.identity} ${DISKS[3]?.identity}`
  t.same(at(mark(FULL)), { slot: 1, component: null, identity, done: 100 })
  t.equal(targetIdentity(done(of, mark(FULL)).state, FULL), identity)
  t.equal(at(mark(OPTIMIZED)), null)
  t.equal(at(mark(COMPONENT)), null, 'it is not being copied')
  const part = tree({ components: { c: 'resync' } })
  t.match(at(mark(COMPONENT), part), { slot: 1, component: 0, identity: DISKS[2]?.identity })
  t.equal(at([mark(COMPONENT), error(C)], part), null, 'it is not written any more')
  t.equal(at([mark(COMPONENT), { event: 'replace', place: C, by: NEW }], part), null)
  t.equal(at([mark(COMPONENT), end(COMPONENT, 'done')], part), null)
  t.match(at([mark(COMPONENT), end(COMPONENT, 'failed')], part), { done: 100 }, 'it is still written')
  t.equal(at([mark(FULL), end(FULL, 'done')]), null)
  t.equal(at([mark(FULL), end(FULL, 'failed')]), null)
  t.equal(at([mark(FULL), { event: 'offline', slot: 1 }]), null)
  t.equal(at([mark(FULL), { event: 'detach', slot: 1 }]), null)
  t.match(at([mark(FULL), error(A)]), { done: 100 })
})

t.test('the state that metastat derives follows from side and components', async (t) => {
  const of = (what: Changes) => {
    const x = tree(what)
    const s = mirrorIn(x, 'd0').submirrors[1]
    if (s === undefined) throw new Error('d2')
    return derive(s, stripeIn(x, 'd2'))
  }
  t.equal(isRunning(of({})), true)
  t.match(of({ components: { c: 'lastErred' } }), { erred: true, resyncing: false, allErred: false })
  t.match(of({ components: { c: 'erred', d: 'erred' } }), { erred: true, allErred: true })
  t.match(of({ components: { c: 'erred', d: 'resync' } }), { erred: true, resyncing: true, allErred: false })
  for (const what of [{ components: { c: 'resync' } }, { sides: { d2: 'optimized' } }] as const)
    t.equal(isRunning(of(what)), false)
})

t.test('every pair of the tables that has no entry is an error value', async (t) => {
  const events = ['error', 'lastError', 'covered', 'replace', 'spare', 'copied', 'copyFailed', 'detach'] as const
  const missing = Object.entries(COMPONENT_NEXT).map(
    ([state, next]) => `${state}: ${events.filter((e) => !(e in next)).join(' ')}`,
  )
  t.same(missing, [
    'okay: covered spare copied copyFailed',
    'erred: lastError covered copied',
    'lastErred: spare copied copyFailed',
    'resync: lastError covered spare',
  ])
  t.same(
    Object.entries(SIDE_NEXT).map(([state, next]) => `${state}: ${Object.values(next).join(' ')}`),
    [
      'okay: offline okay okay optimized okay',
      'attached: offline resync attached attached',
      'resync: offline resync okay attached resync resync',
      'offline: offlineResync offline offlineResync attached',
      'offlineResync: offlineResync okay offline offlineResync resync',
      'optimized: optimized okay optimized optimized optimized',
    ],
  )
  t.equal(after(TREE, error({ slot: 2, component: 0 })), 'illegal: error in no such component')
  t.equal(after(TREE, error({ slot: 1, component: 2 })), 'illegal: error in no such component')
  t.equal(after(TREE, { event: 'online', slot: 3 }), 'illegal: online in no such submirror')
})
