import {randomBytes} from 'node:crypto'
import {readFileSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {createBackup} from '../../src/backup/create.js'
import {removeBackups} from '../../src/backup/remove.js'
import {restoreToFile} from '../../src/backup/restore-file.js'
import type {BackupStore} from '../../src/backup/store/backup-store.js'
import {openStore} from '../../src/backup/store/open-store.js'
import {parseTargetUrl} from '../../src/backup/target-url.js'
import {verifyBackups} from '../../src/backup/verify.js'
import {MemoryVolume} from '../backup/memory-volume.js'
import {storeContract} from '../backup/store/store-contract.js'
import {minioProgram, startMinio} from './support/minio.js'

const minio = await minioProgram()
const skip = 'missing' in minio && minio.missing
const path = 'path' in minio ? minio.path : ''
let stores = 0

async function open(t: Test, env: Record<string, string>): Promise<BackupStore> {
  const store = await openStore(parseTargetUrl(`s3://backups@us-east-1/path-${stores++}/`), {env})
  t.teardown(() => store.close())
  return store
}

t.test('a real S3 server', {skip}, async t => {
  const env = await startMinio(t, path)
  await t.test('keeps the contract', async t => storeContract(t, async t => open(t, env)))

  await t.test('backups', async t => {
    const store = await open(t, env)
    const volume = new MemoryVolume(32 * 2 ** 20)
    const options = {volume: 'vol', concurrency: 5, settleMs: 2000}
    for (const round of [1, 2, 3]) {
      volume.write(round * 5_000_000, randomBytes(4_000_000))
      await createBackup(volume.snapshot(`s${round}`), store, {...options, backup: `b${round}`, snapshot: `s${round}`})
    }
    t.match(await removeBackups(store, {volume: 'vol', backups: ['b2'], settleMs: 2000}), {backups: ['b2'], blocksKept: undefined})
    t.match(await verifyBackups(store, {...options, sample: 1}), {backups: 2, findings: []})
    const file = join(t.testdir(), 'restored')
    await restoreToFile(store, file, {...options, backup: 'b3'})
    t.ok(volume.image.equals(readFileSync(file)))
  })

  await t.test('credentials that it refuses', async t => {
    const wrong = {...env, AWS_SECRET_ACCESS_KEY: 'something-else'}
    await t.rejects(openStore(parseTargetUrl('s3://backups@us-east-1/'), {env: wrong}), {code: 'LH_USAGE', message: /SignatureDoesNotMatch/})
    await t.rejects(openStore(parseTargetUrl('s3://no-such-bucket@us-east-1/'), {env}), {code: 'LH_USAGE', message: /NoSuchBucket/})
  })
})
