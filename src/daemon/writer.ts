/**
 * The one writer: every change of configuration or state runs here, one after another, so that no
 * two commands interleave at an await. A job that throws fails its caller and nobody else.
 */
export class Writer {
  #tail: Promise<unknown> = Promise.resolve()

  run<T>(job: () => Promise<T>): Promise<T> {
    const mine = this.#tail.then(job)
    this.#tail = mine.catch(() => undefined)
    return mine
  }

  /** Resolves when everything queued so far has ended. */
  async idle(): Promise<void> {
    await this.#tail
  }
}
