/** md.cf: a copy of the configuration for the administrator; nothing reads it (commands.md 6.2). */
import { kindOf } from './kinds.js'
import { topLevel, withChildren } from './tree.js'
import type { Tree } from './types.js'

/** Lines of metastat -p, each metadevice followed by what it stands on. */
export const tabLines = (tree: Tree): readonly string[] =>
  topLevel(tree)
    .flatMap((u) => withChildren(u, tree))
    .map((u) => kindOf(u.kind).toTab(u))

export const mdCf = (tree: Tree): string =>
  ['# metadevice configuration file', '# do not hand edit', ...tabLines(tree)].map((l) => `${l}\n`).join('')
