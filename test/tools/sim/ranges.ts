/** Who owns which cells: of two overlapping claims the one made first is served first. */
export interface Claim {
  readonly first: number
  readonly count: number
  /** Called when the cells are owned; never inside claim() of another. */
  readonly start: () => void
}

const overlap = (a: Claim, b: Claim): boolean => a.first < b.first + b.count && b.first < a.first + a.count

export class Ranges {
  readonly #active = new Set<Claim>()
  #waiting: Claim[] = []

  claim(c: Claim): void {
    const free = ![...this.#active, ...this.#waiting].some((other) => overlap(other, c))
    if (!free) {
      this.#waiting.push(c)
      return
    }
    this.#active.add(c)
    c.start()
  }

  release(c: Claim): void {
    this.#active.delete(c)
    const before: Claim[] = []
    const go: Claim[] = []
    for (const w of this.#waiting) {
      const blocked = [...this.#active, ...before].some((other) => overlap(other, w))
      if (blocked) before.push(w)
      else {
        this.#active.add(w)
        go.push(w)
      }
    }
    this.#waiting = before
    for (const w of go) w.start()
  }
}
