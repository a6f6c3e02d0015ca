/** A mirror on disks that fail on demand: d0 of d1 (disk a) and d2 (disk b), in step; disk s is free. */
import { readFileSync } from 'node:fs'
import type { Test } from '../../tools/daemon.js'
import { type FaultRig, faultRig } from '../../tools/faultrig.js'

export { answered } from '../../tools/faultrig.js'
export type Rig = FaultRig

export const MIB = 1 << 20
/** Of each disk, in MiB: as many dirty regions. */
export const SIZE = 32
const CONF =
  'io = direct\ncomponent_timeout = 2\ncomponent_read_errors = 3\nregion_clean_seconds = 1\nresync_checkpoint_seconds = 1\n'

export const rig = async (t: Test, conf = CONF): Promise<Rig> => {
  const made = await faultRig(t, { unit: 'd0', disks: { a: SIZE, b: SIZE, s: SIZE }, conf })
  const { metad, disks } = made
  metad.must('metainit', ['d1', '1', '1', disks.path('a')])
  metad.must('metainit', ['d2', '1', '1', disks.path('b')])
  metad.must('metainit', ['d0', '-m', 'd1'])
  metad.must('metattach', ['d0', 'd2'])
  await made.until('in step', inStep)
  return made
}

export const inStep = (stat: string): boolean =>
  !/State: (?!Okay)/.test(stat) && !/Resync|Maintenance|Last Erred/.test(stat)
export const pattern = (seed: number, bytes: number): Buffer => Buffer.alloc(bytes, Buffer.from([seed, seed ^ 0x55, 7]))
/** What a disk really holds. */
export const at = (image: string, offset: number, bytes: number): Buffer =>
  readFileSync(image).subarray(offset, offset + bytes)
