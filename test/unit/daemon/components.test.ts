import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Components } from '../../../src/daemon/components.js'
import { DEFAULTS } from '../../../src/daemon/config.js'
import { blocks } from '../../../src/base/units.js'
import type { Slice } from '../../../src/meta/types.js'
import { examine } from '../../../src/sys/storage.js'

const sliceAt = async (path: string): Promise<Slice> => {
  const storage = await examine(path)
  if (storage === undefined) throw new Error(path)
  const { identity, first, size } = storage
  const extent = { first, blocks: size }
  return { name: path, path, identity, extent, offset: blocks(0), size, start: blocks(0) }
}

t.test('what was given back can be opened again at once', async (t) => {
  const path = join(t.testdir({}), 'disk')
  writeFileSync(path, Buffer.alloc(4096))
  const c = await sliceAt(path)
  const components = new Components(DEFAULTS, () => false)
  const numbers = new Set<number>()
  for (let i = 0; i < 200; i++) {
    const opened = await components.acquire(c)
    if (!opened.ok) throw new Error(opened.error.code)
    numbers.add(opened.value.component)
    components.release(c)
  }
  t.equal(numbers.size, 200, 'each opening has a number of its own')
  const [first, second] = await Promise.all([components.acquire(c), components.acquire(c)])
  t.same(first, second, 'two users share it')
  components.release(c)
  t.ok(components.get(c))
  components.release(c)
  t.equal(components.get(c), undefined)
})

t.test('what is busy without users is held, and somebody is told when it is not', async (t) => {
  const path = join(t.testdir({}), 'disk')
  writeFileSync(path, Buffer.alloc(4096))
  const c = await sliceAt(path)
  let busy = true
  let freed = 0
  const components = new Components(
    DEFAULTS,
    () => busy,
    () => freed++,
  )
  const used = await components.acquire(c)
  t.ok(used.ok && !components.isHeld(c), 'in use')
  components.release(c)
  t.ok(components.isHeld(c))
  const refused = await components.acquire(c)
  t.match(refused, { ok: false, error: { args: ['Device or resource busy'] } })
  t.equal(freed, 0)
  busy = false
  for (const end = Date.now() + 60_000; freed === 0 && Date.now() < end; await sleep(10));
  t.equal(freed, 1)
  t.notOk(components.isHeld(c))
  t.ok((await components.acquire(c)).ok)
  components.release(c)
  await sleep(50)
  t.equal(freed, 1, 'nobody waited for that')
})
