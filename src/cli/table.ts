import chalk from 'chalk'

export interface Column<Row> {
  readonly header: string
  /** What the cell shows; undefined shows as `-`. */
  readonly value: (row: Row) => string | number | bigint | boolean | undefined
  /** Numbers read better to the right. */
  readonly align?: 'left' | 'right'
}

/**
 * Rows as aligned columns with a header, for `this.log`. The header is there without rows, too: a script then still
 * sees that the command worked. It is bold on a terminal, and nothing else is ever coloured.
 */
export function formatTable<Row>(columns: readonly Column<Row>[], rows: readonly Row[], terminal = process.stdout.isTTY): string {
  const header = columns.map(column => column.header.toUpperCase())
  const body = rows.map(row => columns.map(column => cellText(column.value(row))))
  const widths = columns.map((_, at) => Math.max(...[header, ...body].map(cells => width(cells[at] ?? ''))))
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, at) => pad(cell, widths[at] ?? 0, columns[at]?.align))
      .join('   ')
      .trimEnd()
  const head = terminal && !process.env.NO_COLOR ? chalk.bold(line(header)) : line(header)
  return [head, ...body.map(line)].join('\n')
}

/** Names and labels come from other machines: a control character in one must not reach the terminal. */
function cellText(value: ReturnType<Column<never>['value']>): string {
  if (value === undefined || value === '') return '-'
  return String(value).replace(/\p{Cc}/gu, '?')
}

function pad(cell: string, to: number, align: 'left' | 'right' = 'left'): string {
  const space = ' '.repeat(Math.max(0, to - width(cell)))
  return align === 'left' ? cell + space : space + cell
}

/** Characters, not UTF-16 units. */
function width(text: string): number {
  return [...text].length
}
