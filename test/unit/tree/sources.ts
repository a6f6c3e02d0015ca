/** What is in the tree, as git sees it: committed and new files, nothing that is ignored. */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

export const TOP = join(import.meta.dirname, '../../../../..')

export const tracked = (): readonly string[] =>
  execFileSync('git', ['-c', `safe.directory=${TOP}`, 'ls-files', '--cached', '--others', '--exclude-standard', '-z'], {
    cwd: TOP,
    encoding: 'utf8',
  })
    .split('\0')
    .filter((f) => f !== '' && existsSync(join(TOP, f)))

export const read = (file: string): string => readFileSync(join(TOP, file), 'utf8')
