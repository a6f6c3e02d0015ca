/** md.cf: a copy of the configuration for the administrator; nothing reads it (commands.md 6.2). */
import { kindOf } from './kinds.js'
import { poolsOf, topLevel, withChildren } from './tree.js'
import type { Tree, Unit } from './types.js'

/** Lines of metastat -p, each metadevice followed by what it stands on, then the pools. */
export const tabLines = (tree: Tree): readonly string[] =>
  [...topLevel(tree).flatMap((u): readonly Unit[] => withChildren(u, tree)), ...poolsOf(tree)].map((u) =>
    kindOf(u.kind).toTab(u),
  )

export const mdCf = (tree: Tree): string =>
  ['# metadevice configuration file', '# do not hand edit', ...tabLines(tree)].map((l) => `${l}\n`).join('')
