import {execFileSync, spawnSync} from 'node:child_process'
import {randomBytes} from 'node:crypto'
import {readFileSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {createBackup} from '../../../src/backup/create.js'
import {removeBackups} from '../../../src/backup/remove.js'
import {restoreToFile} from '../../../src/backup/restore-file.js'
import type {BackupStore} from '../../../src/backup/store/backup-store.js'
import {openStore} from '../../../src/backup/store/open-store.js'
import {parseTargetUrl} from '../../../src/backup/target-url.js'
import {verifyBackups} from '../../../src/backup/verify.js'
import {S3Server} from '../../support/s3-server.js'
import {MemoryVolume} from '../memory-volume.js'
import {storeContract} from './store-contract.js'

const URL_TEXT = 's3://backups@eu-test-1/some/path/'
const settleMs = 10

async function open(t: Test, server: S3Server, url = URL_TEXT, env: Record<string, string> = {}): Promise<BackupStore> {
  const store = await openStore(parseTargetUrl(url), {env: {...server.env, ...env}})
  t.teardown(() => store.close())
  return store
}

t.test('a bucket', async t => storeContract(t, async t => open(t, await new S3Server({pageSize: 100}).start(t))))

t.test('keys are under the path, and nothing else is seen', async t => {
  const server = await new S3Server().start(t)
  server.objects.set('some/other/backupstore/x', {data: Buffer.from('x'), modified: new Date()})
  server.objects.set('some/path/backupstore/folder/', {data: Buffer.alloc(0), modified: new Date()})
  const store = await open(t, server)
  await store.put('backupstore/v/volume.cfg', Buffer.from('{}'))
  t.ok(server.objects.has('some/path/backupstore/v/volume.cfg'))
  t.same((await store.children('backupstore/')).folders, ['folder', 'v'])
  t.same((await store.children('backupstore/folder/')).objects, [])
  const root = await open(t, server, 's3://backups@eu-test-1/')
  await root.put('backupstore/y', Buffer.from('y'))
  t.ok(server.objects.has('backupstore/y'))
})

t.test('settings that cannot be right are told, and nothing secret is', async t => {
  const server = await new S3Server().start(t)
  const refuse = async (pattern: RegExp, url: string, env: Record<string, string>): Promise<void> => {
    try {
      await openStore(parseTargetUrl(url), {env: {...server.env, ...env}})
      t.fail(`${url} was opened`)
    } catch (error) {
      t.match(error, {code: 'LH_USAGE', message: pattern})
      t.notMatch(JSON.stringify(error) + String(error), /sEcret/)
    }
  }
  await refuse(/which region/, 's3://backups/', {})
  await refuse(/no bucket|NoSuchBucket/, 's3://others@eu-test-1/', {})
  await refuse(/InvalidAccessKeyId/, URL_TEXT, {AWS_ACCESS_KEY_ID: 'wrong', AWS_SECRET_ACCESS_KEY: 'sEcret'})
  await refuse(/access key not found/, URL_TEXT, {AWS_ACCESS_KEY_ID: '', AWS_SECRET_ACCESS_KEY: 'sEcret'})
  await refuse(/secret access key not found/, URL_TEXT, {AWS_SECRET_ACCESS_KEY: ''})
})

t.test('what goes wrong now and then is tried again', async t => {
  const server = await new S3Server().start(t)
  const store = await open(t, server)
  const data = randomBytes(300_000)
  const once = (fault: Exclude<ReturnType<S3Server['fault']>, undefined>): void => {
    let left = 1
    server.fault = () => (left-- > 0 ? fault : undefined)
  }
  for (const fault of [{status: 500, code: 'InternalError'}, {status: 503, code: 'SlowDown'}, 'reset'] as const) {
    once(fault)
    await store.put('backupstore/x', data)
    once(fault)
    t.ok(data.equals(await store.get('backupstore/x', 1e6)), JSON.stringify(fault))
    once(fault)
    t.equal((await store.head('backupstore/x'))?.sizeBytes, data.length)
  }
  once('cut')
  t.ok(data.equals(await store.get('backupstore/x', 1e6)), 'an answer that broke off')
})

t.test('what stays wrong is an error, and never an absence', async t => {
  const server = await new S3Server().start(t)
  const store = await open(t, server)
  await store.put('backupstore/x', randomBytes(100_000))
  server.fault = () => ({status: 403, code: 'AccessDenied'})
  const calls: (() => Promise<unknown>)[] = [
    () => store.head('backupstore/x'),
    () => store.get('backupstore/x', 1e6),
    () => store.children('backupstore/'),
    () => store.put('backupstore/x', Buffer.from('x')),
    () => store.remove('backupstore/x'),
  ]
  for (const call of calls) await t.rejects(call(), {code: 'LH_USAGE', message: /HTTP 403/})
  server.fault = () => ({status: 507, code: 'XMinioStorageFull'})
  await t.rejects(store.put('backupstore/x', Buffer.from('x')), {code: 'LH_NO_SPACE'})
  server.fault = () => ({status: 404, code: 'NoSuchBucket'})
  await t.rejects(store.get('backupstore/x', 1e6), {code: 'LH_USAGE'})
  server.fault = () => 'cut'
  await t.rejects(store.get('backupstore/x', 1e6), {code: 'LH_UNREACHABLE'})
})

t.test('backups, with a server that fails all the time', async t => {
  const server = await new S3Server({pageSize: 5}).start(t)
  const store = await open(t, server)
  const volume = new MemoryVolume(32 * 2 ** 20)
  let calls = 0
  server.fault = () => (++calls % 7 === 0 ? ({status: 503, code: 'SlowDown'} as const) : calls % 11 === 0 ? 'cut' : undefined)
  const options = {volume: 'vol', concurrency: 4, settleMs}
  for (const round of [1, 2, 3]) {
    volume.write(round * 5_000_000, randomBytes(4_000_000))
    await createBackup(volume.snapshot(`s${round}`), store, {...options, backup: `b${round}`, snapshot: `s${round}`})
  }
  t.match(await removeBackups(store, {volume: 'vol', backups: ['b2'], settleMs}), {blocksKept: undefined})
  t.match(await verifyBackups(store, {...options, sample: 1}), {backups: 2, findings: []})
  const file = join(t.testdir(), 'restored')
  await restoreToFile(store, file, {...options, backup: 'b3'})
  t.ok(volume.image.equals(readFileSync(file)))
})

t.test('a listing that is forbidden removes nothing', async t => {
  const server = await new S3Server().start(t)
  const store = await open(t, server)
  const volume = new MemoryVolume(8 * 2 ** 20)
  const options = {volume: 'vol', concurrency: 4, settleMs}
  for (const round of [1, 2]) {
    volume.write(round * 1_000_000, randomBytes(1000))
    await createBackup(volume.snapshot(`s${round}`), store, {...options, backup: `b${round}`, snapshot: `s${round}`})
  }
  // What upstream takes for "there are no backups".
  server.fault = (method, key) => (method === 'GET' && key === '' && server.requests.at(-1)!.endsWith('/backups/') ? {status: 403, code: 'AccessDenied'} : undefined)
  await t.rejects(removeBackups(store, {volume: 'vol', backups: ['b1'], settleMs}), {code: 'LH_USAGE'})
  server.fault = () => undefined
  t.match(await verifyBackups(store, {...options, sample: 1}), {backups: 2, findings: []})
})

const openssl = spawnSync('openssl', ['version']).status === 0

t.test('TLS with a certificate authority of its own', {skip: !openssl && 'openssl, which makes the certificate, is not installed'}, async t => {
  const dir = t.testdir()
  const files = {key: join(dir, 'key.pem'), cert: join(dir, 'cert.pem')}
  execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=test', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', files.key, '-out', files.cert], {stdio: 'ignore'})
  const tls = {key: readFileSync(files.key, 'utf8'), cert: readFileSync(files.cert, 'utf8')}
  const server = await new S3Server({tls}).start(t)
  await t.rejects(openStore(parseTargetUrl(URL_TEXT), {env: server.env}), {code: 'LH_UNREACHABLE', message: /certificate/})
  const store = await open(t, server, URL_TEXT, {AWS_CERT: tls.cert})
  await store.put('backupstore/x', Buffer.from('x'))
  t.equal((await store.get('backupstore/x', 10)).toString(), 'x')
})
