import {randomBytes} from 'node:crypto'
import {existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync} from 'node:fs'
import {readFile} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {setTimeout as delay} from 'node:timers/promises'
import t, {type Test} from 'tap'
import {listBackups} from '../../src/backup/catalog.js'
import {createBackup} from '../../src/backup/create.js'
import {removeBackups} from '../../src/backup/remove.js'
import {restoreToFile} from '../../src/backup/restore-file.js'
import type {BackupStore} from '../../src/backup/store/backup-store.js'
import {openStore} from '../../src/backup/store/open-store.js'
import {parseTargetUrl} from '../../src/backup/target-url.js'
import {verifyBackups} from '../../src/backup/verify.js'
import {MemoryVolume} from '../backup/memory-volume.js'
import {storeContract} from '../backup/store/store-contract.js'
import {mountSmall} from '../replica/support/small-file-system.js'
import {longhorn} from '../cli/run-program.js'
import {startEngine, startReplica} from '../support/daemons.js'
import {FramePeer} from '../support/frames.js'
import {shortDir} from '../support/short-dir.js'
import {dial} from '../support/sockets.js'
import {Ganesha, ganeshaMissing} from './support/ganesha.js'

const MIB = 2 ** 20
const skip = await ganeshaMissing()
const options = {volume: 'vol', concurrency: 5, settleMs: 2000}
let stores = 0

/** A new directory of the server, as a store. */
async function open(t: Test, server: Ganesha, exported: string, more = ''): Promise<BackupStore> {
  const name = `store-${stores++}`
  mkdirSync(join(exported, name))
  const store = await openStore(parseTargetUrl(server.url(`/${name}`, more)), {env: {}})
  t.teardown(() => store.close())
  return store
}

function exportedFolder(t: Test): string {
  // The server needs handles of files, which not every file system has that temporary directories are on; memory has them.
  const base = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()
  const folder = mkdtempSync(join(base, 'longhorn-nfs-'))
  t.teardown(() => rmSync(folder, {recursive: true, force: true}))
  return folder
}

function leftovers(folder: string): string[] {
  return readdirSync(folder, {recursive: true, encoding: 'utf8'}).filter(name => name.includes('.tmp.'))
}

t.test('a real NFS server', {skip}, async t => {
  const exported = exportedFolder(t)
  const server = await Ganesha.start(t, exported)
  await t.test('keeps the contract', async t => storeContract(t, async t => open(t, server, exported)))

  await t.test('backups', async t => {
    const store = await open(t, server, exported)
    const volume = new MemoryVolume(32 * MIB)
    for (const round of [1, 2, 3]) {
      volume.write(round * 5_000_000, randomBytes(4_000_000))
      const made = await createBackup(volume.snapshot(`s${round}`), store, {...options, backup: `b${round}`, snapshot: `s${round}`})
      t.equal(made.url, `nfs://127.0.0.1:/export/store-${stores - 1}?backup=b${round}&nfsOptions=port=${server.port}&volume=vol`)
    }
    t.match(await removeBackups(store, {volume: 'vol', backups: ['b2'], settleMs: 2000}), {backups: ['b2'], blocksKept: undefined})
    t.match(await verifyBackups(store, {...options, sample: 1}), {backups: 2, findings: []})
    const file = join(t.testdir(), 'restored')
    await restoreToFile(store, file, {...options, backup: 'b3'})
    t.ok(volume.image.equals(readFileSync(file)))
    t.same(leftovers(exported), [])
  })

  await t.test('a volume, through its replica, encrypted', async t => {
    const folder = shortDir(t)
    const sizeBytes = 8 * MIB
    const replica = await startReplica(t, join(folder, 'one'), sizeBytes)
    const socket = join(folder, 'vol.sock')
    const engine = await startEngine(t, {sizeBytes, replicas: [replica.address], socket})
    const env = {LONGHORN_ENGINE: engine.address, LONGHORN_BACKUP_KEY: randomBytes(32).toString('base64')}
    const data = randomBytes(100 * 1024)
    const peer = new FramePeer(await dial({kind: 'unix', path: socket}))
    t.teardown(() => peer.socket.destroy())
    peer.send({type: 1, offset: 4096n, size: data.length, payload: data})
    t.equal((await peer.next()).type, 2)
    const {name: volume} = JSON.parse((await longhorn(['volume', 'info', '--json'], env)).stdout) as {name: string}
    mkdirSync(join(exported, 'of-replica'))
    const made = await longhorn(['backup', 'create', volume, '--dest', server.url('/of-replica'), '--json', '--quiet'], env)
    t.match(made, {exitCode: 0, stderr: ''})
    const {url} = JSON.parse(made.stdout) as {url: string}
    t.match(url, new RegExp(`^nfs://127\\.0\\.0\\.1:/export/of-replica\\?backup=.*&nfsOptions=port=${server.port}&volume=${volume}$`))
    const image = join(folder, 'restored.img')
    t.match(await longhorn(['backup', 'restore', url, '--to-file', image], env), {exitCode: 0})
    t.ok(readFileSync(image).subarray(4096, 4096 + data.length).equals(data))
    t.match(await longhorn(['backup', 'restore', url, '--to-file', `${image}.2`]), {exitCode: 2, stderr: /is encrypted/})
  })

  await t.test('what it does not have', async t => {
    await t.rejects(openStore(parseTargetUrl(server.url('/no-such')), {env: {}}), {code: 'LH_USAGE', message: /no-such.*NOENT/})
    const store = await open(t, server, exported)
    await store.put('backupstore/v', Buffer.from('a file where a directory should be'))
    await t.rejects(store.head('backupstore/v/x'), {code: 'LH_IO', message: /NOTDIR/})
    await t.rejects(store.children('backupstore/v/'), {code: 'LH_IO'})
    await t.rejects(store.put('backupstore/v/x', Buffer.from('x')), {code: 'LH_IO'})
  })

  await t.test('a restart between two operations is not noticed', async t => {
    const store = await open(t, server, exported)
    await store.put('backupstore/x', Buffer.from('x'))
    await server.kill()
    await server.run()
    t.equal((await store.get('backupstore/x', 10)).toString(), 'x')
    await store.put('backupstore/x', Buffer.from('y'))
    t.equal((await store.get('backupstore/x', 10)).toString(), 'y')
  })

  await t.test('killed and restarted in the middle of a backup: the backup goes on', async t => {
    const store = await open(t, server, exported)
    const volume = new MemoryVolume(64 * MIB)
    volume.write(0, randomBytes(48 * MIB))
    const source = volume.snapshot('s1')
    let restarted: Promise<void> | undefined
    source.beforeRead = offset => {
      if (offset !== 16 * MIB) return
      restarted = (async () => {
        await server.kill()
        await server.run()
      })()
    }
    await createBackup(source, store, {...options, backup: 'b1', snapshot: 's1'})
    await restarted
    t.match(await verifyBackups(store, {...options, sample: 1}), {backups: 1, findings: []})
    const file = join(t.testdir(), 'restored')
    await restoreToFile(store, file, {...options, backup: 'b1'})
    t.ok(volume.image.equals(readFileSync(file)))
    t.same(leftovers(exported), [])
  })

  await t.test('a server that stands still is a clear error in bounded time, and nothing half is listed', async t => {
    const store = await open(t, server, exported, ',timeo=20')
    const volume = new MemoryVolume(32 * MIB)
    volume.write(0, randomBytes(16 * MIB))
    const source = volume.snapshot('s1')
    source.beforeRead = async offset => {
      if (offset === 8 * MIB) await server.suspend()
    }
    let reads = 0
    let waiting = true
    const reading = (async () => {
      for (; waiting; reads++, await delay(5)) await readFile(import.meta.filename)
    })()
    try {
      await t.rejects(createBackup(source, store, {...options, backup: 'b1', snapshot: 's1'}), {code: 'LH_TIMEOUT', message: /has not answered for 2 s/})
      t.ok(reads > 100, 'meanwhile files of this machine were read: no thread waits for the server')
    } finally {
      waiting = false
      await reading
      server.resume()
    }
    const again = await openStore(parseTargetUrl(`${store.url}`), {env: {}})
    t.teardown(() => again.close())
    for (const name of await listBackups(again, 'vol')) {
      await t.rejects(restoreToFile(again, join(t.testdir(), 'x'), {...options, backup: name}), {code: 'LH_BUSY'}, 'a record without a time is no backup')
    }
    source.beforeRead = () => undefined
    await createBackup(source, again, {...options, backup: 'b2', snapshot: 's1'})
    t.match(await verifyBackups(again, {...options, backup: 'b2', sample: 1}), {backups: 1, findings: []})
  })

  await t.test('nobody has to wait for a server that stands still', async t => {
    const store = await open(t, server, exported)
    await store.put('backupstore/x', Buffer.from('x'))
    await server.suspend()
    try {
      for (const what of ['over the connection that there is', 'over a new one']) {
        const stop = new AbortController()
        const waiting = store.head('backupstore/x', stop.signal)
        setImmediate(() => stop.abort(new Error('enough')))
        await t.rejects(waiting, /enough/, what)
      }
    } finally {
      server.resume()
    }
    t.equal((await store.head('backupstore/x'))?.sizeBytes, 1)
  })

  await t.test('a server that is gone for good', async t => {
    const store = await open(t, server, exported)
    await server.kill()
    await t.rejects(openStore(parseTargetUrl(store.url), {env: {}}), {code: 'LH_UNREACHABLE'}, 'told at once')
    const stop = new AbortController()
    const waiting = store.head('backupstore/x', stop.signal)
    stop.abort(new Error('enough'))
    await t.rejects(waiting, /enough/, 'nobody has to wait for it')
    await server.run()
    t.equal(await store.head('backupstore/x'), undefined)
  })
})

t.test('a full disk', {skip}, async t => {
  const small = mountSmall(t, 'ext4', 24)
  if (small === undefined) return
  const server = await Ganesha.start(t, small)
  const store = await open(t, server, small)
  const volume = new MemoryVolume(64 * MIB)
  volume.write(0, randomBytes(8 * MIB))
  await createBackup(volume.snapshot('s1'), store, {...options, backup: 'b1', snapshot: 's1'})
  volume.write(0, randomBytes(40 * MIB))
  await t.rejects(createBackup(volume.snapshot('s2'), store, {...options, backup: 'b2', snapshot: 's2'}), {code: 'LH_NO_SPACE', message: /NOSPC/})
  t.same(await listBackups(store, 'vol'), ['b1'])
  t.same(leftovers(small), [])
  t.match(await verifyBackups(store, {...options, sample: 1}), {backups: 1, findings: []})
  t.match(await removeBackups(store, {volume: 'vol', backups: [], settleMs: 2000}), {blocksKept: undefined})
})
