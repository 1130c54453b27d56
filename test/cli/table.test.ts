import t from 'tap'
import {formatTable, type Column} from '../../src/cli/table.js'

interface Row {
  readonly name: string
  readonly size?: number
}

const columns: Column<Row>[] = [
  {header: 'name', value: row => row.name},
  {header: 'size', value: row => row.size, align: 'right'},
]

t.test('columns are aligned, numbers to the right', async t => {
  const table = formatTable(columns, [{name: 'pvc-1', size: 7}, {name: 'größer', size: 12345}], false)
  t.equal(table, ['NAME      SIZE', 'pvc-1        7', 'größer   12345'].join('\n'))
})

t.test('no rows still give the header', async t => {
  t.equal(formatTable(columns, [], false), 'NAME   SIZE')
})

t.test('a value that is not there is a dash', async t => {
  t.match(formatTable(columns, [{name: ''}], false), /^-\s+-$/m)
})

t.test('control characters do not reach the terminal', async t => {
  t.match(formatTable(columns, [{name: 'a\u001b[31mb\nc'}], false), /^a\?\[31mb\?c/m)
})
