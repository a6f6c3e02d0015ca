/** `metadb -a` and `metadb -d`: SVM's rules first, then a new list of replicas that holds in the old and the new one. */
import { err, ok } from '../base/result.js'
import { type MetaError, type MetaResult, metaError } from '../msg/errors.js'
import { strerror } from '../msg/strerror.js'
import { type Core, identified } from './core.js'
import { type Image, type Listed, emptyImage, sha256 } from './format.js'
import type { HelperFault } from './helper-process.js'
import { type AddOptions, isAt, planReplicas, sameStorageTwice } from './places.js'
import { deleteMakesStale } from './quorum.js'
import type { Replica } from './replica.js'
import type { ReplicaPlace } from './types.js'

const createError = (path: string, fault: HelperFault): MetaError => {
  if (fault.problem.startsWith('data not returned')) return metaError('readBackFailed', path)
  // `signal` and `timeout` are no errno: then the helper's own words say more.
  return metaError(
    'sys',
    path,
    fault.code !== null && /^E[A-Z0-9]+$/.test(fault.code) ? strerror(fault.code) : fault.problem,
  )
}

export const addReplicas = async (
  core: Core,
  places: readonly ReplicaPlace[],
  options: AddOptions & { readonly force: boolean },
): Promise<MetaResult<void>> => {
  if (core.closed) return err(metaError('commitFailed'))
  const first = core.health === 'none'
  if (first && !options.force) return err(metaError('noDatabases'))
  if (!first && core.image === null) return err(metaError('stale'))
  const plan = await planReplicas(places, options, core.list)
  if (!plan.ok) return plan
  const made = plan.value.map((l) => core.members.ensure(l))
  // Nothing to repair yet.
  for (const r of made) r.busy = true
  const next = joint(core, [...core.list, ...plan.value], plan.value)
  if (first) core.term = 1
  const results = await Promise.all(
    made.map(async (r) => ({ r, result: await r.create(next, core.term, 'fresh', null) })),
  )
  const failed = results.find((x) => !x.result.ok)
  if (failed !== undefined && !failed.result.ok) {
    await unmake(core, made)
    return err(createError(failed.r.listed.path, failed.result.error))
  }
  // Already refused by the plan, but two names may have led to one empty file.
  const twice = await sameStorageTwice(made.map((r) => r.listed.path))
  if (twice !== undefined) {
    await unmake(core, made)
    return err(metaError('replicaExists', twice))
  }
  for (const r of made) {
    r.activate(next)
    r.busy = false
  }
  if (first) return addedFirst(core, next, made)
  if (!(await replaceList(core, next))) {
    // The next start may find that the list did change; then these are needed, so they are not wiped.
    for (const r of made) await core.members.drop(r.id)
    return err(metaError('commitFailed'))
  }
  await core.writeLocations()
  return ok(undefined)
}

/** The image that carries a new list: together with the old one, except where there is none to ask. */
const joint = (core: Core, list: readonly Listed[], added: readonly Listed[]): Image => {
  if (core.health === 'none') return emptyImage(sha256(...added.map((l) => l.id)).toString('hex', 0, 16), list)
  if (core.health === 'good') return core.next({ list, previous: core.list })
  // Stale: the administrator decides who counts; a new term puts it above everything seen so far.
  core.term = core.highest.term + 1
  core.highest = { term: core.term, epoch: core.highest.epoch }
  return core.next({ list, previous: null })
}

const addedFirst = async (core: Core, next: Image, made: readonly Replica[]): Promise<MetaResult<void>> => {
  core.highest = next.version
  core.located = next.list
  const e = await core.writeLocations()
  if (e !== null) {
    core.located = []
    await unmake(core, made)
    return err(e)
  }
  core.adopt(next)
  core.setHealth('good')
  const held = await core.store(core.next({ list: identified(next.list, core.members) }), [])
  return held ? ok(undefined) : err(metaError('commitFailed'))
}

const unmake = async (core: Core, made: readonly Replica[]): Promise<void> => {
  for (const r of made) {
    await r.wipe()
    await core.members.drop(r.id)
  }
}

/** The joint image in both lists, then the new list alone. */
const replaceList = async (core: Core, joint: Image): Promise<boolean> => {
  if (core.health === 'stale') {
    await core.members.bring(joint, core.term)
    core.highest = joint.version
    if (joint.list.length > 0 && core.members.holders(joint).size === 0) return false
    core.adopt(joint)
    return true
  }
  if (!(await core.store(joint, []))) return false
  if (joint.list.length === 0) return true
  return core.store(core.next({ list: identified(joint.list, core.members), previous: null }), [])
}

export const deleteReplicas = async (
  core: Core,
  places: readonly ReplicaPlace[],
  force: boolean,
): Promise<MetaResult<void>> => {
  if (core.closed) return err(metaError('commitFailed'))
  if (core.health === 'none') return err(metaError('noDatabases'))
  for (const p of places) if (!core.list.some((l) => isAt(l, p.path))) return err(metaError('noReplica', p.path))
  const gone = core.list.filter((l) => places.some((p) => isAt(l, p.path)))
  const rest = core.list.filter((l) => !gone.includes(l))
  if (!force) {
    if (rest.length === 0) return err(metaError('lastReplica'))
    const all = core.list.map((l) => ({
      good: core.members.get(l.id)?.flags.has('u') ?? false,
      deleted: gone.includes(l),
    }))
    if (deleteMakesStale(all)) return err(metaError('deleteMakesStale'))
  }
  if (core.image === null) core.located = rest
  else if (!(await replaceList(core, joint(core, rest, [])))) return err(metaError('commitFailed'))
  await core.writeLocations()
  for (const l of gone) {
    await core.members.get(l.id)?.wipe()
    await core.members.drop(l.id)
  }
  if (rest.length === 0) {
    core.adopt(null)
    core.located = []
    await core.writeLocations()
    core.setHealth('none')
  }
  return ok(undefined)
}
