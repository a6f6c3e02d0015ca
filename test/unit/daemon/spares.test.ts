import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { err, ok } from '../../../src/base/result.js'
import { blocks } from '../../../src/base/units.js'
import type { Opener } from '../../../src/daemon/limited.js'
import { type SpareOpener, SpareSearch, unreadableSpares, verifySpare } from '../../../src/daemon/spares.js'
import { poke, type Taken } from '../../../src/meta/hotspare.js'
import { IDLE } from '../../../src/meta/kind.js'
import { spareState, standingSpares } from '../../../src/meta/standing.js'
import { stripeComponents } from '../../../src/meta/sources.js'
import { poolsOf } from '../../../src/meta/tree.js'
import type { Slice, Tree } from '../../../src/meta/types.js'
import { errorText, type MetaResult, metaError } from '../../../src/msg/errors.js'
import type { ComponentId } from '../../../src/plan/types.js'
import { type FaultDisks, missingFaultDisk, startFaultDisks } from '../../tools/faultdisk.js'
import { changed } from '../meta/mirrors.js'
import { device, inventoryOf, stripeIn, treeOf } from '../meta/world.js'

const MIB = 2048
const opened = new Set<number>()
/** Opens what is there, once for all users; the descriptors still open can be counted. */
const opener = (direct = false, held: ReadonlySet<string> = new Set()): SpareOpener => {
  const shared = new Map<string, { readonly fd: number; users: number }>()
  return {
    isHeld: (slice) => held.has(slice.path),
    acquire: (slice) => {
      if (held.has(slice.path)) return Promise.resolve(err(metaError('sys', slice.name, 'Device or resource busy')))
      const flags = constants.O_RDWR | (direct ? constants.O_DIRECT : 0)
      const has = shared.get(slice.path) ?? { fd: openSync(slice.path, flags), users: 0 }
      has.users++
      shared.set(slice.path, has)
      opened.add(has.fd)
      return Promise.resolve(
        ok({
          component: 1 as ComponentId,
          fd: has.fd,
          direct,
          align: direct ? 4096 : 512,
          blockDevice: false,
          size: slice.size,
          timeoutMillis: 0,
        }),
      )
    },
    release: (slice) => {
      const has = shared.get(slice.path)
      if (has === undefined || --has.users > 0) return
      shared.delete(slice.path)
      opened.delete(has.fd)
      closeSync(has.fd)
    },
  }
}
const slice = (path: string, size: number, offset = 0, start = 0): Slice => ({
  name: path,
  path,
  identity: path,
  extent: { first: blocks(0), blocks: blocks(size) },
  offset: blocks(offset),
  size: blocks(size),
  start: blocks(start),
})
const why = (r: MetaResult<void>): string => (r.ok ? 'fit' : errorText(r.error))
const closedSoon = async (): Promise<number> => {
  const end = Date.now() + 60_000
  while (opened.size > 0 && Date.now() < end) await new Promise((next) => setTimeout(next, 10))
  return opened.size
}

/** A directory that outlives the mount in it. */
const faulty = (t: Test, disks: Readonly<Record<string, number>>): Promise<FaultDisks> => {
  const dir = mkdtempSync(join(tmpdir(), 'spares-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  return startFaultDisks(t, dir, disks)
}

t.test('a spare that works is read, written back and left as it was', async (t) => {
  const path = join(t.testdir({}), 's')
  const bytes = Buffer.alloc(MIB * 512, 'spare')
  writeFileSync(path, bytes)
  for (const direct of [false, true])
    for (const by of [slice(path, MIB), slice(path, 100, 8, 16), slice(path, 16), slice(path, 3, 1)]) {
      const fit = verifySpare({ by, blocks: blocks(by.size - by.start) }, opener(direct), 10)
      t.equal(why(await fit), 'fit', `${direct ? 'direct' : 'cached'} ${by.size} from ${by.offset + by.start}`)
    }
  t.ok(readFileSync(path).equals(bytes))
  t.equal(opened.size, 0, 'all closed')
})

t.test('what cannot be opened is not used', async (t) => {
  const refusing: Opener = {
    acquire: (s) => Promise.resolve(err(metaError('replaced', s.name))),
    release: () => t.fail('nothing was opened'),
  }
  const fit = await verifySpare({ by: slice('/x', MIB), blocks: blocks(MIB) }, refusing, 10)
  t.equal(why(fit), 'storage was replaced since it was configured')
})

t.test('a disk that fails is found out', { skip: missingFaultDisk() }, async (t) => {
  const disks = await faulty(t, { a: 4 })
  const by = slice(disks.path('a'), 4 * MIB)
  const verify = (limit = 30) => verifySpare({ by, blocks: blocks(4 * MIB) }, opener(), limit)
  t.equal(why(await verify()), 'fit')
  for (const [rule, text] of [
    ['fail read EIO', 'Input/output error'],
    ['fail write EROFS', 'Read-only file system'],
    ['fail sync EIO', 'Input/output error'],
    [`fail read EIO from=${4 * MIB * 512 - 512}`, 'Input/output error'],
    [`fail write ENOSPC from=${4 * MIB * 512 - 512}`, 'No space left on device'],
    ['short read', 'Input/output error'],
  ] as const) {
    disks.tell(`a ${rule}`)
    t.equal(why(await verify()), text, rule)
    disks.tell('a ok')
  }
  t.equal(why(await verify()), 'fit', 'and well again')
  t.equal(opened.size, 0)

  disks.tell('a hang sync')
  t.equal(why(await verify(1)), 'Connection timed out', 'nobody waits for ever')
  t.equal(opened.size, 1, 'still open: the kernel works on it')
  disks.tell('a ok')
  t.equal(await closedSoon(), 0, 'closed when it came back')
})

t.test('metastat -i: Available spares are read, others left alone', { skip: missingFaultDisk() }, async (t) => {
  const disks = await faulty(t, { a: 4, b: 4, c: 4 })
  const [a, b, c] = ['a', 'b', 'c'].map((n) => disks.path(n))
  const inventory = inventoryOf([a, b, c].map((p) => device(p ?? '', 4 * MIB)))
  const tree = treeOf([`hsp001 ${a ?? ''} ${b ?? ''}`, `hsp002 ${b ?? ''} ${c ?? ''}`], { inventory })
  for (const name of ['b', 'c']) disks.tell(`${name} fail read EIO`)
  const before = disks.counters('a').writes
  const broken = new Map(
    [...tree].map(([n, u]) => [
      n,
      u.kind === 'pool' ? { ...u, spares: u.spares.map((s) => ({ ...s, broken: s.name === c })) } : u,
    ]),
  )
  t.same([...(await unreadableSpares(broken, opener(), 30))], [b])
  t.same([...(await unreadableSpares(broken, opener(false, new Set([a ?? ''])), 30))], [b], 'nor what is held')
  t.equal(disks.counters('a').writes, before, 'nothing is written')
  t.equal(opened.size, 0)
})

const DISKS = ['/a', '/b', '/c', '/d', '/s1', '/s2', '/s3'].map((n) => device(n, 10 * MIB))
const ERRED = changed(
  treeOf(['hsp001 /s1 /s2 /s3', 'd1 2 1 /a 1 /b -h hsp001', 'd2 2 1 /c 1 /d -h hsp001', 'd0 -m d1 d2'], {
    inventory: inventoryOf(DISKS),
  }),
  'd0',
  { components: { c: 'erred', d: 'erred' } },
)

/** A daemon of one tree; `verdict` answers for the storage. */
const world = (
  verdict: (s: Slice) => MetaResult<void>,
  more: Partial<ConstructorParameters<typeof SpareSearch>[0]> = {},
) => {
  const said: string[] = []
  const taken: string[] = []
  let tree: Tree = ERRED
  const search = new SpareSearch({
    opener: {
      acquire: (s) => {
        const v = verdict(s)
        if (!v.ok) return Promise.resolve(v)
        return opener().acquire({ ...s, path: '/dev/null' })
      },
      release: (s) => opener().release(s),
      isHeld: () => false,
    },
    limitSeconds: 0,
    log: pino({ level: 'silent' }),
    notice: (level, text) => said.push(`${level} ${text}`),
    tree: () => tree,
    live: () => IDLE,
    readOnly: () => false,
    change: (decide) => {
      const next = decide(tree)
      if (next.ok) tree = next.value.outcome.tree
      return Promise.resolve(next)
    },
    taken: (mirror) => {
      taken.push(`${mirror} ${opened.size}`)
      return Promise.resolve()
    },
    ...more,
  })
  return {
    search,
    said,
    taken,
    tree: () => tree,
    states: () =>
      poolsOf(tree)
        .flatMap((p) => p.spares.map((s) => spareState(s, standingSpares(tree))))
        .join(', '),
  }
}

t.test('the search goes on until all that works is taken', async (t) => {
  const path = join(t.testdir({}), 'disk')
  writeFileSync(path, Buffer.alloc(10 * MIB * 512))
  const at = (s: Slice): Slice => ({ ...s, path })
  const one = opener()
  const w = world(() => ok(undefined), {
    opener: {
      acquire: (s) =>
        s.name === '/s1' ? Promise.resolve(err(metaError('sys', s.name, 'No such device'))) : one.acquire(at(s)),
      release: (s) => one.release(at(s)),
      isHeld: () => false,
    },
  })
  w.search.wanted()
  w.search.wanted()
  await w.search.idle()
  t.same(w.said, [
    'warning md: d2: open error of hotspare /s1',
    'notice md: d2: hotspared device /c with /s2',
    'notice md: d2: hotspared device /d with /s3',
  ])
  t.same(w.taken, ['d0 1', 'd0 1'], 'the spare is kept open until the engine has it')
  t.equal(w.states(), 'Broken, In use, In use')
  t.same(
    stripeComponents(stripeIn(w.tree(), 'd2')).map((c) => `${c.name} ${c.state}`),
    ['/s2 resync', '/s3 resync'],
  )
  w.search.wanted()
  await w.search.idle()
  t.equal(w.said.length, 3, 'nothing is left to do')
  t.equal(opened.size, 0)
})

t.test('a spare that is held is passed over, and taken when it is not any more', async (t) => {
  const path = join(t.testdir({}), 'disk')
  writeFileSync(path, Buffer.alloc(10 * MIB * 512))
  const at = (s: Slice): Slice => ({ ...s, path })
  const held = new Set(['/s1', '/s3'])
  const busy = (s: Slice): MetaResult<never> => err(metaError('sys', s.name, 'Device or resource busy'))
  const one = opener()
  const w = world(() => ok(undefined), {
    opener: {
      acquire: (s) => (held.has(s.name) ? Promise.resolve(busy(s)) : one.acquire(at(s))),
      release: (s) => one.release(at(s)),
      isHeld: (s) => held.has(s.name),
    },
  })
  const asked = async (): Promise<void> => {
    w.search.wanted()
    await w.search.idle()
  }
  await asked()
  const passed = [
    'notice md: d2: hotspare /s1 is still busy, and passed over until it is not',
    'notice md: d2: hotspared device /c with /s2',
    'notice md: d2: hotspare /s3 is still busy, and passed over until it is not',
  ]
  t.same(w.said, passed)
  t.equal(w.states(), 'Available, In use, Available')
  await asked()
  t.same(w.said, passed, 'said once')
  held.clear()
  await asked()
  t.same(w.said.slice(3), ['notice md: d2: hotspared device /d with /s1'])
  t.equal(w.states(), 'In use, In use, Available')
  t.equal(opened.size, 0)
})

t.test('nothing is taken while the state database refuses changes, or when a commit fails', async (t) => {
  const readOnly = world(() => err(metaError('replaced', '')), { readOnly: () => true })
  readOnly.search.wanted()
  await readOnly.search.idle()
  t.equal(readOnly.states(), 'Available, Available, Available')

  let asked = 0
  const failing = world(() => err(metaError('replaced', '')), {
    change: () => {
      asked++
      return Promise.resolve(err(metaError('commitFailed')))
    },
  })
  failing.search.wanted()
  await failing.search.idle()
  t.same(failing.said, [])
  t.equal(asked, 1, 'not tried for ever')
  t.equal(failing.states(), 'Available, Available, Available')
})

t.test('a tree that moved on during the look at the spare is looked at again', async (t) => {
  let tree: Tree = ERRED
  let looks = 0
  const decided: (Taken | null)[] = []
  const w = world(
    () => {
      // The first component recovers meanwhile, so the spare is for the second.
      if (looks++ === 0) tree = changed(ERRED, 'd0', { components: { c: 'okay' } })
      return err(metaError('replaced', ''))
    },
    {
      tree: () => tree,
      change: (decide) => {
        const next = decide(tree)
        decided.push(next.ok ? next.value : null)
        if (next.ok) tree = next.value.outcome.tree
        return Promise.resolve(next)
      },
    },
  )
  w.search.wanted()
  await w.search.idle()
  t.equal(decided[0], null, 'the first look counted for nothing')
  t.equal(poke(tree, IDLE).length, 0)
  t.equal(
    poolsOf(tree)
      .flatMap((p) => p.spares.filter((s) => s.broken).map((s) => s.name))
      .join(' '),
    '/s1 /s2 /s3',
    'each looked at for the component that still waits',
  )
})
