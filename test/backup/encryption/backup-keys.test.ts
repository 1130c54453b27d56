import {mkdirSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import {inspect} from 'node:util'
import t from 'tap'
import {backupKeyText, loadBackupKeys} from '../../../src/backup/encryption/backup-keys.js'

const ONE = Buffer.from(Array.from({length: 32}, (_, index) => index))
const TWO = Buffer.alloc(32, 7)

t.test('no key at all', async t => {
  t.equal(loadBackupKeys({}), undefined)
  t.equal(loadBackupKeys({LONGHORN_BACKUP_KEY: ' \n', LONGHORN_BACKUP_KEY_FILE: ''}), undefined)
  t.equal(backupKeyText({}), undefined)
})

t.test('keys in the environment: the first one writes', async t => {
  const keys = loadBackupKeys({LONGHORN_BACKUP_KEY: `# of this year\n${ONE.toString('base64')}\n\n${TWO.toString('hex')}\n${ONE.toString('base64url')}`, LONGHORN_BACKUP_KEY_FILE: '/nowhere'})
  t.equal(keys?.current.id, '16a5c6d078b16202', 'computed by other means: HKDF-SHA-512 of the key')
  t.equal(keys?.ids.length, 2)
  t.equal(keys?.find(keys.ids[1]!)?.id, keys?.ids[1])
  t.equal(keys?.find('0'.repeat(16)), undefined)
})

t.test('keys in files', async t => {
  const folder = t.testdir({file: `${ONE.toString('base64')}\n`, secret: {'..data': 'not a key', a: TWO.toString('hex')}})
  const load = (path: string) => loadBackupKeys({LONGHORN_BACKUP_KEY_FILE: join(folder, path)})!.ids
  const [one] = load('file')
  const [two] = load('secret')
  t.equal(one, '16a5c6d078b16202')
  writeFileSync(join(folder, 'secret/b'), ONE.toString('base64'))
  t.throws(() => load('secret'), {code: 'LH_USAGE', message: /several keys \(a, b\).*"current"/})
  writeFileSync(join(folder, 'secret/current'), ONE.toString('base64'))
  t.same(load('secret'), [one, two])
  const text = backupKeyText({LONGHORN_BACKUP_KEY_FILE: join(folder, 'secret')})
  t.same(loadBackupKeys({LONGHORN_BACKUP_KEY: text})!.ids, [one, two], 'what a replica is told')
})

t.test('what is no key is refused, and not repeated', async t => {
  const folder = t.testdir({empty: '# nothing', huge: 'x'.repeat(70_000)})
  mkdirSync(join(folder, 'none'))
  const secret = 'sEcretsEcretsEcret'
  const refuse = (pattern: RegExp, env: Record<string, string>): void => {
    try {
      loadBackupKeys(env)
      t.fail(`accepted: ${pattern}`)
    } catch (error) {
      t.match(error, {code: 'LH_USAGE', message: pattern})
      t.notMatch(inspect(error, {depth: 9}), /sEcret/)
    }
  }
  refuse(/LONGHORN_BACKUP_KEY, line 2: a key has 32 bytes.*this one has 13/, {LONGHORN_BACKUP_KEY: `${ONE.toString('hex')}\n${secret}`})
  refuse(/something else/, {LONGHORN_BACKUP_KEY: `${secret}!!`})
  for (const bytes of [16, 31, 33, 64]) refuse(new RegExp(`this one has ${bytes}`), {LONGHORN_BACKUP_KEY: Buffer.alloc(bytes, 1).toString('base64')})
  refuse(/no-such cannot be read \(ENOENT\)/, {LONGHORN_BACKUP_KEY_FILE: join(folder, 'no-such')})
  refuse(/there is no key in it/, {LONGHORN_BACKUP_KEY_FILE: join(folder, 'empty')})
  refuse(/no file of keys/, {LONGHORN_BACKUP_KEY_FILE: join(folder, 'huge')})
  refuse(/no key in the folder/, {LONGHORN_BACKUP_KEY_FILE: join(folder, 'none')})
})

t.test('a key does not show itself', async t => {
  const keys = loadBackupKeys({LONGHORN_BACKUP_KEY: ONE.toString('hex')})
  for (const text of [inspect(keys, {depth: 9, showHidden: true}), JSON.stringify(keys)]) {
    t.notMatch(text, /00010203|00 01 02 03|AAECAw/)
  }
})
