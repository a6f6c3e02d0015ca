import t from 'tap'
import * as fc from 'fast-check'
import { validateRequest } from '../../../src/daemon/validate.js'

t.test('whole requests pass as they are', async (t) => {
  const init = { op: 'init', cwd: '/', check: false, force: false, all: false, words: ['d0', '1', '1', '/a'] }
  t.same(validateRequest(init), { ok: true, value: init })
  const sync = {
    op: 'sync',
    cancel: false,
    parity: false,
    restart: false,
    verify: 'repair',
    bufferBlocks: null,
    names: ['d0'],
  }
  t.same(validateRequest(sync), { ok: true, value: sync })
  const enable = { op: 'replace', cwd: '/', force: false, unit: 'd0', old: '/a', new: null }
  t.same(validateRequest(enable), { ok: true, value: enable })
  t.same(validateRequest({ ...sync, verify: 'fix' }), { ok: false, error: 'sync: bad field verify' })
  t.same(validateRequest({ op: 'ping' }), { ok: true, value: { op: 'ping' } })
})

t.test('missing, wrong and unknown fields are refused by name', async (t) => {
  t.same(validateRequest({}), { ok: false, error: 'unknown request without op' })
  t.same(validateRequest({ op: 'toString' }), { ok: false, error: 'unknown request "toString"' })
  t.same(validateRequest({ op: 'stat', names: [] }), { ok: false, error: 'stat: bad field probe' })
  t.same(validateRequest({ op: 'stat', probe: false, names: [1] }), { ok: false, error: 'stat: bad field names' })
  t.same(validateRequest({ op: 'stat', probe: false, names: ['a\0b'] }), { ok: false, error: 'stat: bad field names' })
  const add = { op: 'hotspare', cwd: '/', action: 'add', pool: 'hsp001', words: ['/a'] }
  t.ok(validateRequest(add).ok)
  t.ok(validateRequest({ ...add, action: 'enable', pool: null }).ok)
  t.same(validateRequest({ ...add, action: 'steal' }), { ok: false, error: 'hotspare: bad field action' })
  t.same(validateRequest({ op: 'ping', more: 1 }), { ok: false, error: 'ping: unknown field more' })
})

t.test('no object makes it throw', async () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (o) => {
      validateRequest(o)
      validateRequest({ ...o, op: 'init' })
    }),
  )
})
