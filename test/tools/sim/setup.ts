/**
 * What stands in a simulated host: two mirrors that share hot spares, their disks, and disks that are free. Or, with
 * even seeds, RAID5 devices that share spares with each other or with a mirror.
 *
 * `d0` has sides of three shapes, which all can grow; `d10` is small and comes and goes. In a `large` host a
 * cell is 512 MiB, so that growing makes the dirty regions double.
 */
import type { UnitName } from '../../../src/meta/types.js'
import type { Dice } from './schedule.js'

export interface Setup {
  /** Blocks of a cell: also of a cylinder and of an interlace, so that nothing is ever rounded. */
  readonly cellBlocks: number
  /** Cells by name. */
  readonly disks: Readonly<Record<string, number>>
  readonly tab: string
  readonly mirrors: readonly MirrorSetup[]
  readonly raid5s: readonly Raid5Setup[]
  /** Disks that are sides of mirrors to begin with, beside RAID5 devices. */
  readonly sides: readonly string[]
}

export interface Raid5Setup {
  readonly name: UnitName
  readonly columns: readonly string[]
  /** Disks that may be attached. */
  readonly growth: readonly string[]
  readonly pool: UnitName
  /** May be cleared and made again. */
  readonly passing: boolean
}

export interface MirrorSetup {
  readonly name: UnitName
  readonly sides: readonly UnitName[]
  /** What each side may grow by. */
  readonly growth: Readonly<Record<string, string>>
  readonly cells: number
  readonly grownCells: number
  /** It may be cleared and made again. */
  readonly passing: boolean
}

const names = (...of: readonly string[]): readonly UnitName[] => of as readonly UnitName[]

const mirrors = (cells: number, more: number, small: number): readonly MirrorSetup[] => [
  {
    name: 'd0' as UnitName,
    sides: names('d1', 'd2', 'd3'),
    growth: { d1: '/a3', d2: '/b2', d3: '/c4' },
    cells,
    grownCells: cells + more,
    passing: false,
  },
  {
    name: 'd10' as UnitName,
    sides: names('d11', 'd12'),
    growth: {},
    cells: small,
    grownCells: small,
    passing: true,
  },
]

const disksFor = (cells: number, more: number, small: number): Record<string, number> => ({
  '/a1': cells / 2,
  '/a2': cells / 2,
  '/a3': more,
  '/b1': cells,
  '/b2': more,
  '/c1': cells / 3,
  '/c2': cells / 3,
  '/c3': cells / 3,
  '/c4': more,
  '/e1': small,
  '/f1': small,
  // Spares: one that is too small for most, one for nearly everything, one for all.
  '/s1': small,
  '/s2': cells / 2,
  '/s3': cells,
  '/s4': cells / 2,
  // Free.
  '/x1': cells + 1,
  '/x2': cells / 2,
  '/x3': cells / 3,
  '/x4': small + 1,
})

const POOLS = ['hsp001 /s1 /s2 /s3', 'hsp002 /s3 /s4']

const SMALL: Setup = {
  raid5s: [],
  sides: [],
  cellBlocks: 128,
  disks: disksFor(96, 24, 24),
  mirrors: mirrors(96, 24, 24),
  tab: [
    ...POOLS,
    'd1 1 2 /a1 /a2 -i 128b -h hsp001',
    'd2 1 1 /b1 -h hsp001',
    'd3 2 1 /c1 2 /c2 /c3 -i 128b -h hsp002',
    'd11 1 1 /e1 -h hsp001',
    'd12 1 1 /f1 -h hsp002',
    'd0 -m d1',
    'd10 -m d11',
    '',
  ].join('\n'),
}

const LARGE: Setup = {
  raid5s: [],
  sides: [],
  cellBlocks: 1 << 20,
  disks: disksFor(48, 24, 6),
  mirrors: mirrors(48, 24, 6),
  tab: [
    ...POOLS,
    'd1 2 1 /a1 1 /a2 -h hsp001',
    'd2 1 1 /b1 -h hsp002',
    'd3 3 1 /c1 1 /c2 1 /c3 -h hsp001',
    'd11 1 1 /e1 -h hsp001',
    'd12 1 1 /f1 -h hsp001',
    'd0 -m d1',
    'd10 -m d11',
    '',
  ].join('\n'),
}

/** Without the side that has everything on one disk: components of the others are covered by several. */
const NARROW: Setup = {
  ...SMALL,
  mirrors: SMALL.mirrors.map((m) => ({ ...m, sides: m.sides.filter((unit) => unit !== 'd2') })),
}

/** A segment is a cell: ten of them are the prewrite area, the others lines. */
const PREWRITE = 10
const LINES = 16
const WHOLE = PREWRITE + LINES

const raid5 = (
  name: string,
  columns: number,
  growth: readonly string[],
  pool: string,
  passing: boolean,
): Raid5Setup => ({
  name: name as UnitName,
  columns: Array.from({ length: columns }, (_, i) => `/${name}.${i}`),
  growth,
  pool: pool as UnitName,
  passing,
})

const raid5Host = (raid5s: readonly Raid5Setup[], mirrors: readonly MirrorSetup[]): Setup => ({
  cellBlocks: 128,
  disks: {
    ...Object.fromEntries(raid5s.flatMap((r) => r.columns.map((c) => [c, WHOLE]))),
    '/g1': WHOLE,
    '/g2': WHOLE + 1,
    '/e1': LINES,
    '/f1': LINES,
    // Spares: one that is too small, two that are not.
    '/s1': LINES,
    '/s2': WHOLE,
    '/s3': WHOLE + 2,
    // Free.
    '/x1': WHOLE,
    '/x2': WHOLE + 1,
    '/x3': WHOLE - 1,
    '/x4': LINES,
  },
  mirrors,
  raid5s,
  sides: ['/e1', '/f1'],
  tab: [
    'hsp001 /s1 /s2',
    'hsp002 /s2 /s3',
    ...raid5s.map((r) => `${r.name} -r ${r.columns.join(' ')} -i 128b -h ${r.pool}`),
    ...(mirrors.length === 0 ? [] : ['d11 1 1 /e1 -h hsp001', 'd12 1 1 /f1 -h hsp001', 'd10 -m d11']),
    '',
  ].join('\n'),
})

const RAID5_HOSTS: readonly Setup[] = [
  raid5Host(
    [raid5('d20', 4, ['/g1', '/g2'], 'hsp002', false)],
    mirrors(LINES, 0, LINES).filter((m) => m.name === 'd10'),
  ),
  raid5Host([raid5('d20', 3, ['/g1', '/g2'], 'hsp001', false), raid5('d30', 3, [], 'hsp002', true)], []),
  raid5Host([raid5('d20', 5, ['/g1'], 'hsp002', true)], []),
]

export const setupOf = (seed: number, dice: Dice): Setup => {
  if (seed % 2 === 0) return dice.pick(RAID5_HOSTS)
  const percent = dice.below(100)
  return percent < 25 ? LARGE : percent < 50 ? NARROW : SMALL
}
