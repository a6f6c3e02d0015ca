/** metahs requests: what the host knows of the slices, the pure operation, its outcome carried out. */
import type { Request } from '../ctl/protocol.js'
import { lookUpWords } from '../meta/check.js'
import { metahs } from '../meta/operations.js'
import { possibleNames } from '../sys/inventory.js'
import { carryOut, fail, inventoryFor, refusal } from './requests.js'
import type { Send } from './server.js'
import type { System } from './system.js'

/** Called inside the writer. */
export const changeHotSpares = async (
  system: System,
  send: Send,
  request: Extract<Request, { op: 'hotspare' }>,
): Promise<number> => {
  const refused = refusal(system)
  if (refused !== null) return fail(send, refused.error, refused.status)
  const inventory = await inventoryFor(system, lookUpWords(request.words, system.tree), request.cwd)
  const context = { inventory, namesOf: (word: string) => possibleNames(word, request.cwd), now: Date.now() }
  return carryOut(system, send, (tree) => metahs(request, { ...context, tree }))
}
