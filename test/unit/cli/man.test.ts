/** Manual pages say what the commands do: every option is there, every page renders without a warning. */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { COMMANDS } from '../../../cmd/commands.js'
import { allOptions, dashed } from '../../../src/cli/command.js'

const man = join(process.cwd(), 'man')
/** Without the escapes that keep groff from turning a minus sign into a hyphen. */
const source = (page: string): string => readFileSync(join(man, page), 'utf8').replaceAll('\\-', '-')

for (const command of COMMANDS) {
  t.test(`${command.name}(8) explains every option`, (t) => {
    const text = source(`${command.name}.8`)
    for (const option of allOptions(command)) {
      const flag = dashed(option)
      const tag = new RegExp(`^\\.TP\\n(\\.B[IR]? .*)?"?${flag.replace('?', '\\?')}["\\s=\\[,]`, 'm')
      t.match(text, tag, `${flag} has an entry`)
    }
    const given = [...text.matchAll(/^\.TP\n\.B[IR]? "?(--?[\w?]+)/gm)].map((m) => m[1] ?? '')
    const known = new Set(allOptions(command).map(dashed))
    t.strictSame(
      given.filter((flag) => !known.has(flag)),
      [],
      'and none that does not exist',
    )
    for (const section of ['NAME', 'SYNOPSIS', 'DESCRIPTION', 'OPTIONS', 'EXAMPLES', 'EXIT STATUS', 'SEE ALSO']) {
      t.match(text, new RegExp(`^\\.SH "?${section}"?$`, 'm'), section)
    }
    t.end()
  })
}

t.test('references lead somewhere', (t) => {
  const pages = readdirSync(man)
  for (const page of pages.filter((p) => /\.[1-8]$/.test(p))) {
    const at = source(page).indexOf('.SH "SEE ALSO"')
    for (const [, name, section] of source(page)
      .slice(at)
      .matchAll(/^\.BR ([\w.-]+) \((\d)\)/gm)) {
      const ours = /^(meta|md)/.test(name ?? '') || name === 'nbd-support'
      if (ours)
        t.ok(
          pages.includes(`${name ?? ''}.${section ?? ''}`) || name === 'nbd-support',
          `${page}: ${name ?? ''}(${section ?? ''})`,
        )
    }
  }
  t.end()
})

const groff = spawnSync('groff', ['--version']).status === 0
t.test('every page renders without a warning', { skip: groff ? false : 'no groff' }, (t) => {
  const pages = readdirSync(man).filter((p) => /\.[1-8]$/.test(p))
  t.ok(pages.length >= COMMANDS.length)
  for (const page of pages) {
    // Every warning but "style" ones about sentence ends; -z: no output.
    const ran = spawnSync('groff', ['-man', '-Tutf8', '-ww', '-z', join(man, page)], { encoding: 'utf8' })
    t.equal(ran.stderr, '', page)
  }
  t.ok(existsSync(join(man, 'md.7')))
  t.end()
})
