/** A RAID5 device on disks that fail on demand: d5 of a, b and c, initialised; disks s and t are free. */
import type { Test } from '../../tools/daemon.js'
import { type FaultRig, faultRig } from '../../tools/faultrig.js'

export { answered } from '../../tools/faultrig.js'
export type Rig = FaultRig

export const MIB = 1 << 20
/** Of each disk, in MiB. */
export const SIZE = 24
export const CONF = 'io = direct\ncomponent_timeout = 2\ncomponent_read_errors = 3\nresync_checkpoint_seconds = 1\n'

export const isOkay = (stat: string): boolean =>
  /State: Okay/.test(stat) && !/Resync|Maintenance|Last Erred|Initial/.test(stat)

/** @param options of metainit, behind the three columns */
export const rig = async (t: Test, conf = CONF, options: readonly string[] = ['-i', '16k']): Promise<Rig> => {
  const made = await faultRig(t, { unit: 'd5', disks: { a: SIZE, b: SIZE, c: SIZE, s: SIZE, t: SIZE }, conf })
  made.metad.must('metainit', ['d5', '-r', ...['a', 'b', 'c'].map((d) => made.disks.path(d)), ...options])
  await made.until('initialised', isOkay)
  return made
}

/** Another sequence for every seed and every block. */
export const pattern = (seed: number, bytes: number): Buffer => {
  const data = Buffer.alloc(bytes)
  for (let i = 0, x = seed * 2654435761; i < bytes; i += 4)
    data.writeUInt32LE((x = (x * 1664525 + 1013904223) >>> 0), i)
  return data
}
