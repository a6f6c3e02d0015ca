/** Commits a counter as fast as it goes and prints every acknowledged value; killed by kill.test.ts. */
import { Mddb } from '../../../src/db/mddb.js'
import type { Json } from '../../../src/db/types.js'

const db = await Mddb.open({
  configDir: process.argv[2] ?? '',
  events: { notice: () => undefined, healthChanged: () => undefined },
})
let n = Number(db.records.get('count') ?? 0)
process.stdout.write(`health ${db.health}\n`)
for (;;) {
  n++
  const r = await db.commit(
    new Map<string, Json>([
      ['count', n],
      [`cell/${n % 50}`, { n, text: 'z'.repeat(n % 3000) }],
    ]),
  )
  if (!r.ok) break
  process.stdout.write(`${n}\n`)
}
