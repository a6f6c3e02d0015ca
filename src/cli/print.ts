/**
 * The only place that writes to the terminal. A reader that goes away (`metastat | head`) is no error:
 * output stops quietly. Progress is one line on stderr, rewritten, and only for a person at a terminal;
 * it is wiped before anything else is printed.
 */
import { printable } from '../msg/format.js'

export interface Sink {
  write(text: string): unknown
  readonly isTTY?: boolean
  on?(event: 'error', listener: (e: NodeJS.ErrnoException) => void): unknown
}

const WIPE = '\r\u001b[K'
const CLEAR = '\u001b[H\u001b[2J'

export class Printer {
  readonly #stdout: Sink
  readonly #stderr: Sink
  readonly #progress: boolean
  #drawn = false
  #closed = false

  constructor(stdout: Sink, stderr: Sink, progress: boolean) {
    this.#stdout = stdout
    this.#stderr = stderr
    this.#progress = progress && stderr.isTTY === true
    const onError = (e: NodeJS.ErrnoException): void => {
      if (e.code !== 'EPIPE') throw e
      this.#closed = true
    }
    stdout.on?.('error', onError)
    stderr.on?.('error', onError)
  }

  /** True when nobody reads any more. */
  get closed(): boolean {
    return this.#closed
  }

  out(text: string): void {
    this.wipe()
    if (!this.#closed && text !== '') this.#stdout.write(text)
  }

  error(text: string): void {
    this.wipe()
    if (!this.#closed) this.#stderr.write(text)
  }

  /** A fresh screen, where there is one. */
  clear(): void {
    if (this.#stdout.isTTY === true) this.out(CLEAR)
  }

  progress(line: string): void {
    if (!this.#progress || this.#closed) return
    this.#stderr.write(WIPE + printable(line))
    this.#drawn = true
  }

  wipe(): void {
    if (!this.#drawn) return
    this.#drawn = false
    this.#stderr.write(WIPE)
  }
}
