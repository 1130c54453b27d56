// Several programs on one store at once: backups, deletions and checks of the same volume, owners that died, and clocks.
import {randomBytes} from 'node:crypto'
import {readFileSync, utimesSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {listBackups} from '../../src/backup/catalog.js'
import {createBackup} from '../../src/backup/create.js'
import {blocksFolder, locksFolder, oneBackupFolder} from '../../src/backup/format/store-layout.js'
import {removeBackups} from '../../src/backup/remove.js'
import {restoreToFile} from '../../src/backup/restore-file.js'
import {LOCK, StoreLock} from '../../src/backup/store-lock.js'
import type {BackupStore, Folder, StoredObject} from '../../src/backup/store/backup-store.js'
import {VfsStore} from '../../src/backup/store/vfs.js'
import {verifyBackups} from '../../src/backup/verify.js'
import {isKind} from '../../src/lib/errors.js'
import {FaultyStore, listed} from './faulty-store.js'
import {MemoryVolume} from './memory-volume.js'

const BLOCK = 2 * 1024 ** 2
const settleMs = 40
const base = {volume: 'vol', concurrency: 2, settleMs}

function open(t: Test): VfsStore {
  const root = join(t.testdir(), 'store')
  return new VfsStore(root, `vfs://${root}`)
}

/** Makes a lock as old as if its owner had been killed so many seconds ago. */
function age(store: VfsStore, key: string, seconds: number): void {
  const then = Date.now() / 1000 - seconds
  utimesSync(join(store.root, key), then, then)
}

t.test('the locks of an owner that was killed count for 150 s, and not longer', async t => {
  const store = open(t)
  for (const [type, folder, other] of [[LOCK.CREATE_OR_RESTORE, locksFolder('vol'), LOCK.DELETE], [LOCK.DELETE, locksFolder('vol'), LOCK.CREATE_OR_RESTORE], [LOCK.ONE_BACKUP, oneBackupFolder('vol'), LOCK.ONE_BACKUP]] as const) {
    const key = `${folder}lock-00000000deadbeef.lck`
    await store.put(key, Buffer.from(JSON.stringify({Name: 'lock-00000000deadbeef', Type: type, Acquired: true})))
    for (const seconds of [1, 60, 120, 145]) {
      age(store, key, seconds)
      await t.rejects(StoreLock.take(store, 'vol', other, {settleMs}), {code: 'LH_BUSY'}, `${seconds} s after the last sign of life`)
    }
    age(store, key, 151)
    await StoreLock.take(store, 'vol', other, {settleMs}).then(lock => lock.close())
    await store.remove(key)
  }
})

t.test('it is the clock of the store that counts, however wrong that of this machine is', async t => {
  const real = open(t)
  const key = `${locksFolder('vol')}lock-00000000deadbeef.lck`
  for (const aheadMs of [-86_400_000, 86_400_000]) {
    const store = new ShiftedStore(real, aheadMs)
    await real.put(key, Buffer.from('{"Name":"lock-00000000deadbeef","Type":1,"Acquired":true}'))
    await t.rejects(StoreLock.take(store, 'vol', LOCK.DELETE, {settleMs}), {code: 'LH_BUSY'}, 'a fresh one is fresh')
    age(real, key, 200)
    await StoreLock.take(store, 'vol', LOCK.DELETE, {settleMs}).then(lock => lock.close())
  }
})

t.test('one that was taken for dead stops before it does harm', async t => {
  const store = open(t)
  const volume = new MemoryVolume(8 * BLOCK)
  volume.write(0, randomBytes(8 * BLOCK))
  const source = volume.snapshot('s1')
  const wall = Date.now.bind(Date)
  t.teardown(() => (Date.now = wall))
  // The process is suspended in the middle; what wakes up finds that two minutes have gone.
  source.beforeRead = offset => {
    if (offset === 4 * BLOCK) Date.now = () => wall() + 125_000
  }
  await t.rejects(createBackup(source, store, {...base, backup: 'b1', snapshot: 's1'}), {code: 'LH_BUSY', message: /was not kept up for 125 s \(this process stood still\)/})
  Date.now = wall
  t.same(await listBackups(store, 'vol'), [], 'and lists nothing')
})

t.test('an owner that died is taken over from without loss', async t => {
  const store = open(t)
  const volume = new MemoryVolume(8 * BLOCK)
  volume.write(0, randomBytes(8 * BLOCK))
  const source = volume.snapshot('s1')
  // What dies neither gives its locks back nor removes its record.
  let puts = 0
  const dying = new FaultyStore(store, (call, key) => {
    if (call === 'put' && key.endsWith('.blk')) puts++
    if (puts > 3) throw new Error('killed')
  })
  await t.rejects(createBackup(source, dying, {...base, backup: 'b1', snapshot: 's1', exclusive: true}), /killed/)
  const locks = [...(await listed(store, locksFolder('vol'))), ...(await listed(store, oneBackupFolder('vol')))]
  t.equal(locks.length, 2)
  t.same(await listBackups(store, 'vol'), ['b1'])
  await t.rejects(createBackup(source, store, {...base, backup: 'b2', snapshot: 's1', exclusive: true}), {code: 'LH_BUSY'}, 'not before')
  await t.rejects(removeBackups(store, {volume: 'vol', backups: [], settleMs}), {code: 'LH_BUSY'})
  for (const {key} of locks) age(store, key, 151)
  const counting = new FaultyStore(store)
  await createBackup(source, counting, {...base, backup: 'b2', snapshot: 's1', exclusive: true})
  t.match(await removeBackups(store, {volume: 'vol', backups: [], settleMs}), {blocksKept: /b1 is still in progress/}, 'its record protects what it may have stored')
  t.match(await removeBackups(store, {volume: 'vol', backups: ['b1'], settleMs}), {backups: ['b1'], blocksKept: undefined})
  t.match(await verifyBackups(store, {...base, sample: 1}), {backups: 1, findings: []})
})

t.test('two clusters: backups, deletions and checks of the same volume at once', async t => {
  const root = open(t)
  // Each has its own idea of the directories that exist.
  const stores = Array.from({length: 3}, () => new VfsStore(root.root, root.url))
  const volume = new MemoryVolume(6 * BLOCK)
  volume.write(0, randomBytes(6 * BLOCK))
  await createBackup(volume.snapshot('s0'), root, {...base, backup: 'b-first', snapshot: 's0'})
  const images = new Map<string, Buffer>()
  let refused = 0
  const orBusy = async (work: () => Promise<unknown>): Promise<boolean> => {
    try {
      await work()
      return true
    } catch (error) {
      if (!isKind(error, 'BUSY')) throw error
      refused++
      return false
    }
  }
  let snapshots = 0
  const creator = async (store: BackupStore, who: string): Promise<void> => {
    for (let round = 0; round < 6; round++) {
      volume.write((round % 6) * BLOCK, randomBytes(5000))
      const source = volume.snapshot(`s-${++snapshots}`)
      const backup = `b-${who}-${round}`
      if (await orBusy(() => createBackup(source, store, {...base, backup, snapshot: `s-${snapshots}`}))) images.set(backup, source.image)
    }
  }
  const remover = async (store: BackupStore): Promise<void> => {
    for (let round = 0; round < 12; round++) {
      const [oldest] = images.keys()
      if (oldest !== undefined && images.size > 1 && (await orBusy(() => removeBackups(store, {volume: 'vol', backups: [oldest], settleMs})))) images.delete(oldest)
      const [first] = await listBackups(store, 'vol')
      if (first === undefined) continue
      const {findings} = await verifyBackups(store, {...base, sample: 1})
      t.same(findings, [], 'what is listed can be restored at every moment')
    }
  }
  await Promise.all([creator(stores[0]!, 'one'), creator(stores[1]!, 'two'), remover(stores[2]!)])
  t.comment(`${images.size} backups are left, ${refused} times somebody was told to wait`)
  // As nobody else is there, what was refused works now.
  t.match(await removeBackups(root, {volume: 'vol', backups: ['b-first'], settleMs}), {blocksKept: undefined})
  for (const [backup, image] of images) {
    const file = join(t.testdirName, backup)
    await restoreToFile(root, file, {...base, backup})
    t.ok(image.equals(readFileSync(file)), backup)
  }
  if (images.size > 0) {
    const {blocks, findings} = await verifyBackups(root, {...base, sample: 1})
    t.same(findings, [])
    t.equal((await listed(root, blocksFolder('vol'))).length, blocks, 'and nothing is left over')
  }
})

/** A store whose clock differs from this machine's. */
class ShiftedStore extends FaultyStore {
  constructor(
    real: BackupStore,
    readonly aheadMs: number,
  ) {
    super(real)
  }

  override async children(folder: string, signal?: AbortSignal): Promise<Folder> {
    const {folders, objects} = await super.children(folder, signal)
    return {folders, objects: objects.map((object): StoredObject => ({...object, modifiedMs: object.modifiedMs + this.aheadMs}))}
  }
}
