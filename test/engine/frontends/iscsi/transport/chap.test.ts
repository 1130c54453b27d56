import {createHash} from 'node:crypto'
import {mkdirSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {Challenge, chapResponse, chooseAlgorithm, formatBinary, parseBinary} from '../../../../../src/engine/frontends/iscsi/transport/chap.js'
import {parseSecrets, readChapFile} from '../../../../../src/engine/frontends/iscsi/transport/chap-file.js'
import {hex} from './support/wire.js'

// `openssl dgst` of 01, "secretsecret", 00 01 02 03.
const MD5 = 'cd52a453f1dd4692442a6a1b33bec1a5'
const SHA1 = '96f181ddbb100ea26b9ddea53e168a63dbaa28d0'
const SHA256 = '1418c7b9826cf1dbdb2e583105d4337a4adf53c6cf3aa4de7841ee1168742a25'
const SHA3 = '05f4a994f4d3ca39c8355be7385a070d785ef210256e58e628459379df65d700'

t.test('responses', async t => {
  const challenge = hex('00010203')
  t.equal(chapResponse('5', 1, 'secretsecret', challenge).toString('hex'), MD5)
  t.equal(chapResponse('6', 1, 'secretsecret', challenge).toString('hex'), SHA1)
  t.equal(chapResponse('7', 1, 'secretsecret', challenge).toString('hex'), SHA256)
  t.equal(chapResponse('8', 1, 'secretsecret', challenge).toString('hex'), SHA3)
})

t.test('algorithms: the first that both have', async t => {
  t.equal(chooseAlgorithm('5'), '5')
  t.equal(chooseAlgorithm('8,7,6,5'), '8')
  t.equal(chooseAlgorithm('99,56,6,5'), '6')
  for (const list of ['', '56', '05', ' 5', '9,10']) t.equal(chooseAlgorithm(list), undefined, list)
})

t.test('binary values', async t => {
  t.same(parseBinary('0x00ff'), hex('00ff'))
  t.same(parseBinary('0XabC'), hex('0abc'))
  t.same(parseBinary('0bAAEC'), hex('000102'))
  t.same(parseBinary('0BAAE='), hex('0001'))
  for (const text of ['', '0x', '0xzz', '00ff', '0b', '0b!', 'ff', `0x${'00'.repeat(1025)}`]) t.equal(parseBinary(text), undefined, text.slice(0, 10))
  t.equal(parseBinary(`0x${'00'.repeat(1024)}`)?.length, 1024)
  t.equal(formatBinary(hex('00ff')), '0x00ff')
})

t.test('a challenge', async t => {
  const challenge = new Challenge('7')
  const expected = {name: 'somebody', secret: 'secretsecret'}
  const right = createHash('sha256').update(Buffer.of(challenge.identifier)).update(expected.secret).update(challenge.bytes).digest()
  t.ok(challenge.isAnsweredBy('somebody', right, expected))
  t.notOk(challenge.isAnsweredBy('somebodY', right, expected))
  t.notOk(challenge.isAnsweredBy('somebody else', right, expected))
  t.notOk(challenge.isAnsweredBy('somebody', Buffer.alloc(32), expected))
  t.notOk(challenge.isAnsweredBy('somebody', right.subarray(0, 31), expected))
  t.notOk(challenge.isAnsweredBy('somebody', Buffer.alloc(0), expected))
  t.notOk(new Challenge('7').isAnsweredBy('somebody', right, expected), 'another challenge')
  t.equal(challenge.bytes.length, 32)
})

t.test('secrets', async t => {
  const both = `
# open-iscsi
node.startup = automatic
node.session.auth.authmethod = CHAP
node.session.auth.username = one
node.session.auth.password = first secret 1
node.session.auth.username_in=two
  node.session.auth.password_in   =   second secret
`
  t.same(parseSecrets(both, 'f'), {
    session: {initiator: {name: 'one', secret: 'first secret 1'}, target: {name: 'two', secret: 'second secret'}},
    discovery: undefined,
  })
  const discovery = 'discovery.sendtargets.auth.username = d\ndiscovery.sendtargets.auth.password = discovery secret\n'
  t.same(parseSecrets(both + discovery, 'f').discovery, {initiator: {name: 'd', secret: 'discovery secret'}, target: undefined})
  const line = (key: string, value: string): string => `node.session.auth.${key} = ${value}\n`
  const wrong = [
    line('username', 'one'),
    line('password', 'first secret 1'),
    line('username', '') + line('password', 'first secret 1'),
    line('username', 'one') + line('password', 'too short'),
    line('username', 'one') + line('password', 'x'.repeat(256)),
    line('username', 'n'.repeat(256)) + line('password', 'first secret 1'),
    line('username_in', 'two') + line('password_in', 'second secret'),
    line('username', 'one') + line('password', 'first secret 1') + line('username_in', 'two'),
    line('username', 'one') + line('password', 'first secret 1') + line('username_in', 'two') + line('password_in', 'first secret 1'),
    line('username', 'one') + line('username', 'one') + line('password', 'first secret 1'),
    `${both}discovery.sendtargets.auth.username = d\ndiscovery.sendtargets.auth.password = second secret\n`,
  ]
  for (const text of wrong) {
    try {
      parseSecrets(text, 'chap.conf')
      t.fail(text)
    } catch (error) {
      t.match(error, {code: 'LH_USAGE', message: /^chap\.conf: /})
      t.notMatch(String(error), /secret \d|second secret|too short/, 'and no secret in the message')
    }
  }
})

t.test('where secrets are kept', async t => {
  const folder = t.testdir({conf: 'node.session.auth.username = one\nnode.session.auth.password = first secret 1\n', empty: '# nothing\n'})
  t.match(await readChapFile(join(folder, 'conf')), {session: {initiator: {name: 'one'}}})
  const mounted = join(folder, 'mounted')
  mkdirSync(mounted)
  writeFileSync(join(mounted, 'node.session.auth.username'), 'one\n')
  writeFileSync(join(mounted, 'node.session.auth.password'), 'first secret 1')
  writeFileSync(join(mounted, 'other'), 'ignored')
  t.match(await readChapFile(mounted), {session: {initiator: {name: 'one', secret: 'first secret 1'}}}, 'as Kubernetes mounts a secret')
  await t.rejects(readChapFile(join(folder, 'missing')), {code: 'LH_NOT_FOUND'})
  await t.rejects(readChapFile(join(folder, 'empty')), {code: 'LH_USAGE'}, 'a file that protects nothing')
})
