/**
 * The byte layout and the limits of an encoded plan, stated once: native/plan/constants.h is
 * generated from this file (scripts/plan-constants) and a test keeps the two in step.
 *
 * All numbers are little-endian. Header, node table, row table, reference table follow each other
 * without gaps; a stripe's rows, a row's references and a mirror's references lie in node order, so
 * every plan has exactly one encoding.
 */
export const PLAN = {
  /** "MDPL" */
  MAGIC: 0x4c50444d,
  VERSION: 2,

  /** magic u32, version u16, header bytes u16, total bytes u32, crc u32, generation u64, flags u32, counts 3 x u32, zero u64 */
  HEADER_BYTES: 48,
  OFFSET_VERSION: 4,
  OFFSET_HEADER_BYTES: 6,
  OFFSET_TOTAL: 8,
  /** CRC-32C of everything, this field taken as zero. */
  OFFSET_CRC: 12,
  OFFSET_GENERATION: 16,
  OFFSET_FLAGS: 24,
  OFFSET_NODES: 28,
  OFFSET_ROWS: 32,
  OFFSET_REFS: 36,
  OFFSET_ZERO: 40,

  /** kind u8, read u8, write u8, flags u8, component u32, start u64, blocks u64, first u32, count u32 */
  NODE_BYTES: 32,
  NODE_KIND: 0,
  NODE_READ: 1,
  NODE_WRITE: 2,
  /** Component: COMPONENT_ flags. RAID5: RAID_ flags. */
  NODE_FLAGS: 3,
  /** Component: its number. RAID5: original columns. */
  NODE_COMPONENT: 4,
  /** Component: its first block. Mirror: blocks of a dirty region, 0 without a log. RAID5: epoch of the journal. */
  NODE_START: 8,
  NODE_BLOCKS: 16,
  /**
   * Component: lastErred, 0. Stripe: first row and number of rows. Mirror: first reference and number of sides.
   * RAID5: the first of its two rows, 2: segment, lines, references to all columns; and blocks of the prewrite area,
   * unit, serving columns; and of which column the last one is becoming a copy, plus 1, 0: of none.
   */
  NODE_FIRST: 24,
  NODE_COUNT: 28,

  /** interlace u64, blocks u64, first reference u32, number of references u32 */
  ROW_BYTES: 24,
  ROW_INTERLACE: 0,
  ROW_BLOCKS: 8,
  ROW_FIRST: 16,
  ROW_COUNT: 20,

  /** node u32, flags u32 */
  REF_BYTES: 8,
  REF_NODE: 0,
  REF_FLAGS: 4,

  FLAG_LABELLED: 1,
  FLAG_READ_ONLY: 2,
  FLAGS_KNOWN: 3,
  /** Of a component node. */
  COMPONENT_READABLE: 1,
  COMPONENT_WRITABLE: 2,
  COMPONENT_FLAGS: 3,
  /** Of a mirror's reference to a side; its slot stands above them. */
  REF_READABLE: 1,
  REF_WRITABLE: 2,
  REF_STALE: 4,
  REF_SLOT_SHIFT: 8,
  REF_KNOWN: 0x307,
  /** Of a RAID5 node. */
  RAID_REPLAY: 1,
  RAID_FLAGS: 1,

  KIND_COMPONENT: 1,
  KIND_STRIPE: 2,
  KIND_MIRROR: 3,
  KIND_RAID5: 4,

  READ_ROUNDROBIN: 0,
  READ_GEOMETRIC: 1,
  READ_FIRST: 2,
  WRITE_PARALLEL: 0,
  WRITE_SERIAL: 1,

  MAX_NODES: 65536,
  MAX_ROWS: 65536,
  MAX_REFS: 65536,
  MAX_SIDES: 4,
  MIN_RAID_COLUMNS: 3,
  MAX_RAID_COLUMNS: 64,
  MIN_RAID_INTERLACE: 2,
  /** Of a prewrite area: four groups of one row of 8 blocks or one segment, their headers, and some to spare. */
  PREWRITE_GROUPS: 4,
  PREWRITE_SPARE: 6,
  MAX_PREWRITE: 0x7fffffff,
  /** A dirty region: a power of two, at most so many in a mirror. */
  MIN_REGION_BLOCKS: 8,
  MAX_REGIONS: 32768,
  /** 8 KiB and 100 MiB. */
  MIN_INTERLACE: 16,
  MAX_INTERLACE: 204800,
  /** Every size and address, and the generation: safe integers. */
  MAX_BLOCKS: Number.MAX_SAFE_INTEGER,
} as const
