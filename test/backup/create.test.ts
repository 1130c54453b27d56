import {randomBytes, randomInt} from 'node:crypto'
import {readFileSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import type {BlockSource} from '../../src/backup/block-source.js'
import {listBackups, loadBackup, loadVolume} from '../../src/backup/catalog.js'
import {copyBackup} from '../../src/backup/copy.js'
import {createBackup, startBackup, type CreateOptions} from '../../src/backup/create.js'
import {blocksFolder} from '../../src/backup/format/store-layout.js'
import {removeBackups} from '../../src/backup/remove.js'
import {restoreToFile} from '../../src/backup/restore-file.js'
import type {BackupStore} from '../../src/backup/store/backup-store.js'
import {VfsStore} from '../../src/backup/store/vfs.js'
import {verifyBackups} from '../../src/backup/verify.js'
import {FaultyStore, listed} from './faulty-store.js'
import {MemoryVolume} from './memory-volume.js'
import {copyUpstreamStore} from './upstream-store.js'

const BLOCK = 2 * 1024 ** 2
const settleMs = 10
const base = {volume: 'vol', concurrency: 3, settleMs}

function open(t: Test): VfsStore {
  const root = join(t.testdir(), 'store')
  return new VfsStore(root, `vfs://${root}`)
}

let files = 0
async function restored(t: Test, store: BackupStore, backup: string, volume = 'vol'): Promise<Buffer> {
  const file = join(t.testdirName, `restored-${files++}`)
  await restoreToFile(store, file, {volume, backup, concurrency: 2, settleMs})
  return readFileSync(file)
}

async function blocksOf(store: BackupStore, volume = 'vol'): Promise<number> {
  let count = 0
  for await (const {key} of store.list(blocksFolder(volume))) count += Number(key.endsWith('.blk'))
  return count
}

t.test('full, then only what was written since', async t => {
  const store = open(t)
  const volume = new MemoryVolume(8 * BLOCK)
  volume.write(0, randomBytes(3 * BLOCK))
  volume.write(6 * BLOCK + 5000, Buffer.from('alone'))
  const one = volume.snapshot('s1')
  const first = await createBackup(one, store, {...base, backup: 'b1', snapshot: 's1', labels: {a: 'b'}})
  t.match(first, {backup: 'b1', url: `${store.url}?backup=b1&volume=vol`, isIncremental: false, progress: {blocks: 4, totalBlocks: 4}})
  volume.write(BLOCK, randomBytes(100))
  const two = volume.snapshot('s2')
  t.match(await createBackup(two, store, {...base, backup: 'b2', snapshot: 's2'}), {isIncremental: true, progress: {totalBlocks: 1}})
  t.equal(two.bytesRead, BLOCK)
  t.ok((await restored(t, store, 'b1')).equals(one.image))
  t.ok((await restored(t, store, 'b2')).equals(two.image))
  t.match(await loadVolume(store, 'vol'), {sizeBytes: 8 * BLOCK, lastBackupName: 'b2', blockCount: 5, compressionMethod: 'lz4', dataEngine: 'v1'})
  t.match(await loadBackup(store, 'vol', 'b2'), {sizeBytes: 4 * BLOCK, isIncremental: true, parameters: {'backup-block-size': String(BLOCK)}})
})

t.test('what makes a base useless', async t => {
  const store = open(t)
  const volume = new MemoryVolume(4 * BLOCK)
  volume.write(0, randomBytes(BLOCK))
  await createBackup(volume.snapshot('s1', '2020-01-01T00:00:00Z'), store, {...base, backup: 'b1', snapshot: 's1'})
  const start = async (snapshot: string, more: Partial<CreateOptions> = {}, created?: string): Promise<boolean> => {
    const source = volume.snapshot(snapshot, created)
    const {isIncremental, run} = await startBackup(source, store, {...base, snapshot, ...more})
    const {backup} = await run()
    t.ok((await restored(t, store, backup)).equals(source.image), snapshot)
    return isIncremental
  }
  volume.write(0, randomBytes(10))
  t.equal(await start('s2', {blockBytes: 8 * BLOCK}), false, 'blocks of another size')
  volume.write(5000, randomBytes(10))
  t.equal(await start('s3'), false, 'and back')
  volume.write(9000, randomBytes(10))
  t.equal(await start('s4'), true)
  volume.purge('s4')
  t.equal(await start('s5'), false, 'its snapshot is gone')
  volume.purge('s5')
  volume.write(100, randomBytes(10))
  volume.snapshot('s5', '2999-01-01T00:00:00Z')
  volume.write(100, randomBytes(10))
  t.equal(await start('s6'), false, 'a younger snapshot of the same name')
  t.equal(await start('s7', {full: true}), false, 'asked for')
})

t.test('a failure lists nothing, and the next one sends only what is missing', async t => {
  const real = open(t)
  const volume = new MemoryVolume(16 * BLOCK)
  volume.write(0, randomBytes(12 * BLOCK))
  const source = volume.snapshot('s1')
  let puts = 0
  const store = new FaultyStore(real, (call, key) => {
    if (call === 'put' && key.endsWith('.blk') && ++puts === 8) throw new Error('unplugged')
  })
  await t.rejects(createBackup(source, store, {...base, backup: 'b1', snapshot: 's1'}), /unplugged/)
  t.same((await real.children('backupstore/volumes/')).folders.length, 1)
  await t.rejects(loadBackup(real, 'vol', 'b1'), {code: 'LH_NOT_FOUND'})
  const there = await blocksOf(real)
  t.ok(there >= 5, `${there} blocks are there`)
  puts = -1000
  await createBackup(source, store, {...base, backup: 'b1', snapshot: 's1'})
  t.equal(puts + 1000, 12 - there)
  t.ok((await restored(t, real, 'b1')).equals(source.image))
})

t.test('cancelled in the middle', async t => {
  const store = open(t)
  const volume = new MemoryVolume(16 * BLOCK)
  volume.write(0, randomBytes(12 * BLOCK))
  const source = volume.snapshot('s1')
  const stop = new AbortController()
  source.beforeRead = offset => {
    if (offset === 6 * BLOCK) stop.abort(new Error('enough'))
  }
  await t.rejects(createBackup(source, store, {...base, backup: 'b1', snapshot: 's1', signal: stop.signal}), /enough/)
  await t.rejects(loadBackup(store, 'vol', 'b1'), {code: 'LH_NOT_FOUND'})
  t.equal((await removeBackups(store, {volume: 'vol', backups: [], settleMs})).blocksKept, undefined)
  t.equal(await blocksOf(store), 0)
})

t.test('while it runs it is no backup, and nothing is removed', async t => {
  const store = open(t)
  const volume = new MemoryVolume(4 * BLOCK)
  volume.write(0, randomBytes(BLOCK))
  await createBackup(volume.snapshot('s0'), store, {...base, backup: 'b0', snapshot: 's0'})
  volume.write(0, randomBytes(BLOCK))
  const source = volume.snapshot('s1')
  source.beforeRead = async () => {
    t.match(await loadBackup(store, 'vol', 'b1'), {createdTime: ''})
    await t.rejects(restoreToFile(store, join(t.testdirName, 'x'), {...base, backup: 'b1'}), {code: 'LH_BUSY'})
    await t.rejects(removeBackups(store, {volume: 'vol', backups: ['b0'], settleMs}), {code: 'LH_BUSY'})
    await t.rejects(createBackup(source, store, {...base, snapshot: 's1', exclusive: true}), {code: 'LH_BUSY', message: /being backed up/})
  }
  await createBackup(source, store, {...base, backup: 'b1', snapshot: 's1', exclusive: true})
  t.ok((await restored(t, store, 'b0')).length > 0)
})

t.test('nothing is overwritten: names, and the compression of the volume', async t => {
  const store = copyUpstreamStore(t)
  const volume = new MemoryVolume(8 * BLOCK)
  volume.write(0, Buffer.from('x'))
  const source = volume.snapshot('s9')
  await t.rejects(createBackup(source, store, {...base, volume: 'ix-gzip', backup: 'ix-gzip-s1', snapshot: 's9'}), {code: 'LH_CONFLICT'})
  await createBackup(source, store, {...base, volume: 'ix-gzip', backup: 'ours', snapshot: 's9', compressionMethod: 'lz4'})
  t.match(await loadBackup(store, 'ix-gzip', 'ours'), {compressionMethod: 'gzip', isIncremental: false})
  await t.rejects(createBackup(source, store, {...base, volume: 'ix-failed', snapshot: 's9'}), {code: 'LH_UNSUPPORTED', message: /zstd/})
  await t.rejects(createBackup(source, store, {...base, volume: 'new', snapshot: 's9', compressionMethod: 'zstd'}), {code: 'LH_UNSUPPORTED'})
  await t.rejects(loadVolume(store, 'new'), {code: 'LH_NOT_FOUND'})
})

t.test('a volume that ends within a block, and an empty one', async t => {
  const store = open(t)
  const volume = new MemoryVolume(BLOCK + 512 * 1024)
  volume.write(BLOCK + 512 * 1024 - 4096, randomBytes(4096))
  const source = volume.snapshot('s1')
  await createBackup(source, store, {...base, backup: 'b1', snapshot: 's1'})
  t.ok((await restored(t, store, 'b1')).equals(source.image))
  const empty = new MemoryVolume(BLOCK).snapshot('s1')
  await createBackup(empty, store, {...base, volume: 'empty', backup: 'b1', snapshot: 's1'})
  t.ok((await restored(t, store, 'b1', 'empty')).equals(empty.image))
  t.equal(await blocksOf(store, 'empty'), 0)
})

t.test('full repairs blocks that are damaged in the store', async t => {
  const store = open(t)
  const volume = new MemoryVolume(4 * BLOCK)
  volume.write(0, randomBytes(2 * BLOCK))
  const source = volume.snapshot('s1')
  await createBackup(source, store, {...base, backup: 'b1', snapshot: 's1'})
  const [block] = await listed(store, blocksFolder('vol'))
  await store.put(block!.key, Buffer.alloc(0))
  t.equal((await verifyBackups(store, {...base, sample: 1})).findings.length, 1)
  await createBackup(source, store, {...base, backup: 'b2', snapshot: 's1'})
  t.equal((await verifyBackups(store, {...base, sample: 1})).findings.length, 0, 'an empty object is not taken for a block')
  await store.put(block!.key, randomBytes(block!.sizeBytes))
  await createBackup(source, store, {...base, backup: 'b3', snapshot: 's1', full: true})
  t.equal((await verifyBackups(store, {...base, sample: 1})).findings.length, 0)
  t.ok((await loadBackup(store, 'vol', 'b3')).reuploadedBytes > 0)
})

t.test('many rounds of writing, backing up, removing and copying', async t => {
  const seed = randomInt(2 ** 31)
  t.comment(`seed ${seed}`)
  const store = open(t)
  const other = new VfsStore(join(t.testdirName, 'other'), 'vfs:///other')
  const volume = new MemoryVolume(8 * BLOCK)
  const images = new Map<string, Buffer>()
  let random = seed
  const upTo = (limit: number): number => (random = (random * 48271 + 11) % 2147483647) % limit
  for (let round = 0; round < 20; round++) {
    for (let writes = upTo(4); writes > 0; writes--) {
      const length = 1 + upTo(BLOCK)
      const data = upTo(3) === 0 ? Buffer.alloc(length) : Buffer.alloc(length, `pattern ${upTo(4)}`)
      volume.write(upTo(volume.image.length - length), data)
    }
    const source = volume.snapshot(`s${round}`)
    await createBackup(source, store, {...base, backup: `b-${round}`, snapshot: `s${round}`, full: upTo(6) === 0})
    images.set(`b-${round}`, source.image)
    if (upTo(3) === 0) volume.purge(`s${round}`)
    if (upTo(2) === 0) {
      const names = [...images.keys()].filter(() => upTo(3) === 0)
      const {blocksKept} = await removeBackups(store, {volume: 'vol', backups: names, settleMs})
      t.equal(blocksKept, undefined)
      for (const name of names) images.delete(name)
      const {findings, blocks} = images.size === 0 ? {findings: [], blocks: 0} : await verifyBackups(store, {...base, sample: 1})
      t.same(findings, [])
      t.equal(await blocksOf(store), blocks, 'no orphans')
      t.equal((await loadVolume(store, 'vol')).blockCount, blocks)
    }
  }
  for (const [name, image] of images) {
    if (!(await restored(t, store, name)).equals(image)) t.fail(`${name} differs`)
    await copyBackup(store, other, {...base, backup: name})
    if (!(await restored(t, other, name)).equals(image)) t.fail(`the copy of ${name} differs`)
  }
  await t.rejects(copyBackup(store, other, {...base, backup: [...images.keys()][0]!}), {code: 'LH_CONFLICT'})
})

t.test('more blocks than a record can list are refused before anything is sent', async t => {
  const tib = 1024 ** 4
  const source: BlockSource = {
    sizeBytes: 64 * tib,
    read: async () => void t.fail('nothing is read'),
    allocated: () => [{offset: 0, length: 64 * tib}],
    changedSince: () => undefined,
  }
  const root = t.testdir()
  const store = new VfsStore(root, `vfs://${root}`)
  const create = createBackup(source, store, {volume: 'vol', snapshot: 's', backup: 'huge', concurrency: 1, settleMs: 10})
  await t.rejects(create, {code: 'LH_UNSUPPORTED', message: /33554432 blocks of 2 MiB, and one can have \d+: choose blocks of 16 MiB/})
  t.same(await listBackups(store, 'vol'), [])
})
