import {randomBytes} from 'node:crypto'
import {readFileSync, statSync} from 'node:fs'
import {open} from 'node:fs/promises'
import {join} from 'node:path'
import t from 'tap'
import {BlockMemory} from '../../src/backup/block-memory.js'
import {ImageFile} from '../../src/backup/image-file.js'
import {bufferAddress} from '../../src/lib/sys/buffer-address.js'

const GRAIN = 4096
const BLOCK = 16 * GRAIN

t.test('what is zero stays a hole, wherever the memory and the end of the file are', async t => {
  for (const [start, tail] of [[0, 0], [512, 0], [0, 100], [1, 1234]] as const) {
    const path = join(t.testdir(), 'image')
    const size = 3 * BLOCK + tail
    const expected = Buffer.alloc(size)
    for (let at = 0; at < size; at += 3 * GRAIN) randomBytes(Math.min(GRAIN, size - at)).copy(expected, at)
    {
      await using image = await ImageFile.over(await open(path, 'wx'), path)
      await image.file.truncate(size)
      const {block} = new BlockMemory(BLOCK).take()
      t.equal(bufferAddress(block) % GRAIN, 0)
      // From the end, so that nothing depends on the order.
      for (let at = 3 * BLOCK; at >= 0; at -= BLOCK) {
        const length = Math.min(BLOCK, size - at)
        expected.copy(block, start, at, at + length)
        if (length > 0) await image.write(block.subarray(start, start + length), at)
      }
      await image.sync()
      await image.close()
    }
    t.ok(readFileSync(path).equals(expected), `memory at ${start}, ${tail} bytes more`)
    t.ok(statSync(path).blocks * 512 < size * 0.7, 'holes')
  }
})

t.test('memory that was given back is used again', async t => {
  const memory = new BlockMemory(BLOCK)
  const [first, second] = [memory.take(), memory.take()]
  t.not(first, second)
  memory.give(first)
  t.equal(memory.take(), first)
})

t.test('a file that cannot be opened once more', async t => {
  const path = join(t.testdir(), 'image')
  await t.rejects(ImageFile.over(await open(path, 'wx'), `${path}-gone`), {code: 'ENOENT'})
})
