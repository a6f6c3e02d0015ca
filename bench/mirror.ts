/** bench/mirror: the costs of mirroring as tables, in bench/RESULTS.md below those of bench/run. */
import { copies, firstWrites, hotRegions, meanwhile } from './lib/mirror.js'
import { ended, runPart } from './lib/part.js'

const USAGE = `usage: bench/mirror [--only hot|first|copy|meanwhile]... [--rounds N] [--seconds S] [--megabytes N] [--dir DIR] [--no-results]
  --only WHAT     hot regions, first writes to clean ones, copies, clients meanwhile; may be repeated
  --rounds N      of each pair (default 5)
  --seconds S     of each run of a load (default 1)
  --megabytes N   of the sides that are copied (default 2048; at most 512 on tmpfs, twice as many under a load)
  --dir DIR       a directory on the disk to measure (default: the temporary directory)
  --no-results    leave bench/RESULTS.md alone (also with --only)
`

const main = (): Promise<number> =>
  runPart(
    {
      program: 'bench/mirror',
      usage: USAGE,
      section: 'Mirrors: log, resync, clients meanwhile',
      megabytes: 2048,
      choices: { only: { type: 'string', multiple: true } },
    },
    ({ only }, pace, tmpfs, disk, say) => {
      const small = { ...pace, megabytes: Math.min(pace.megabytes, 512) }
      const parts = [
        ['hot', () => hotRegions(tmpfs, pace, say)],
        ['first', () => firstWrites(tmpfs, disk, pace, say)],
        ['copy', () => copies(tmpfs, small, say)],
        ['copy', () => copies(disk, pace, say)],
        ['meanwhile', () => meanwhile(disk, { ...pace, megabytes: 2 * pace.megabytes }, say)],
      ] as const
      return parts.flatMap(([what, measure]) => (only === undefined || only.includes(what) ? [measure] : []))
    },
  )

process.exitCode = await ended(main())
