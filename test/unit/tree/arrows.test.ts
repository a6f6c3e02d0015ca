/** The folders use each other only as the architecture says, and the check itself can fail. */
import t from 'tap'
import { importsOf, includesOf, wrongArrows } from './arrows.js'
import { read, tracked } from './sources.js'

const sources = (): readonly string[] => tracked().filter((f) => /^(?:src|cmd|native)\/.*\.(?:ts|cc|h)$/.test(f))

t.test('every import and include follows an arrow', async (t) => {
  const files = sources()
  t.ok(files.length > 20, 'the sources were found')
  t.strictSame(
    files.flatMap((f) => wrongArrows(f, read(f))),
    [],
  )
})

t.test('some arrows of each sort are really read from the tree', async (t) => {
  const files = sources()
  const count = (keep: RegExp, of: typeof importsOf): number =>
    files.filter((f) => keep.test(f)).reduce((n, f) => n + of(f, read(f)).length, 0)
  t.ok(count(/\.ts$/, importsOf) > 30, 'imports')
  t.ok(count(/\.(?:cc|h)$/, includesOf) > 0, 'includes')
})

t.test('a wrong arrow is found, whatever its spelling', async (t) => {
  const wrong: readonly (readonly [string, string])[] = [
    ['src/meta/x.ts', "import { open } from '../db/mddb.js'"],
    ['src/meta/x.ts', "import {\n  a,\n  type B,\n} from '../daemon/main.js'"],
    ['src/meta/x.ts', "export * from '../sys/lock.js'"],
    ['src/db/x.ts', "import { compile } from '../meta/compile.js'"],
    ['src/db/x.ts', "import { type A, compile } from '../meta/compile.js'"],
    ['src/cli/x.ts', "const m = await import('../daemon/main.js')"],
    ['src/base/x.ts', "import type { E } from '../msg/errors.js'"],
    ['src/cli/x.ts', "import '../db/mddb.js'"],
    ['cmd/metastat.ts', "import { main } from '../src/daemon/main.js'"],
    ['src/new/x.ts', ''],
    ['src/daemon/x.ts', "createRequire(import.meta.url)('../../native/metadisk.node')"],
    ['native/md/x.cc', '#include "nbd/connection.h"'],
    ['native/core/x.h', '#  include "md/node.h"'],
    ['native/md/x.cc', '#include <napi.h>'],
  ]
  for (const [file, text] of wrong) t.equal(wrongArrows(file, text).length, 1, `${file}: ${text}`)
})

t.test('a right arrow is let through', async (t) => {
  const right: readonly (readonly [string, string])[] = [
    ['src/meta/x.ts', "import { ok } from '../base/result.js'\nimport type { Plan } from '../plan/types.js'"],
    ['src/db/x.ts', "import type { Tree } from '../meta/types.js'"],
    ['src/db/x.ts', "import { type Tree, type Unit } from '../meta/types.js'"],
    ['src/msg/x.ts', "const text = 'import { a } from nowhere'"],
    ['cmd/metad.ts', "import { main } from '../src/daemon/main.js'"],
    ['native/addon/x.cc', '#include <napi.h>\n#include "nbd/connection.h"'],
    ['native/md/x.cc', '#include "node.h"\n#include "io/backend.h"'],
    ['native/md/x_test.cc', '#include "nbd/connection.h"'],
  ]
  for (const [file, text] of right) t.strictSame(wrongArrows(file, text), [], `${file}: ${text}`)
})
