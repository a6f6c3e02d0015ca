/**
 * Reads untrusted JSON without throwing: every method returns a usable value of its type and notes
 * the first problem, so that a decoder is a plain list of fields and the caller asks once at the end.
 */
import { type Blocks, blocks } from '../base/units.js'
import { isUnitName } from './names.js'
import type { Geometry, UnitName } from './types.js'

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

interface Notes {
  problem: string | null
}
type Fields = { readonly [key: string]: Json | undefined }

const isFields = (j: Json | undefined): j is { readonly [key: string]: Json } =>
  typeof j === 'object' && j !== null && !Array.isArray(j)

export class Reader {
  readonly #fields: Fields
  readonly #path: string
  readonly #notes: Notes

  private constructor(value: Json | undefined, path: string, notes: Notes) {
    this.#path = path
    this.#notes = notes
    this.#fields = isFields(value) ? value : {}
    if (!isFields(value)) this.fail('not an object')
  }
  static of(value: Json): Reader {
    return new Reader(value, '', { problem: null })
  }

  get problem(): string | null {
    return this.#notes.problem
  }
  fail(what: string, key = ''): void {
    this.#notes.problem ??= `${[this.#path, key].filter((s) => s !== '').join('.') || 'record'}: ${what}`
  }
  #get(key: string): Json | undefined {
    return Object.hasOwn(this.#fields, key) ? this.#fields[key] : undefined
  }
  has(key: string): boolean {
    return this.#get(key) !== undefined
  }

  integer(key: string, min: number, max: number): number {
    const v = this.#get(key)
    if (typeof v === 'number' && Number.isSafeInteger(v) && v >= min && v <= max) return v
    this.fail(`not a number from ${min} to ${max}`, key)
    return min
  }
  blocks(key: string, min = 0): Blocks {
    return blocks(this.integer(key, min, Number.MAX_SAFE_INTEGER))
  }
  time(key: string): number {
    return this.integer(key, 0, Number.MAX_SAFE_INTEGER)
  }
  text(key: string): string {
    const v = this.#get(key)
    if (typeof v === 'string' && v.length <= 8192) return v
    this.fail('not a text', key)
    return ''
  }
  boolean(key: string): boolean {
    const v = this.#get(key)
    if (typeof v !== 'boolean') this.fail('not true or false', key)
    return v === true
  }
  word<W extends string>(key: string, words: readonly [W, ...W[]]): W {
    const v = this.#get(key)
    const found = words.find((w) => w === v)
    if (found === undefined) this.fail(`not one of ${words.join(', ')}`, key)
    return found ?? words[0]
  }
  name(key: string): UnitName {
    const v = this.text(key)
    if (!isUnitName(v)) this.fail('not a name', key)
    return v as UnitName
  }
  nameOrNull(key: string): UnitName | null {
    return this.#get(key) === null ? null : this.name(key)
  }
  integerOrNull(key: string, least: number, most: number): number | null {
    return this.#get(key) === null ? null : this.integer(key, least, most)
  }
  /** null when the field is null. */
  objectOrNull(key: string): Reader | null {
    return this.#get(key) === null ? null : this.object(key)
  }
  object(key: string): Reader {
    return new Reader(this.#get(key), this.#path === '' ? key : `${this.#path}.${key}`, this.#notes)
  }
  geometry(key: string): Geometry {
    const g = this.object(key)
    return { heads: g.integer('heads', 1, 1 << 20), sectors: g.integer('sectors', 1, 1 << 20) }
  }
  list<T>(key: string, min: number, max: number, read: (r: Reader) => T): readonly T[] {
    const v = this.#get(key)
    if (!Array.isArray(v) || v.length < min || v.length > max) {
      this.fail(`not a list of ${min} to ${max}`, key)
      return []
    }
    const path = this.#path === '' ? key : `${this.#path}.${key}`
    return v.map((item: Json, i) => read(new Reader(item, `${path}[${i}]`, this.#notes)))
  }
}
