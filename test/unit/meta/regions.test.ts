import t from 'tap'
import { blocks } from '../../../src/base/units.js'
import { isRegionSize, MAX_REGIONS, regionBlocksFor, regionCount } from '../../../src/meta/regions.js'

t.test('regions are powers of two, at least 1 MiB, at most 32768', async (t) => {
  const at = (size: number, atLeast?: number) => regionBlocksFor(blocks(size), atLeast)
  t.equal(at(1), 2048)
  t.equal(at(2048 * MAX_REGIONS), 2048)
  t.equal(at(2048 * MAX_REGIONS + 1), 4096)
  t.equal(at(2 ** 31), 65536, '1 TiB: 32 MiB')
  t.equal(at(2048, 8192), 8192, 'never smaller than it was')
  t.equal(at(8192 * MAX_REGIONS + 1, 8192), 16384, 'doubles')
  t.equal(regionCount(blocks(2049), blocks(2048)), 2)
  t.equal(regionCount(blocks(2 ** 53 - 1), at(2 ** 53 - 1)) <= MAX_REGIONS, true)
  t.same([2048, 4096, 3000, 1024, 0, -2048].map(isRegionSize), [true, true, false, false, false, false])
})
