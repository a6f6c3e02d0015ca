/**
 * Seeds of the random tests. SEED=n in the environment replays one run. Without it a seed comes from the commit under
 * test: who tests a commit again sees the same runs, and every new commit is tried with new ones.
 */
import { execFileSync } from 'node:child_process'

const MAX_SEED = 0x7fffffff
/** Of sources that are no git checkout. */
const NO_COMMIT = 20261

/** null: the default run. */
export const givenSeed: number | null = process.env['SEED'] === undefined ? null : Number(process.env['SEED'])

const commitSeed = (): number => {
  try {
    const head = execFileSync('git', ['rev-parse', 'HEAD'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
    return Number.parseInt(head.slice(0, 8), 16) % MAX_SEED
  } catch {
    return NO_COMMIT
  }
}

/** 0 to 2147483646. */
export const seed: number = givenSeed ?? commitSeed()
