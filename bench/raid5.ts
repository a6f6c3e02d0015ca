/** bench/raid5: RAID5 of four columns beside a stripe of four and nbdkit on one file, in bench/RESULTS.md as a section. */
import { ended, runPart } from './lib/part.js'
import { LOADS, raid5Loads, rawColumns } from './lib/raid5.js'
import { jobsAlone, jobsMeanwhile } from './lib/raid5jobs.js'

const USAGE = `usage: bench/raid5 [--place tmpfs|disk]... [--load WORD]... [--jobs] [--rounds N] [--seconds S] [--megabytes N] [--dir DIR] [--no-results]
  --place WHERE   the medium; both without
  --load WORD     only loads whose name has the word, such as 4K; may be repeated
  --jobs          only what a device does in the background
  --rounds N      of each load (default 5)
  --seconds S     of each run of a load (default 1)
  --megabytes N   of a column (default 192)
  --dir DIR       a directory on the disk to measure (default: the temporary directory)
  --no-results    leave bench/RESULTS.md alone (also with --place, --load and --jobs)
`

const main = (): Promise<number> =>
  runPart(
    {
      program: 'bench/raid5',
      usage: USAGE,
      section: 'RAID5',
      megabytes: 192,
      choices: {
        place: { type: 'string', multiple: true },
        load: { type: 'string', multiple: true },
        jobs: { type: 'boolean' },
      },
    },
    ({ place: places, load: words, jobs }, pace, tmpfs, disk, say) => {
      const loads = LOADS.filter((l) => words === undefined || words.some((word) => l.name.includes(word)))
      return [tmpfs, disk].flatMap((place) => {
        if (places !== undefined && !places.includes(place.name)) return []
        const background = [() => jobsAlone(place, pace, say), () => jobsMeanwhile(place, pace, say)]
        if (jobs === true) return background
        const loaded = loads.length > 0 ? [() => raid5Loads(place, pace, loads, say)] : []
        return words === undefined ? [...loaded, () => rawColumns(place, pace, say), ...background] : loaded
      })
    },
  )

process.exitCode = await ended(main())
