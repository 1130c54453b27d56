import {closeSync, openSync, readFileSync, writeSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {AtomicJournal, MAX_ATOMIC_BYTES, readAtomicJournal} from '../../src/replica/atomic-journal.js'
import {createReplica} from '../../src/replica/create-replica.js'
import {realDisk} from '../../src/replica/disk-steps.js'
import {openReplica} from '../../src/replica/open-replica.js'
import type {ReplicaVolume} from '../../src/replica/replica-volume.js'
import {writeVolumeMeta} from '../../src/replica/volume-meta-file.js'
import {mountSmall} from './support/small-file-system.js'

const BLOCK = 4096
const SIZE = 1024 * 1024

async function newReplica(t: Test): Promise<string> {
  const directory = join(t.testdir({}), 'r')
  await createReplica(directory, SIZE)
  return directory
}

function read(volume: ReplicaVolume, offset: number, length: number): Buffer {
  const target = Buffer.alloc(length)
  volume.readSync(target, 0, length, offset)
  return target
}

t.test('written at once, aligned or not, and in the order of the calls', async t => {
  const directory = await newReplica(t)
  const volume = await openReplica(directory)
  await volume.writeAtomic(Buffer.alloc(MAX_ATOMIC_BYTES, 1), 0)
  const pending = [volume.writeAtomic(Buffer.alloc(8 * BLOCK, 2), BLOCK), volume.write(Buffer.alloc(BLOCK, 3), 0, BLOCK, 2 * BLOCK), volume.writeAtomic(Buffer.alloc(1000, 4), 5 * BLOCK + 77)]
  t.type(pending[1], Promise, 'what overlaps waits')
  await Promise.all(pending.map(async one => one))
  const wanted = Buffer.alloc(MAX_ATOMIC_BYTES, 1).fill(2, BLOCK, 9 * BLOCK).fill(3, 2 * BLOCK, 3 * BLOCK).fill(4, 5 * BLOCK + 77, 5 * BLOCK + 1077)
  t.ok(read(volume, 0, MAX_ATOMIC_BYTES).equals(wanted))
  await t.rejects(volume.writeAtomic(Buffer.alloc(MAX_ATOMIC_BYTES + 1), 0), RangeError)
  await t.rejects(volume.writeAtomic(Buffer.alloc(BLOCK), SIZE - 1), RangeError)
  await volume.close()
  t.equal(await readAtomicJournal(directory), undefined, 'nothing is left to do')
  await using again = await openReplica(directory)
  t.ok(read(again, 0, MAX_ATOMIC_BYTES).equals(wanted))
})

/** The machine stops inside a write of 16 blocks of 7: the journal is whole, and of the data there is only a part. */
async function interrupted(t: Test): Promise<string> {
  const directory = await newReplica(t)
  const volume = await openReplica(directory)
  void volume.write(Buffer.alloc(32 * BLOCK, 1), 0, 32 * BLOCK, 0)
  await volume.flush()
  const journal = new AtomicJournal(directory, realDisk)
  await journal.begin(4 * BLOCK, Buffer.alloc(16 * BLOCK, 7))
  await journal.close()
  void volume.write(Buffer.alloc(3 * BLOCK, 7), 0, 3 * BLOCK, 4 * BLOCK)
  await volume.abandon()
  return directory
}

const TORN = Buffer.alloc(32 * BLOCK, 1).fill(7, 4 * BLOCK, 7 * BLOCK)
const WHOLE = Buffer.alloc(32 * BLOCK, 1).fill(7, 4 * BLOCK, 20 * BLOCK)

t.test('a write that was interrupted is finished by the next open, once', async t => {
  const directory = await interrupted(t)
  const volume = await openReplica(directory)
  t.ok(read(volume, 0, WHOLE.length).equals(WHOLE))
  void volume.write(Buffer.alloc(BLOCK, 9), 0, BLOCK, 5 * BLOCK)
  await volume.flush()
  await volume.abandon()
  await using again = await openReplica(directory)
  t.equal(read(again, 5 * BLOCK, 1)[0], 9, 'what came later stays')
})

t.test('a journal that was cut short, or that is from another time, is left alone', async t => {
  const spoil: Record<string, (directory: string) => void | Promise<void>> = {
    'data that is not all there': directory => patch(join(directory, 'atomic-write.journal'), 5000, Buffer.of(1)),
    'another offset': directory => patch(join(directory, 'atomic-write.journal'), 8, Buffer.of(1)),
    'a length beyond the file': directory => patch(join(directory, 'atomic-write.journal'), 16, Buffer.of(0, 0, 2, 0)),
    'no journal': directory => patch(join(directory, 'atomic-write.journal'), 0, Buffer.of(0)),
    'volume.meta replaced since': async directory => {
      const volume = await openMeta(directory)
      await writeVolumeMeta(directory, volume)
    },
  }
  for (const [what, change] of Object.entries(spoil)) {
    const directory = await interrupted(t)
    await change(directory)
    await using volume = await openReplica(directory)
    t.ok(read(volume, 0, TORN.length).equals(TORN), what)
  }
})

t.test('on a full disk nothing of it is written', async t => {
  const place = mountSmall(t, 'ext4', 24)
  if (place === undefined) return
  const directory = join(place, 'r')
  await createReplica(directory, 512 * SIZE)
  const volume = await openReplica(directory)
  await volume.writeAtomic(Buffer.alloc(4 * BLOCK, 1), 0)
  const full = async (): Promise<void> => {
    for (let offset = SIZE; ; offset += 16 * BLOCK) void volume.write(Buffer.alloc(16 * BLOCK, 2), 0, 16 * BLOCK, offset)
  }
  await t.rejects(full(), {code: 'LH_NO_SPACE'})
  const before = read(volume, 0, MAX_ATOMIC_BYTES)
  await t.rejects(volume.writeAtomic(Buffer.alloc(MAX_ATOMIC_BYTES, 3), 0), {code: 'LH_NO_SPACE'})
  t.ok(read(volume, 0, MAX_ATOMIC_BYTES).equals(before))
  t.equal(volume.failure, undefined)
  await volume.abandon()
})

async function openMeta(directory: string) {
  const {parseVolumeMeta} = await import('../../src/replica/volume-meta.js')
  return parseVolumeMeta(readFileSync(join(directory, 'volume.meta'), 'utf8'), 'volume.meta')
}

function patch(path: string, position: number, bytes: Buffer): void {
  const fd = openSync(path, 'r+')
  writeSync(fd, bytes, 0, bytes.length, position)
  closeSync(fd)
}
