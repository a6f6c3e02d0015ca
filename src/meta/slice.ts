/** What is recorded of a slice, whoever uses it: components, and spares that may become components. */
import type { Blocks } from '../base/units.js'
import type { Reader } from './reader.js'
import type { Device, Member, Slice } from './types.js'

export const sliceOf = (d: Device, start: Blocks): Slice => ({
  name: d.name,
  path: d.path,
  identity: d.identity,
  extent: { first: d.extent.first, blocks: d.extent.blocks },
  offset: d.offset,
  size: d.size,
  start,
})

export const decodeSlice = (r: Reader): Slice => {
  const extent = r.object('extent')
  return {
    name: r.text('name'),
    path: r.text('path'),
    identity: r.text('identity'),
    extent: { first: extent.blocks('first'), blocks: extent.blocks('blocks') },
    offset: r.blocks('offset'),
    size: r.blocks('size', 1),
    start: r.blocks('start'),
  }
}

/** All of a member but its state, which is the kind's. */
export const decodeMember = (c: Reader): Omit<Member, 'state'> => {
  const spare = c.objectOrNull('spare')
  return {
    ...decodeSlice(c),
    erredOrder: c.integer('erredOrder', 0, Number.MAX_SAFE_INTEGER),
    spare: spare === null ? null : { pool: spare.name('pool'), original: decodeSlice(spare.object('original')) },
    ...(c.has('relieves') ? { relieves: c.text('relieves') } : {}),
    changed: c.time('changed'),
  }
}
