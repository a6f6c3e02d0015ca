/** printf's `%*.*s` family: pad to a width, cut at a precision. Negative width: left-justified, as `%-12.12s`. */
export const column = (text: string, width: number, precision = Infinity): string => {
  const cut = text.length > precision ? text.slice(0, precision) : text
  return width < 0 ? cut.padEnd(-width) : cut.padStart(width)
}
