/** Names of the engine's counters, in the order of native/engine/counters.h. */
export const COUNTERS = [
  'reads',
  'readBytes',
  'readErrors',
  'writes',
  'writeBytes',
  'writeErrors',
  'flushes',
  'flushErrors',
  'trims',
  'trimBytes',
  'trimErrors',
  'zeroes',
  'zeroBytes',
  'zeroErrors',
  'caches',
  'cacheBytes',
  'cacheErrors',
  'blockStatuses',
  'blockStatusErrors',
  'badRequests',
  /** Rewritten from another side of a mirror because they could not be read. */
  'repairedBlocks',
  /** Connections now. */
  'connections',
  /** Requests now. */
  'inFlight',
] as const

export type CounterName = (typeof COUNTERS)[number]

export const namedCounters = (values: BigUint64Array): Readonly<Record<CounterName, bigint>> => {
  const entries = COUNTERS.map((name, i): readonly [CounterName, bigint] => [name, values[i] ?? 0n])
  return Object.fromEntries(entries) as Record<CounterName, bigint>
}
