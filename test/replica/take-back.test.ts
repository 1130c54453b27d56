import {closeSync, openSync, writeSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {createReplica} from '../../src/replica/create-replica.js'
import {Flusher} from '../../src/replica/flusher.js'
import {Gate} from '../../src/replica/gate.js'
import type {HeadContext} from '../../src/replica/head-context.js'
import {readReplicaDirectory} from '../../src/replica/layer-chain.js'
import {LayerReader} from '../../src/replica/layer-reader.js'
import {openLayerStack} from '../../src/replica/layer-stack.js'
import {openReplica, openVolumeView} from '../../src/replica/open-replica.js'
import {RangeLock} from '../../src/replica/range-lock.js'
import {keepOldContent, takeBack} from '../../src/replica/take-back.js'
import {freezeHead} from './support/freeze.js'
import {freshPath} from './support/places.js'

const BLOCK = 4096
const SIZE = 1024 ** 2 + 512
const END = Math.ceil(SIZE / BLOCK) - 1

/** A snapshot of ones under a head that holds block 2 (fives) and has got nines into blocks 1, 2, 4 and the last by a failed write. */
async function halfWritten(t: Test): Promise<{directory: string; context: HeadContext}> {
  const directory = freshPath(t)
  await createReplica(directory, SIZE)
  const below = await openReplica(directory)
  await below.write(Buffer.alloc(4 * BLOCK, 1), 0, 4 * BLOCK, 0)
  await below.write(Buffer.alloc(512, 1), 0, 512, SIZE - 512)
  await below.close()
  await freezeHead(directory, 'a')
  const above = await openReplica(directory)
  await above.write(Buffer.alloc(BLOCK, 5), 0, BLOCK, 2 * BLOCK)
  await above.close()

  const found = await readReplicaDirectory(directory)
  const stack = await openLayerStack(directory, found.chain, SIZE, {writable: true})
  t.teardown(() => stack.close())
  const gate = new Gate()
  const flusher = new Flusher([stack.head.fd], 'head', gate)
  const fd = openSync(join(directory, stack.head.file), 'r+')
  for (const block of [1, 2, 4]) writeSync(fd, Buffer.alloc(BLOCK, 9), 0, 1000, block * BLOCK)
  writeSync(fd, Buffer.alloc(512, 9), 0, 512, END * BLOCK)
  closeSync(fd)
  return {directory, context: {stack, gate, flusher, reader: new LayerReader(stack), locks: new RangeLock(), counter: undefined}}
}

async function checkContent(t: Test, reader: LayerReader): Promise<void> {
  const all = Buffer.alloc(SIZE)
  reader.readSync(all, 0, SIZE, 0)
  const wanted = Buffer.alloc(SIZE).fill(1, 0, 4 * BLOCK).fill(5, 2 * BLOCK, 3 * BLOCK).fill(9, 2 * BLOCK, 2 * BLOCK + 1000).fill(1, SIZE - 512)
  t.ok(all.equals(wanted))
}

for (const undo of [takeBack, keepOldContent]) {
  t.test(`${undo.name}: blocks that the head did not hold are as before, now and after a reopen`, async t => {
    const {directory, context} = await halfWritten(t)
    if (undo === takeBack) takeBack(context, 0, END + 1)
    else for (const [first, count] of [[0, 2], [3, END - 2]] as const) keepOldContent(context, first, count)
    t.equal(context.gate.reason, undefined)
    await checkContent(t, context.reader)
    await using view = await openVolumeView(directory)
    await checkContent(t, view.reader)
    for (let block = 0; block <= END; block++) {
      const [now, reopened] = [context.stack.map.lookup(block), view.reader.stack.map.lookup(block)]
      if (now !== reopened) t.fail(`block ${block} is held by layer ${now} and after a reopen by ${reopened}`)
    }
  })
}
