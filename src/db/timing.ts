/** Every wait of the database, so that tests need not wait. Milliseconds. */
export interface Timing {
  /** A replica that has not answered by then is out. */
  readonly requestMs: number
  /** Same, for starting its helper and reading everything. */
  readonly openMs: number
  /** Same, for making or rebuilding one. */
  readonly createMs: number
  /** How long a commit that already holds waits for the replicas that have not answered. */
  readonly slowMs: number
  /** md(7D): how often and how far apart a failed commit is tried again. */
  readonly retries: number
  readonly retryMs: number
  /** How often background work is looked for, places are compared, contents are read back. */
  readonly tickMs: number
  readonly checkMs: number
  readonly scrubMs: number
  /** A failed repair is tried again after `repairMs`, then twice as long, up to `repairMaxMs`. */
  readonly repairMs: number
  readonly repairMaxMs: number
  sleep(ms: number): Promise<void>
}

export const DEFAULT_TIMING: Timing = {
  requestMs: 10_000,
  openMs: 20_000,
  createMs: 60_000,
  slowMs: 1_000,
  retries: 100,
  retryMs: 1_000,
  tickMs: 1_000,
  checkMs: 5_000,
  scrubMs: 600_000,
  repairMs: 1_000,
  repairMaxMs: 60_000,
  sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
}
