import {truncateSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {backupKey} from '../../src/backup/format/store-layout.js'
import {BackedUp} from '../engine/support/backed-up.js'
import {longhorn} from './run-program.js'

t.test('a record that was written half does not hide the others', async t => {
  const source = new BackedUp(join(t.testdir(), 'store'), 4 * 1024 ** 2)
  source.volume.write(0, Buffer.from('something'))
  await source.backup('first')
  await source.backup('second')
  truncateSync(join(source.root, backupKey(source.name, 'second')), 100)
  const {exitCode, stdout} = await longhorn(['backup', 'ls', source.store.url])
  t.equal(exitCode, 15)
  t.match(stdout, /source +first +20\d\d-/)
  t.match(stdout, /source +second +damaged/)
  t.match(stdout, /backup_second\.cfg is not JSON/)
  const json = await longhorn(['backup', 'ls', source.store.url, '--json'])
  t.match(JSON.parse(json.stdout), {backups: [{backup: 'first', problem: ''}, {backup: 'second', created: '', problem: /not JSON/}]})
})
