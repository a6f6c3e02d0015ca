import { pino } from 'pino'
import t from 'tap'
import { ok } from '../../../src/base/result.js'
import { ResyncHosting, type ResyncParts } from '../../../src/daemon/resyncs.js'
import { changed } from '../meta/mirrors.js'
import { name, treeOf } from '../meta/world.js'

t.test('no copy begins before the engine has the state that asks for it', async (t) => {
  const before = treeOf(['d1 1 1 /disks/a', 'd2 1 1 /disks/b', 'd0 -m d1 d2'])
  const tree = changed(before, 'd0', { sides: { d2: 'offlineResync' } })
  const asked: string[] = []
  let shown = false
  const parts = {
    state: { tree },
    serving: {
      open: () => Promise.resolve(ok(undefined)),
      waits: () => false,
      isPictured: () => false,
      isShown: () => shown,
      show: () => {
        asked.push('show')
        shown = true
        return Promise.resolve(true)
      },
    },
    metadevices: { deviceOf: () => 1 },
    log: pino({ level: 'silent' }),
    readOnly: () => false,
  } as unknown as ResyncParts
  const hosting = new ResyncHosting(parts)
  const job = await hosting.next(name('d0'), [])
  t.same(asked, ['show'])
  t.match(job, { target: { kind: 'optimized', slot: 1 } })
  await hosting.next(name('d0'), [])
  t.same(asked, ['show'], 'what is shown need not be shown again')
})
