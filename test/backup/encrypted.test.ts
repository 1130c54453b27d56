import {randomBytes} from 'node:crypto'
import {cpSync, readFileSync, readdirSync} from 'node:fs'
import {join} from 'node:path'
import {fileURLToPath} from 'node:url'
import t, {type Test} from 'tap'
import {describeBackup, loadBackup, loadVolume, openBackup} from '../../src/backup/catalog.js'
import {copyBackup} from '../../src/backup/copy.js'
import {createBackup} from '../../src/backup/create.js'
import {BackupKey, BackupKeys} from '../../src/backup/encryption/backup-keys.js'
import {blockKey, blocksFolder, shortSum} from '../../src/backup/format/store-layout.js'
import {removeBackups} from '../../src/backup/remove.js'
import {restoreToFile} from '../../src/backup/restore-file.js'
import type {BackupStore} from '../../src/backup/store/backup-store.js'
import {VfsStore} from '../../src/backup/store/vfs.js'
import {inspectedBackup} from '../../src/backup/upstream-json.js'
import {verifyBackups} from '../../src/backup/verify.js'
import {listed} from './faulty-store.js'
import {MemoryVolume} from './memory-volume.js'

const BLOCK = 2 * 1024 ** 2
const settleMs = 10
const base = {volume: 'vol', concurrency: 3, settleMs}
const FIXTURE = fileURLToPath(new URL('../../../test/fixtures/backup/encrypted-store/store', import.meta.url))
const [A, B] = [BackupKey.from(Buffer.alloc(32, 'A')), BackupKey.from(Buffer.alloc(32, 'B'))]

/** The same directory, opened with these keys. */
function open(t: Test, ...keys: BackupKey[]): VfsStore {
  return openAt(join(t.testdirName, 'store'), ...keys)
}

function openAt(root: string, ...keys: BackupKey[]): VfsStore {
  const store = new VfsStore(root, `vfs://${root}`)
  if (keys.length > 0) store.keys = BackupKeys.of(keys)
  return store
}

let files = 0
async function restored(t: Test, store: BackupStore, backup: string): Promise<Buffer> {
  const file = join(t.testdirName, `restored-${files++}`)
  await restoreToFile(store, file, {...base, backup})
  return readFileSync(file)
}

t.test('backed up, restored, verified and removed', async t => {
  t.testdir()
  const store = open(t, A)
  const volume = new MemoryVolume(8 * BLOCK)
  const secret = Buffer.from('nobody may read this '.repeat(500))
  volume.write(100, secret)
  volume.write(3 * BLOCK, randomBytes(BLOCK))
  // The same content twice is one object, encrypted or not.
  volume.write(5 * BLOCK, Buffer.alloc(BLOCK, 'twin'))
  volume.write(6 * BLOCK, Buffer.alloc(BLOCK, 'twin'))
  const one = volume.snapshot('s1')
  await createBackup(one, store, {...base, backup: 'b1', snapshot: 's1'})
  volume.write(3 * BLOCK + 5, randomBytes(100))
  const two = volume.snapshot('s2')
  t.match(await createBackup(two, store, {...base, backup: 'b2', snapshot: 's2'}), {isIncremental: true, progress: {totalBlocks: 1}})
  t.equal((await listed(store, blocksFolder('vol'))).length, 4)
  t.ok((await restored(t, store, 'b1')).equals(one.image))
  t.ok((await restored(t, store, 'b2')).equals(two.image))
  t.match(await verifyBackups(store, {...base, sample: 1}), {backups: 2, findings: []})
  for (const name of readdirSync(store.root, {recursive: true, encoding: 'utf8'})) {
    t.notOk(name.includes(shortSum(Buffer.alloc(BLOCK, 'twin'))), 'names are no checksums of the content')
    if (/\.(cfg|blk)$/.test(name)) t.notOk(readFileSync(join(store.root, name)).includes('nobody may read this'))
  }
  t.equal((await loadVolume(store, 'vol')).compressionMethod, `lz4+aes-256-gcm+${A.id}`)
  t.equal((await loadBackup(store, 'vol', 'b1')).compressionMethod, `lz4+aes-256-gcm+${A.id}`, 'which upstream does not know')

  const without = open(t)
  t.match(await removeBackups(without, {volume: 'vol', backups: ['b1'], settleMs}), {backups: ['b1'], blocks: 1, blocksKept: undefined}, 'removing takes no key')
  t.ok((await restored(t, store, 'b2')).equals(two.image))
})

t.test('without the key: listed, inspected, and nothing else', async t => {
  t.testdir()
  const volume = new MemoryVolume(4 * BLOCK)
  volume.write(0, randomBytes(BLOCK))
  const source = volume.snapshot('s1')
  await createBackup(source, open(t, A), {...base, backup: 'b1', snapshot: 's1'})
  for (const store of [open(t), open(t, B)]) {
    const message = new RegExp(`encrypted with the key ${A.id}.*${store.keys === undefined ? 'no key was given' : B.id}.*LONGHORN_BACKUP_KEY_FILE`)
    t.match(await inspectedBackup(store, 'vol', 'b1'), {Name: 'b1', CompressionMethod: `lz4+aes-256-gcm+${A.id}`})
    t.match(await describeBackup(store, 'vol', 'b1'), {form: {keyId: A.id}})
    await t.rejects(openBackup(store, 'vol', 'b1'), {code: 'LH_USAGE', message})
    await t.rejects(restored(t, store, 'b1'), {code: 'LH_USAGE', message})
    await t.rejects(verifyBackups(store, {...base, sample: 1}), {code: 'LH_USAGE', message}, 'no finding: nothing is wrong with it')
  }
  await t.rejects(createBackup(source, open(t), {...base, backup: 'b2', snapshot: 's1'}), {code: 'LH_USAGE', message: /is encrypted/}, 'never in clear beside it')
  await t.rejects(createBackup(source, open(t), {...base, volume: 'new', snapshot: 's1', compressionMethod: `lz4+aes-256-gcm+${A.id}`}), {code: 'LH_USAGE', message: /to be encrypted/}, 'whoever asks for it gets it or nothing')
  await t.rejects(createBackup(source, open(t, B), {...base, volume: 'new', snapshot: 's1', compressionMethod: `lz4+aes-256-gcm+${A.id}`}), {code: 'LH_USAGE'})
  t.notOk(readdirSync(t.testdirName).some(name => name.includes('partial')))
})

t.test('another key, then no old one any more', async t => {
  t.testdir()
  const volume = new MemoryVolume(4 * BLOCK)
  volume.write(0, randomBytes(BLOCK))
  const one = volume.snapshot('s1')
  await createBackup(one, open(t), {...base, backup: 'plain', snapshot: 's1'})
  volume.write(BLOCK, randomBytes(10))
  const two = volume.snapshot('s2')
  t.match(await createBackup(two, open(t, A), {...base, backup: 'with-a', snapshot: 's2'}), {isIncremental: false}, 'nothing of it may be what is there in clear')
  volume.write(BLOCK, randomBytes(10))
  const three = volume.snapshot('s3')
  t.match(await createBackup(three, open(t, B, A), {...base, backup: 'with-b', snapshot: 's3'}), {isIncremental: false})
  volume.write(BLOCK, randomBytes(10))
  const four = volume.snapshot('s4')
  t.match(await createBackup(four, open(t, B), {...base, backup: 'again-b', snapshot: 's4'}), {isIncremental: true})
  const both = open(t, B, A)
  t.ok((await restored(t, both, 'plain')).equals(one.image))
  t.ok((await restored(t, both, 'with-a')).equals(two.image))
  t.ok((await restored(t, both, 'with-b')).equals(three.image))
  t.ok((await restored(t, open(t, B), 'again-b')).equals(four.image))
  t.match(await verifyBackups(both, {...base, sample: 1}), {backups: 4, findings: []})
  t.ok((await restored(t, open(t), 'plain')).equals(one.image), 'what is in clear is read by anybody')
  await t.rejects(restored(t, open(t, B), 'with-a'), {code: 'LH_USAGE', message: new RegExp(A.id)})
  t.match(await removeBackups(open(t), {volume: 'vol', backups: ['plain', 'with-a'], settleMs}), {blocksKept: undefined})
  t.match(await verifyBackups(open(t, B), {...base, sample: 1}), {backups: 2, findings: []})
})

t.test('what was tampered with is found', async t => {
  t.testdir()
  const store = open(t, A)
  const volume = new MemoryVolume(4 * BLOCK)
  volume.write(0, randomBytes(2 * BLOCK))
  await createBackup(volume.snapshot('s1'), store, {...base, backup: 'b1', snapshot: 's1'})
  const [one, two] = (await loadBackup(store, 'vol', 'b1')).blocks.map(({sum}) => blockKey('vol', sum)) as [string, string]
  const first = await store.get(one, 1e8)
  // One block in the place of another: whole, of this volume, with the right key.
  await store.put(one, await store.get(two, 1e8))
  t.match((await verifyBackups(store, {...base, sample: 1})).findings, [{backup: 'b1', problem: /another block/}])
  await t.rejects(restored(t, store, 'b1'), {code: 'LH_CORRUPT'})
  const flipped = Buffer.from(first)
  flipped[100_000]! ^= 1
  await store.put(one, flipped)
  await t.rejects(restored(t, store, 'b1'), {code: 'LH_CORRUPT', message: /was changed/})
  await createBackup(volume.snapshot('s2'), store, {...base, backup: 'b2', snapshot: 's2', full: true})
  t.match(await verifyBackups(store, {...base, sample: 1}), {findings: []}, 'a full backup repairs it')
})

t.test('copies stay what they are', async t => {
  t.testdir()
  const volume = new MemoryVolume(4 * BLOCK)
  volume.write(0, randomBytes(2 * BLOCK))
  const source = volume.snapshot('s1')
  await createBackup(source, open(t, A), {...base, backup: 'b1', snapshot: 's1'})
  const root = join(t.testdirName, 'other')
  t.match(await copyBackup(open(t), openAt(root), {...base, backup: 'b1'}), {blocks: 2}, 'without the key')
  t.ok((await restored(t, openAt(root, A), 'b1')).equals(source.image))
  const third = join(t.testdirName, 'third')
  await copyBackup(openAt(root, A), openAt(third, B), {...base, backup: 'b1'})
  t.ok((await restored(t, openAt(third, A), 'b1')).equals(source.image), 'with it: checked, and under the same key')
  t.equal((await loadVolume(openAt(third), 'vol')).compressionMethod, `lz4+aes-256-gcm+${A.id}`)

  const plain = join(t.testdirName, 'plain')
  await createBackup(source, openAt(plain), {...base, backup: 'b0', snapshot: 's1'})
  await t.rejects(copyBackup(openAt(plain), openAt(third, A), {...base, backup: 'b0'}), {code: 'LH_USAGE', message: /is encrypted in/})
  await copyBackup(openAt(third), openAt(plain), {...base, backup: 'b1'})
  t.ok((await restored(t, openAt(plain, A), 'b1')).equals(source.image))
  t.ok((await restored(t, openAt(plain), 'b0')).equals(source.image))
  await t.rejects(createBackup(source, openAt(plain), {...base, snapshot: 's1'}), {code: 'LH_USAGE'}, 'it is an encrypted volume from then on')

  const [block] = await listed(openAt(root), blocksFolder('vol'))
  await openAt(root).put(block!.key, randomBytes(block!.sizeBytes))
  await t.rejects(copyBackup(openAt(root), openAt(join(t.testdirName, 'fourth')), {...base, backup: 'b1'}), {code: 'LH_CORRUPT', message: /no encrypted block/})
})

t.test('what the first version wrote is read', async t => {
  const root = join(t.testdir(), 'store')
  cpSync(FIXTURE, root, {recursive: true})
  const store = openAt(root, BackupKey.from(Buffer.from(Array.from({length: 32}, (_, index) => index))))
  for (const volume of ['enc-lz4', 'enc-gzip']) {
    const image = Buffer.alloc(8 * 2 ** 20)
    image.write('kept since the first version, '.repeat(1000) + volume, 3 * 2 ** 20)
    image.fill('x', 7 * 2 ** 20, 7 * 2 ** 20 + 4096)
    const file = join(t.testdirName, volume)
    await restoreToFile(store, file, {...base, volume, backup: 'b1'})
    t.ok(image.equals(readFileSync(file)), volume)
  }
})
