/** Every command, for the multi-call entry and for whatever is generated from or compared with them. */
import type { Command } from '../src/cli/command.js'
import { command as metaclear } from './metaclear.js'
import { command as metadb } from './metadb.js'
import { command as metadetach } from './metadetach.js'
import { command as metahs } from './metahs.js'
import { command as metainit } from './metainit.js'
import { command as metaoffline } from './metaoffline.js'
import { command as metaonline } from './metaonline.js'
import { command as metaparam } from './metaparam.js'
import { command as metareplace } from './metareplace.js'
import { command as metastat } from './metastat.js'
import { command as metasync } from './metasync.js'
import { command as metattach } from './metattach.js'

export const COMMANDS: readonly Command[] = [
  metaclear,
  metadb,
  metadetach,
  metahs,
  metainit,
  metaoffline,
  metaonline,
  metaparam,
  metareplace,
  metastat,
  metasync,
  metattach,
]
