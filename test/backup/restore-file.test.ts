import {createHash, randomBytes} from 'node:crypto'
import {existsSync, readdirSync, readFileSync, statSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {openBackup} from '../../src/backup/catalog.js'
import {blockKey} from '../../src/backup/format/store-layout.js'
import {restoreToFile} from '../../src/backup/restore-file.js'
import {verifyBackups} from '../../src/backup/verify.js'
import {FaultyStore} from './faulty-store.js'
import {copyUpstreamStore, restoredSums} from './upstream-store.js'

const settleMs = 20

t.test('every backup of upstream restores to its sum', async t => {
  const store = copyUpstreamStore(t)
  const sums = restoredSums()
  t.equal(sums.length, 12)
  for (const {volume, backup, sizeBytes, sha256} of sums) {
    const file = join(t.testdirName, `${backup}.img`)
    const restored = await restoreToFile(store, file, {volume, backup, concurrency: 3, settleMs})
    t.equal(restored.sizeBytes, sizeBytes)
    t.equal(createHash('sha256').update(readFileSync(file)).digest('hex'), sha256, backup)
  }
  t.ok(statSync(join(t.testdirName, 'ix-lz4-s3.img')).blocks * 512 < 8 * 1024 ** 2, 'sparse')
  t.equal(statSync(join(t.testdirName, 'ix-empty-s1.img')).blocks, 0)
})

t.test('one that was never finished is refused, and so is one that is not there', async t => {
  const store = copyUpstreamStore(t)
  const file = join(t.testdirName, 'out.img')
  await t.rejects(restoreToFile(store, file, {volume: 'ix-failed', backup: 'ix-failed-s1', concurrency: 2, settleMs}), {code: 'LH_BUSY', message: /in progress/})
  await t.rejects(restoreToFile(store, file, {volume: 'ix-lz4', backup: 'nothing', concurrency: 2, settleMs}), {code: 'LH_NOT_FOUND', message: /cannot find/})
  t.same(readdirSync(t.testdirName), ['store'])
})

t.test('a file that exists is kept, and replaced only when asked to and complete', async t => {
  const store = copyUpstreamStore(t)
  const file = join(t.testdirName, 'out.img')
  writeFileSync(file, 'precious')
  const options = {volume: 'ix-none', backup: 'ix-none-s1', concurrency: 2, settleMs}
  await t.rejects(restoreToFile(store, file, options), {code: 'LH_CONFLICT'})
  const failing = new FaultyStore(store, (call, key) => {
    if (call === 'get' && key.endsWith('.blk')) throw new Error('cut off')
  })
  await t.rejects(restoreToFile(failing, file, {...options, force: true}), /cut off/)
  t.equal(readFileSync(file, 'utf8'), 'precious')
  await restoreToFile(store, file, {...options, force: true})
  t.equal(statSync(file).size, 8 * 1024 ** 2)
  t.same(readdirSync(t.testdirName).sort(), ['out.img', 'store'])
})

t.test('an interrupted one leaves nothing that looks complete', async t => {
  const store = copyUpstreamStore(t)
  const stop = new AbortController()
  const slow = new FaultyStore(store, (call, key) => {
    if (call === 'get' && key.endsWith('.blk')) stop.abort(new Error('enough'))
  })
  const file = join(t.testdirName, 'out.img')
  await t.rejects(restoreToFile(slow, file, {volume: 'ix-lz4', backup: 'ix-lz4-s3', concurrency: 2, settleMs, signal: stop.signal}))
  t.same(readdirSync(t.testdirName), ['store'])
})

t.test('damage is found, named, and never restored', async t => {
  const store = copyUpstreamStore(t)
  const {record} = await openBackup(store, 'ix-lz4', 'ix-lz4-s2')
  const clean = await verifyBackups(store, {volume: 'ix-lz4', sample: 1, concurrency: 3})
  t.match(clean, {backups: 3, findings: [], unfinished: []})
  t.equal(clean.read, clean.blocks)
  const [first, second] = record.blocks
  await store.put(blockKey('ix-lz4', first!.sum), randomBytes(1000))
  await store.remove(blockKey('ix-lz4', second!.sum))
  const {findings} = await verifyBackups(store, {volume: 'ix-lz4', backup: 'ix-lz4-s2', sample: 1, concurrency: 3})
  t.same(findings.map(({block}) => block).sort(), [first!.sum, second!.sum].sort())
  t.ok(findings.some(({problem}) => problem.includes('cannot find')))
  const file = join(t.testdirName, 'out.img')
  await t.rejects(restoreToFile(store, file, {volume: 'ix-lz4', backup: 'ix-lz4-s2', concurrency: 2, settleMs}), {message: /\.blk/})
  t.notOk(existsSync(file))
})

t.test('a sample reads some, and never nothing', async t => {
  const store = new FaultyStore(copyUpstreamStore(t))
  const random = [0.9, 0.01, 0.9, 0.9]
  t.equal((await verifyBackups(store, {volume: 'ix-lz4', sample: 0.05, concurrency: 1, random: () => random.shift() ?? 0.9})).read, 1)
  t.equal((await verifyBackups(store, {volume: 'ix-lz4', sample: 0.05, concurrency: 1, random: () => 0.9})).read, 1)
})

t.test('unfinished backups are told apart from damaged ones, a store that fails from both', async t => {
  const store = copyUpstreamStore(t)
  t.match(await verifyBackups(store, {volume: 'ix-failed', sample: 1, concurrency: 1}), {backups: 0, unfinished: ['ix-failed-s1'], findings: []})
  const failing = new FaultyStore(store, (call, key) => {
    if (call === 'get' && key.endsWith('.blk')) throw new Error('unplugged')
  })
  await t.rejects(verifyBackups(failing, {volume: 'ix-lz4', sample: 1, concurrency: 2}), /unplugged/)
})
