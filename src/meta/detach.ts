/** metadetach: a submirror becomes a free stripe (commands.md 3.6, checks in that order). */
import { err, ok } from '../base/result.js'
import { type MetaResult, metaError } from '../msg/errors.js'
import type { Live } from './kind.js'
import { KINDS } from './kinds.js'
import { parseUnitName } from './names.js'
import { outcome, type Outcome } from './operations.js'
import type { Tree } from './types.js'

export const detach = (words: readonly string[], force: boolean, tree: Tree, live: Live): MetaResult<Outcome> => {
  const [mirrorWord, submirrorWord, extra] = words
  if (mirrorWord === undefined) return err(metaError('syntax'))
  const name = parseUnitName(mirrorWord)
  if (!name.ok) return name
  const m = tree.get(name.value)
  if (m === undefined) return err(metaError('unitNotSetUp', name.value))
  if (m.kind !== 'mirror') return err(metaError('invalidType', m.name, KINDS[m.kind].driver))
  if (submirrorWord === undefined) return err(metaError('syntax', m.name))
  if (extra !== undefined) return err(metaError('syntax', `${m.name}: "${extra}"`))
  const submirror = parseUnitName(submirrorWord)
  if (!submirror.ok) return submirror
  if (!tree.has(submirror.value)) return err(metaError('unitNotSetUp', submirror.value))

  if (live.isUnavailable(m.name) || live.isUnavailable(submirror.value)) return err(metaError('unavailable', m.name))
  if (live.isResyncing(m.name)) return err(metaError('resyncInProgress', m.name))
  const going = m.submirrors.find((s) => s.unit === submirror.value)
  if (going === undefined) return err(metaError('submirrorNotFound', m.name))
  const staying = m.submirrors.filter((s) => s !== going)
  if (staying.length === 0) return err(metaError('lastSubmirror', m.name))
  // Only what is in step may answer reads, so force cannot leave a mirror without such a side.
  if (!staying.some((s) => s.state === 'okay')) return err(metaError('noReadableSubmirrors', m.name))
  if (!force && ((going.state === 'resync' && m.cancelled) || live.isErred(going.unit)))
    return err(metaError('submirrorErred', m.name))
  return ok(
    outcome(tree, {
      put: [{ ...m, submirrors: staying }],
      changes: [{ change: 'submirrorDetached', name: m.name, submirror: going.unit }],
    }),
  )
}
