// An S3 server that misbehaves, in the middle of a backup: nothing is lost, nothing half-done is listed, and what was stored is not sent again.
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
import {S3Server, type Fault, type S3ServerOptions} from '../../support/s3-server.js'
import {MemoryVolume, type MemorySource} from '../memory-volume.js'

const BLOCK = 2 * 1024 ** 2
const BLOCKS = 8
const settleMs = 10
const options = {volume: 'vol', concurrency: 3, settleMs}

async function setUp(t: Test, more: S3ServerOptions = {}): Promise<{server: S3Server; store: BackupStore; source: MemorySource}> {
  const server = await new S3Server(more).start(t)
  const env = {...server.env, ...(more.sessionToken === undefined ? {} : {AWS_SESSION_TOKEN: more.sessionToken})}
  const store = await openStore(parseTargetUrl('s3://backups@eu-test-1/path/'), {env})
  t.teardown(() => store.close())
  const volume = new MemoryVolume(BLOCKS * BLOCK)
  volume.write(0, randomBytes(BLOCKS * BLOCK))
  return {server, store, source: volume.snapshot('s1')}
}

function blocksIn(server: S3Server): number {
  return [...server.objects.keys()].filter(key => key.endsWith('.blk')).length
}

function blockPuts(server: S3Server): number {
  return server.requests.filter(request => request.startsWith('PUT') && request.endsWith('.blk')).length
}

async function check(t: Test, store: BackupStore, source: MemorySource, backup: string): Promise<void> {
  t.match(await verifyBackups(store, {...options, sample: 1}), {findings: [], unfinished: []})
  const file = join(t.testdir(), 'restored')
  await restoreToFile(store, file, {...options, backup})
  t.ok(source.image.equals(readFileSync(file)))
}

const lasting: readonly {readonly what: string; readonly fault: Fault; readonly expected: {readonly code: string; readonly message: RegExp}}[] = [
  {what: 'access is taken away', fault: {status: 403, code: 'AccessDenied'}, expected: {code: 'LH_USAGE', message: /writing .*AccessDenied \(HTTP 403\)/}},
  {what: 'it is full', fault: {status: 507, code: 'XMinioStorageFull'}, expected: {code: 'LH_NO_SPACE', message: /StorageFull/}},
  {what: 'the quota is used up', fault: {status: 400, code: 'QuotaExceeded'}, expected: {code: 'LH_NO_SPACE', message: /QuotaExceeded/}},
]
for (const {what, fault, expected} of lasting) {
  t.test(`${what} in the middle of a backup`, async t => {
    const {server, store, source} = await setUp(t)
    server.fault = (method, key) => (method === 'PUT' && key.endsWith('.blk') && blocksIn(server) >= 4 ? fault : undefined)
    await t.rejects(createBackup(source, store, {...options, backup: 'b1', snapshot: 's1'}), expected)
    server.fault = () => undefined
    t.notOk([...server.objects.keys()].some(key => key.includes('backup_b1')), 'nothing is listed')
    const there = blocksIn(server)
    const before = blockPuts(server)
    await createBackup(source, store, {...options, backup: 'b1', snapshot: 's1'})
    t.equal(blockPuts(server) - before, BLOCKS - there, 'only what is missing is sent')
    await check(t, store, source, 'b1')
  })
}

t.test('when nothing is allowed any more the first refusal is what is told', async t => {
  const {server, store, source} = await setUp(t)
  server.fault = () => (blocksIn(server) >= 2 ? {status: 403, code: 'AccessDenied'} : undefined)
  await t.rejects(
    createBackup(source, store, {...options, backup: 'b1', snapshot: 's1'}),
    // A refused HEAD has no text, and may be the first.
    {code: 'LH_USAGE', message: /(looking|writing).*HTTP 403/},
  )
})

t.test('errors that pass, connections that end in the middle of a body, both ways', async t => {
  const {server, store, source} = await setUp(t)
  const kinds: Fault[] = [{status: 500, code: 'InternalError'}, {status: 503, code: 'SlowDown'}, 'reset', 'cut']
  const failed = new Set<string>()
  // Each request for each block fails once, each in its way.
  server.fault = (method, key) => {
    const id = `${method} ${key}`
    if (!key.endsWith('.blk') || failed.has(id)) return undefined
    failed.add(id)
    return kinds[failed.size % kinds.length]
  }
  await createBackup(source, store, {...options, backup: 'b1', snapshot: 's1'})
  await check(t, store, source, 'b1')
  t.ok(failed.size >= 2 * BLOCKS, `${failed.size} faults`)
})

t.test('a server that is away for longer than a request is tried', async t => {
  const {server, store, source} = await setUp(t)
  let refused = 0
  // The SDK gives up after five; the backup does not.
  server.fault = (method, key) => (method === 'PUT' && key.endsWith('.blk') && blocksIn(server) >= 4 && refused < 20 ? (refused++, {status: 503, code: 'ServiceUnavailable'}) : undefined)
  await createBackup(source, store, {...options, backup: 'b1', snapshot: 's1'})
  t.equal(refused, 20)
  await check(t, store, source, 'b1')
})

t.test('what is damaged on the way or in the store is found', async t => {
  const {server, store, source} = await setUp(t)
  let damaged = ''
  server.fault = (method, key) => {
    if (method !== 'PUT' || !key.endsWith('.blk') || damaged !== '') return undefined
    damaged = key
    return 'damage'
  }
  await createBackup(source, store, {...options, backup: 'b1', snapshot: 's1'})
  t.match(await verifyBackups(store, {...options, sample: 1}), {findings: [{backup: 'b1', problem: /checksum|decompressed/}]})
  const file = join(t.testdir(), 'restored')
  await t.rejects(restoreToFile(store, file, {...options, backup: 'b1'}), {code: 'LH_CORRUPT'})
  server.fault = () => undefined
  await createBackup(source, store, {...options, backup: 'b2', snapshot: 's1', full: true})
  await check(t, store, source, 'b1')
  server.fault = (method, key) => (method === 'GET' && key.endsWith('.blk') ? 'damage' : undefined)
  await t.rejects(restoreToFile(store, `${file}-2`, {...options, backup: 'b2'}), {code: 'LH_CORRUPT'})
})

t.test('an ETag says nothing: that of an encrypted bucket is no sum of the content either', async t => {
  const {server, store, source} = await setUp(t)
  server.fault = () => 'etag'
  await createBackup(source, store, {...options, backup: 'b1', snapshot: 's1'})
  t.equal(blockPuts(server), BLOCKS, 'what was stored is not stored again')
  await check(t, store, source, 'b1')
  await createBackup(source, store, {...options, backup: 'b2', snapshot: 's1'})
  t.equal(blockPuts(server), BLOCKS, 'and counts as there')
  await check(t, store, source, 'b2')
  // Damaged, with the ETag of what it should be.
  const [key, stored] = [...server.objects].find(([key]) => key.endsWith('.blk'))!
  const wrong = Buffer.from(stored.data)
  wrong.writeUInt8(wrong.readUInt8(1000) ^ 1, 1000)
  server.objects.set(key, {data: wrong, modified: new Date()})
  await t.rejects(restoreToFile(store, join(t.testdir(), 'restored'), {...options, backup: 'b2'}), {code: 'LH_CORRUPT'})
})

t.test('listings that are refused remove nothing, and a removal that breaks off is finished by the next', async t => {
  const {server, store, source} = await setUp(t)
  await createBackup(source, store, {...options, backup: 'b1', snapshot: 's1'})
  await createBackup(source, store, {...options, backup: 'b2', snapshot: 's1'})
  server.fault = (method, key) => (method === 'GET' && key === '' ? {status: 403, code: 'AccessDenied'} : undefined)
  await t.rejects(removeBackups(store, {volume: 'vol', backups: ['b1'], settleMs}), {code: 'LH_USAGE'})
  t.equal(blocksIn(server), BLOCKS)
  server.fault = () => undefined
  await check(t, store, source, 'b1')
  server.fault = (method, key) => (method === 'DELETE' && key.endsWith('.blk') && blocksIn(server) <= 3 ? {status: 403, code: 'AccessDenied'} : undefined)
  await t.rejects(removeBackups(store, {volume: 'vol', backups: ['b1', 'b2'], settleMs}), {code: 'LH_USAGE'})
  t.ok(blocksIn(server) > 0)
  server.fault = () => undefined
  t.match(await removeBackups(store, {volume: 'vol', backups: [], settleMs}), {blocksKept: undefined})
  t.equal(blocksIn(server), 0)
})

t.test('a clock that is an hour off', async t => {
  for (const aheadMs of [3_600_000, -3_600_000]) {
    const {server, store, source} = await setUp(t, {aheadMs})
    await createBackup(source, store, {...options, backup: 'b1', snapshot: 's1'})
    await check(t, store, source, 'b1')
    t.ok(server.requests.length > 0)
  }
})

t.test('a session token, and one that has expired', async t => {
  const {server, store, source} = await setUp(t, {sessionToken: 'tOken'})
  await createBackup(source, store, {...options, backup: 'b1', snapshot: 's1'})
  await check(t, store, source, 'b1')
  const error: unknown = await openStore(parseTargetUrl('s3://backups@eu-test-1/path/'), {env: {...server.env, AWS_SESSION_TOKEN: 'oldTOken'}}).catch((error: unknown) => error)
  t.match(error, {code: 'LH_USAGE', message: /InvalidToken/})
  t.notMatch(String(error) + JSON.stringify(error), /oldTOken/)
})
