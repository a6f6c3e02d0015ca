/**
 * commander, made to read words as getopt does for SVM's commands (commands.md 0.2): options end at the
 * first operand, short ones cluster (`-nf`, `-c2`), `--` ends them, and the last one given counts.
 */
import { Command as Commander, CommanderError, Option } from 'commander'
import { type Result, err, ok } from '../base/result.js'
import type { ArgumentError } from '../msg/texts.js'
import { type Command, type OptionSpec, allOptions, dashed } from './command.js'

export interface Words {
  readonly operands: readonly string[]
  readonly flags: ReadonlySet<string>
  readonly values: ReadonlyMap<string, string>
}
export interface OptionProblem {
  readonly code: ArgumentError
  readonly option: string
}

const bare = (word: string): string => word.replace(/^-+/, '')

/** An optional argument is never the next word: it could be an operand. */
const withDefaults = (options: readonly OptionSpec[], argv: readonly string[]): string[] =>
  argv.map((word) => {
    const option = options.find((o) => o.optional !== undefined && word === dashed(o))
    return option?.optional === undefined ? word : `${word}=${option.optional}`
  })

const problemOf = (e: CommanderError): OptionProblem => {
  const option = bare(/'(-[^' ]*)/.exec(e.message)?.[1] ?? '?')
  return { code: e.code === 'commander.optionMissingArgument' ? 'missingArgument' : 'illegalOption', option }
}

export const parseWords = (command: Command, argv: readonly string[]): Result<Words, OptionProblem> => {
  const options = allOptions(command)
  const flags = new Set<string>()
  const values = new Map<string, string>()
  const parser = new Commander(command.name)
  parser.exitOverride().helpOption(false).passThroughOptions().allowExcessArguments().argument('[words...]')
  parser.showSuggestionAfterError(false).configureOutput({ writeErr: () => undefined, writeOut: () => undefined })
  for (const o of options) {
    const option = new Option(o.argument === undefined ? dashed(o) : `${dashed(o)} <${o.argument}>`)
    parser.addOption(option)
    parser.on(`option:${option.name()}`, (value: string | null | undefined) => {
      if (o.argument === undefined) flags.add(o.name)
      else values.set(o.name, value ?? '')
    })
  }
  const words = withDefaults(options, argv)
  try {
    parser.parse(words, { from: 'user' })
  } catch (e) {
    if (e instanceof CommanderError) return err(problemOf(e))
    throw e
  }
  // commander takes -1 for a number and so for an operand; getopt does not.
  const first = parser.args[0]
  if (first !== undefined && first.length > 1 && first.startsWith('-') && !words.includes('--')) {
    return err({ code: 'illegalOption', option: first.slice(1, 2) })
  }
  return ok({ operands: parser.args, flags, values })
}
