/** Rows as columns, one space between them, the last one as long as it is: what upstream's tables look like. */
export function tabTable(rows: readonly (readonly string[])[]): string {
  const cells = rows.map(row => row.map(printable))
  const columns = Math.max(...cells.map(row => row.length))
  const widths = Array.from({length: columns - 1}, (_, at) => Math.max(...cells.map(row => [...(row[at] ?? '')].length)))
  return cells.map(row => row.map((cell, at) => (at < columns - 1 ? cell + ' '.repeat(widths[at]! - [...cell].length + 1) : cell)).join('')).join('\n')
}

/** Names come from other machines: a control character in one must not reach the terminal. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, '?')
}
