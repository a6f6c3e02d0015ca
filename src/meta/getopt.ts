/** Classic getopt over words: options end at the first operand or after `--`; letters may share a word. */
import { err, ok, type Result } from '../base/result.js'

export interface Option {
  readonly letter: string
  readonly value: string | null
  /** Index of the word that held the letter. */
  readonly at: number
}
export interface Options {
  readonly options: readonly Option[]
  /** Index of the first operand. */
  readonly next: number
}

/** @param spec letters; a colon after one means it takes a value. The error is the index of the bad word. */
export const getopt = (words: readonly string[], from: number, spec: string): Result<Options, number> => {
  const options: Option[] = []
  let next = from
  for (;;) {
    const word = words[next]
    if (word === undefined || word.length < 2 || !word.startsWith('-')) return ok({ options, next })
    const at = next++
    if (word === '--') return ok({ options, next })
    for (let i = 1; i < word.length; i++) {
      const letter = word.charAt(i)
      const where = letter === ':' ? -1 : spec.indexOf(letter)
      if (where < 0) return err(at)
      if (spec.charAt(where + 1) !== ':') {
        options.push({ letter, value: null, at })
        continue
      }
      const value = i + 1 < word.length ? word.slice(i + 1) : words[next++]
      if (value === undefined) return err(at)
      options.push({ letter, value, at })
      break
    }
  }
}
