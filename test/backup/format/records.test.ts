import {randomBytes} from 'node:crypto'
import t from 'tap'
import {blockBytesOf, formatBackupRecord, parseBackupRecord, unfinishedRecord} from '../../../src/backup/format/backup-record.js'
import {decodeBlock, encodeBlock, METHODS} from '../../../src/backup/format/block-codec.js'
import {blockKey, blockSum, blockSumOf, shortSum, volumeFolder} from '../../../src/backup/format/store-layout.js'
import {formatVolumeRecord, parseVolumeRecord} from '../../../src/backup/format/volume-record.js'
import {copyUpstreamStore} from '../upstream-store.js'

const BLOCK = 2 * 1024 ** 2

t.test("upstream's records are written back as they were, to the byte", async t => {
  const store = copyUpstreamStore(t)
  let records = 0
  for await (const {key} of store.list('backupstore/volumes/')) {
    if (!key.endsWith('.cfg')) continue
    const text = (await store.get(key, 1 << 20)).toString()
    const again = key.endsWith('volume.cfg') ? formatVolumeRecord(parseVolumeRecord(text, key)) : formatBackupRecord(parseBackupRecord(text, key))
    // A leftover of upstream's that says nothing.
    t.equal(again, text.trimEnd().replace('"ProcessingBlocks":{}', '"ProcessingBlocks":null'), key)
    records++
  }
  t.equal(records, 20)
})

t.test('paths', async t => {
  t.equal(volumeFolder('rbk-a'), 'backupstore/volumes/65/40/rbk-a/')
  const sum = shortSum('x')
  t.equal(blockSumOf('vol', blockKey('vol', sum)), sum)
  t.equal(blockSumOf('other', blockKey('vol', sum)), undefined)
  t.match(await blockSum(Buffer.alloc(BLOCK)), /^73185902/, "upstream's sum of a block of zeros")
})

t.test('an unfinished backup, as upstream has it', async t => {
  t.equal(
    formatBackupRecord(unfinishedRecord('backup-three', 'rbk-a', 'lz4')),
    '{"Name":"backup-three","VolumeName":"rbk-a","SnapshotName":"","SnapshotCreatedAt":"","CreatedTime":"","Size":"0","Labels":null,"Parameters":null,"IsIncremental":false,"CompressionMethod":"lz4","NewlyUploadedDataSize":"0","ReUploadedDataSize":"0","ProcessingBlocks":null,"SingleFile":{"FilePath":""}}',
  )
})

t.test('what upstream accepts and refuses', async t => {
  t.match(parseVolumeRecord('{"name":"v","SIZE":"67108864","BackingImageName":null,"More":1}', 'k'), {name: 'v', sizeBytes: 67108864, labels: null})
  for (const text of ['{"CompressionMethod":"lz4"}', '{"Size":5}', '{"Size":"-1"}', '{"Labels":{"a":1}}', '[]', 'nothing', '{"Size":"99999999999999999999"}']) {
    t.throws(() => parseVolumeRecord(text, 'key'), {code: 'LH_CORRUPT', message: /key/}, text)
  }
  const sum = 'a'.repeat(64)
  const blocks = (...list: object[]): string => JSON.stringify({Blocks: list})
  for (const text of [
    blocks({Offset: 1, BlockChecksum: sum}),
    blocks({Offset: -BLOCK, BlockChecksum: sum}),
    blocks({Offset: 0, BlockChecksum: '../../x'}),
    blocks({Offset: 0, BlockChecksum: sum}, {Offset: 0, BlockChecksum: sum}),
    '{"Blocks":{}}',
    '{"Blocks":[null]}',
    '{"Parameters":{"backup-block-size":"1Ei"}}',
    '{"Parameters":{"backup-block-size":"100"}}',
  ]) {
    t.throws(() => parseBackupRecord(text, 'key'), {code: 'LH_CORRUPT'}, text)
  }
  t.same(parseBackupRecord(blocks({Offset: BLOCK, BlockChecksum: sum}, {Offset: 0, BlockChecksum: sum}), 'k').blocks.map(({offset}) => offset), [0, BLOCK])
  t.equal(blockBytesOf({parameters: {'backup-block-size': '4Mi'}}, ''), 4 * 1024 ** 2)
  t.equal(blockBytesOf({parameters: {'backup-block-size': '0'}}, ''), BLOCK)
})

t.test('blocks', async t => {
  for (const block of [Buffer.alloc(BLOCK), randomBytes(BLOCK), Buffer.alloc(8 * BLOCK, 'longhorn')]) {
    const sum = await blockSum(block)
    for (const method of METHODS) {
      const content = await encodeBlock(block, method)
      if (method === 'lz4') t.equal(content.subarray(0, 7).toString('hex'), '04224d186470b9', "upstream's frame")
      t.ok(block.equals(await decodeBlock(content, method, block.length, sum, 'x')), method)
    }
    t.ok(block.equals(await decodeBlock(await encodeBlock(block, 'lz4'), 'gzip', block.length, sum, 'x')), 'the other method')
  }
})

t.test('damaged blocks are CORRUPT, whatever is wrong with them', async t => {
  const block = randomBytes(BLOCK)
  const sum = await blockSum(block)
  for (const method of METHODS) {
    const content = await encodeBlock(block, method)
    const flipped = Buffer.from(content)
    flipped[100_000]! ^= 1
    for (const [what, bad] of Object.entries({flipped, cut: content.subarray(0, 1_000_000), head: content.subarray(0, 9), empty: Buffer.alloc(0), long: Buffer.concat([content, content])})) {
      if (method === 'gzip' && what === 'long') continue
      if (method === 'lz4' && what === 'long') continue
      await t.rejects(decodeBlock(bad, method, BLOCK, sum, 'x'), {code: 'LH_CORRUPT'}, `${method}, ${what}`)
    }
    await t.rejects(decodeBlock(content, method, BLOCK, 'b'.repeat(64), 'x'), {code: 'LH_CORRUPT', message: /checksum verification failed/})
  }
})

t.test('content that would fill the memory is refused before it does', async t => {
  const bomb = await encodeBlock(Buffer.alloc(256 * 1024 ** 2), 'lz4')
  await t.rejects(decodeBlock(bomb, 'lz4', BLOCK, 'b'.repeat(64), 'x'), {code: 'LH_CORRUPT', message: /may hold/})
  const zip = await encodeBlock(Buffer.alloc(256 * 1024 ** 2), 'gzip')
  await t.rejects(decodeBlock(zip, 'gzip', BLOCK, 'b'.repeat(64), 'x'), {code: 'LH_CORRUPT'})
})
