/**
 * From replicas that were found to a database that may change: this metad's term goes to more than half of them, then
 * what was chosen is committed again under it. Without both nothing is written and the database is stale.
 */
import { listsOf, nextImage, type Listed } from './format.js'
import { type Core, identified } from './core.js'
import { readLocations } from './locations.js'
import { sameVersion, startHolds } from './quorum.js'
import { type Found, findDatabase } from './start.js'

const flagFound = (core: Core, found: Found, located: readonly Listed[]): void => {
  const inFile = new Set(located.map((l) => l.id))
  const listed = new Set(found.image.list.map((l) => l.id))
  for (const r of core.members.all) {
    if (inFile.has(r.id)) r.flags.add('c')
    if (listed.has(r.id)) r.flags.add('p')
    const loaded = found.loaded.get(r.id)
    if (loaded === undefined || !listed.has(r.id)) continue
    r.flags.add('o')
    // As SVM shows a stale set: what is current is marked so, though nothing is committed to it.
    if (sameVersion(loaded.image.version, found.image.version)) r.flags.add('a').add('u')
    if (loaded.copied) core.events.notice('warning', `md: state database replica ${r.listed.path}: storage is a copy`)
  }
  found.source.flags.add('m')
}

/** Term first, on more than half; then the chosen contents as this term's first commit. */
const takeOver = async (core: Core, found: Found): Promise<boolean> => {
  const { image } = found
  const term = found.highest.term + 1
  core.term = term
  const readable = core.members.of(image).filter((r) => found.loaded.has(r.id))
  const writable = readable.filter((r) => {
    if (found.loaded.get(r.id)?.readOnly !== true) return true
    r.fail({ letter: 'W', problem: 'read-only', damaged: false, identity: null, code: 'EROFS' })
    return false
  })
  if (!startHolds(listsOf(image), new Set(writable.map((r) => r.id)))) return false
  const promised = await core.members.promise(writable, term)
  if (!startHolds(listsOf(image), promised)) return false
  const version = { term, epoch: found.highest.epoch + 1 }
  const next = nextImage(image, { version, list: identified(image.list, core.members) })
  core.highest = version
  await Promise.all(
    writable
      .filter((r) => promised.has(r.id))
      .map(async (r) => {
        const same = sameVersion(found.loaded.get(r.id)?.image.version ?? { term: 0, epoch: 0 }, image.version)
        if (same && (await r.writeDelta(next, [])).ok) r.activate(next)
        else if (!same) await core.members.rewrite(r, next, term)
      }),
  )
  if (!core.members.holds(next)) return false
  core.adopt(next)
  if (next.previous === null) return true
  return core.store(core.next({ previous: null }), [], 0)
}

/** Replicas that were deleted but not wiped, and a mddb.cf that is behind. */
const tidy = async (core: Core, found: Found): Promise<void> => {
  const image = core.image
  if (image === null) return
  const listed = new Set(image.list.map((l) => l.id))
  for (const r of core.members.all) {
    if (listed.has(r.id)) continue
    if (found.loaded.has(r.id)) await r.wipe()
    await core.members.drop(r.id)
  }
  for (const r of core.members.all) {
    if (!r.active)
      core.events.notice('warning', `md: state database replica ${r.listed.path}: ${r.problem ?? 'not usable'}`)
  }
  await core.writeLocations()
}

export const startDatabase = async (core: Core): Promise<void> => {
  const locations = await readLocations(core.configDir)
  for (const n of locations.notices) core.events.notice('warning', n)
  if (!locations.any) return
  core.located = locations.list
  const found = await findDatabase(core.members, locations.list)
  if (found !== undefined) {
    core.highest = found.highest
    core.adopt(found.image)
    flagFound(core, found, locations.list)
  }
  if (found?.health === 'good' && (await takeOver(core, found))) {
    core.setHealth('good')
    await tidy(core, found)
    return
  }
  core.setHealth('stale')
  core.events.notice('warning', 'md: state database is stale')
}
