import {spawnSync} from 'node:child_process'
import {join} from 'node:path'
import t from 'tap'
import {createReplica} from '../../src/replica/create-replica.js'
import {openReplica, openVolumeView} from '../../src/replica/open-replica.js'
import {shortDir} from '../support/short-dir.js'

const BLOCK = 4096
const SIZE = 1024 * 1024
const withoutTool = spawnSync('fallocate', ['--version']).status === 0 ? false : 'fallocate (util-linux) is not installed'

t.test('space that a power cut left of a write hides nothing', {skip: withoutTool}, async t => {
  const directory = join(shortDir(t), 'r')
  await createReplica(directory, SIZE)
  const first = await openReplica(directory)
  await first.write(Buffer.alloc(8 * BLOCK, 1), 0, 8 * BLOCK, 0)
  await first.snapshot({name: 'a', userCreated: true, created: '2026-01-02T03:04:05Z', labels: {}})
  await first.write(Buffer.alloc(BLOCK, 2), 0, BLOCK, BLOCK)
  // Zeros over data, and zeros over nothing.
  await first.writeZeroes(2 * BLOCK, BLOCK, true)
  await first.writeZeroes(100 * BLOCK, 100 * BLOCK, false)
  await first.flush()
  const {head} = first.meta
  await first.abandon()
  // As if a write to block 4 to 6 had got its space, and no more.
  const {status, stderr} = spawnSync('fallocate', ['--keep-size', '--offset', `${4 * BLOCK}`, '--length', `${3 * BLOCK}`, join(directory, head)])
  if (status !== 0) {
    t.comment(`this file system cannot do that: ${stderr.toString()}`)
    return
  }
  const wanted = [1, 2, 0, 1, 1, 1, 1, 1, 0]
  const blocks = (read: (target: Buffer) => void): number[] => {
    const bytes = Buffer.alloc(9 * BLOCK)
    read(bytes)
    return wanted.map((_, block) => bytes[block * BLOCK]!)
  }
  {
    await using view = await openVolumeView(directory)
    t.same(blocks(bytes => view.reader.readSync(bytes, 0, bytes.length, 0)), wanted, 'seen from outside')
  }
  const second = await openReplica(directory)
  t.same(blocks(bytes => second.readSync(bytes, 0, bytes.length, 0)), wanted)
  await second.close()
  await using third = await openReplica(directory)
  t.same(blocks(bytes => third.readSync(bytes, 0, bytes.length, 0)), wanted, 'also after a close')
})
