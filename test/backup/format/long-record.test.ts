import {createHash} from 'node:crypto'
import t from 'tap'
import {formatBackupRecord, parseBackupRecord, unfinishedRecord, type BackupRecord} from '../../../src/backup/format/backup-record.js'
import {readBackupRecord, writeBackupRecord} from '../../../src/backup/format/long-record.js'

const BLOCK = 2 * 1024 ** 2
const KEY = 'backup_b.cfg'

function recordOf(count: number, more: Partial<BackupRecord> = {}): BackupRecord {
  const sums = Array.from({length: 100}, (_, index) => createHash('sha256').update(`${index}`).digest('hex'))
  const blocks = Array.from({length: count}, (_, index) => ({offset: index * BLOCK, sum: sums[index % 100]!}))
  return {...unfinishedRecord('b', 'vol', 'lz4'), labels: {odd: '"Blocks":[]'}, createdTime: '2026-01-01T00:00:00Z', blocks, ...more}
}

/** How long the event loop stood still at most while `work` ran, and how long that took. */
async function standstill(work: () => Promise<unknown>): Promise<{worstMs: number; totalMs: number}> {
  let worstMs = 0
  let last = performance.now()
  let ended = false
  const tick = (): void => {
    const now = performance.now()
    worstMs = Math.max(worstMs, now - last)
    last = now
    if (!ended) setImmediate(tick)
  }
  setImmediate(tick)
  const before = last
  await work()
  ended = true
  await new Promise(resolve => setImmediate(resolve))
  return {worstMs, totalMs: performance.now() - before}
}

t.test('in parts it is the same as in one, to the byte', async t => {
  for (const count of [0, 1, 4096, 4097, 10_000]) {
    const record = recordOf(count)
    const text = formatBackupRecord(record)
    t.ok((await writeBackupRecord(record)).equals(Buffer.from(text)), `${count} written`)
    t.same(await readBackupRecord(Buffer.from(text), KEY), parseBackupRecord(text, KEY), `${count} read`)
  }
})

t.test('whatever JSON allows is read, and what it does not is CORRUPT', async t => {
  const record = recordOf(10_000)
  const text = formatBackupRecord(record)
  const swapped = {...record, blocks: [...record.blocks.slice(1), record.blocks[0]!]}
  const good = [
    JSON.stringify(JSON.parse(text), null, 2),
    text.replace('"Blocks"', '"blocks"'),
    text.replace('"Labels"', '"Extra":{"Blocks":[]},"Labels"'),
    text.replace('"Blocks":[{', '"Blocks":[{"x":"]}","y":[{}],'),
    text.replaceAll('},{', '}\n,\t{'),
    text.replace('"SingleFile"', '"BLOCKS":[],"SingleFile"'),
    formatBackupRecord(swapped),
  ]
  for (const one of good) t.same(await readBackupRecord(Buffer.from(one), KEY), parseBackupRecord(one, KEY))
  const bad = [
    text.slice(0, -1),
    text.slice(0, 300_000),
    text.replace('}],', '},],'),
    text.replace('"Blocks":[', '"Blocks":[,'),
    text.replace('},{', '}{'),
    text.replace(`"Offset":${9000 * BLOCK}`, `"Offset":${9000 * BLOCK + 1}`),
    text.replace(`"Offset":${9000 * BLOCK}`, `"Offset":${8000 * BLOCK}`),
    text.replace('"BlockChecksum":"', '"BlockChecksum":"../'),
    text.replace('"Size":"0"', '"Size":0'),
  ]
  for (const one of bad) await t.rejects(readBackupRecord(Buffer.from(one), KEY), {code: 'LH_CORRUPT', message: new RegExp(KEY)})
})

t.test('the event loop goes on meanwhile', async t => {
  const record = recordOf(300_000)
  const content = Buffer.from(formatBackupRecord(record))
  const whole = await standstill(async () => parseBackupRecord(content.toString('utf8'), KEY))
  t.ok(whole.worstMs > whole.totalMs / 2, 'what is being measured')
  // Of several runs the best one: others are at work on this machine, too.
  const ratios = {read: 1, written: 1}
  for (let run = 0; run < 5; run++) {
    const read = await standstill(() => readBackupRecord(content, KEY))
    const written = await standstill(() => writeBackupRecord(record))
    ratios.read = Math.min(ratios.read, read.worstMs / read.totalMs)
    ratios.written = Math.min(ratios.written, written.worstMs / written.totalMs)
  }
  t.ok(ratios.read < 0.25, `the longest stop is ${(100 * ratios.read).toFixed(0)} % of reading`)
  t.ok(ratios.written < 0.35, `and ${(100 * ratios.written).toFixed(0)} % of writing`)
})
