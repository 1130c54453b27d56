import t from 'tap'
import {recordArgs, withSettings} from '../../../src/drivers/attach/kernel-iscsi/node-record.js'

const RECORD = `# BEGIN RECORD 2.1.8
node.name = iqn.2019-10.io.longhorn:vol
node.session.auth.authmethod = None
node.session.auth.chap_algs = MD5
node.conn[0].timeo.noop_out_timeout = 5
# END RECORD
`

t.test('settings replace what is there and are added where nothing is', async t => {
  const text = withSettings(RECORD, {'node.session.auth.authmethod': 'CHAP', 'node.session.auth.password': 'a = b # c', 'node.conn[0].timeo.noop_out_timeout': '15'})
  t.equal(
    text,
    `# BEGIN RECORD 2.1.8
node.name = iqn.2019-10.io.longhorn:vol
node.session.auth.chap_algs = MD5
node.session.auth.authmethod = CHAP
node.session.auth.password = a = b # c
node.conn[0].timeo.noop_out_timeout = 15
# END RECORD
`,
  )
  t.equal(withSettings(text, {'node.session.auth.password': 'other'}).match(/password/g)?.length, 1)
})

t.test('a record without an end', async t => {
  t.equal(withSettings('', {'node.startup': 'manual'}), '\nnode.startup = manual')
})

t.test('the arguments that select a record hold no secret, and brackets where an address needs them', async t => {
  t.same(recordArgs('iqn.x:y', {host: '10.0.0.5', port: 3260}), ['-m', 'node', '-T', 'iqn.x:y', '-p', '10.0.0.5:3260'])
  t.same(recordArgs('iqn.x:y', {host: 'fd00::5', port: 3260}), ['-m', 'node', '-T', 'iqn.x:y', '-p', '[fd00::5]:3260'])
})
