/**
 * All commands in one file: `meta.cjs <command> words...`, so that a command starts in little more than
 * the time Node itself takes. The wrappers in bin/ name the command; nothing here touches the daemon's code.
 */
import { hostname } from 'node:os'
import { basename } from 'node:path'
import { completionScript } from '../src/cli/completion.js'
import { runCommand } from '../src/cli/run.js'
import { COMMANDS } from './commands.js'

const main = async (argv: readonly string[]): Promise<number> => {
  const [word = '', ...rest] = argv
  // For the scripts that generate what must agree with the commands.
  if (word === '--names') {
    process.stdout.write(COMMANDS.map((c) => `${c.name}\n`).join(''))
    return 0
  }
  if (word === '--completion') {
    process.stdout.write(completionScript(COMMANDS))
    return 0
  }
  const command = COMMANDS.find((c) => c.name === basename(word))
  if (command === undefined) {
    process.stderr.write(`usage:\tmeta command...\n\tcommands: ${COMMANDS.map((c) => c.name).join(' ')}\n`)
    return 1
  }
  const interrupt = new AbortController()
  process.once('SIGINT', () => interrupt.abort())
  return runCommand(command, rest, {
    env: process.env,
    cwd: process.cwd(),
    host: hostname(),
    stdout: process.stdout,
    stderr: process.stderr,
    signal: interrupt.signal,
  })
}

// A status, not process.exit: what is written to a pipe must still be flushed.
void main(process.argv.slice(2)).then((status) => {
  process.exitCode = status
})
