/** Cylinders: the unit to which starts are rounded up and sizes down (driver.md 1.2, 1.3). */
import { type Blocks, blocks } from '../base/units.js'
import type { Geometry } from './types.js'

/** Of files and disks without a label: cylinders of 1 MiB. */
export const DEFAULT_GEOMETRY: Geometry = { heads: 64, sectors: 32 }

export const cylinder = (g: Geometry): Blocks => blocks(g.heads * g.sectors)
