/** What is recorded of a slice, whoever uses it: components, and spares that may become components. */
import type { Blocks } from '../base/units.js'
import type { Reader } from './reader.js'
import type { Device, Slice } from './types.js'

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
