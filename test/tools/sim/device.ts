/** What the simulated engine and its clients know of a device, whatever is behind it. */
import type { Plan } from '../../../src/plan/types.js'

/** `gone`: the device was removed, and the connection with it. */
export type Answer =
  { readonly ok: true; readonly values: readonly number[] } | { readonly ok: false; readonly gone?: true }

export interface Op {
  readonly kind: 'read' | 'write' | 'flush'
  readonly first: number
  readonly count: number
  /** What is written. */
  readonly value: number
  readonly done: (answer: Answer) => void
}

export interface SimDevice {
  readonly device: number
  readonly cells: number
  submit(op: Op): void
  install(plan: Plan): Promise<void>
  remove(): Promise<void>
  settle(hold: number, verdict: 'resume' | 'fail'): void
  marked(ticket: number, ok: boolean): void
  cancel(): void
}
