import {readFileSync, rmSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {createReplica} from '../../src/replica/create-replica.js'
import {openReplica} from '../../src/replica/open-replica.js'
import type {ReplicaVolume} from '../../src/replica/replica-volume.js'
import {freezeHead} from './support/freeze.js'
import {seededRandom} from './support/random.js'
import {mountSmall, SMALL_FILE_SYSTEMS} from './support/small-file-system.js'

const MIB = 1024 ** 2
const SIZE = 256 * MIB
const BLOCK = 4096

for (const kind of SMALL_FILE_SYSTEMS) {
  t.test(`a full ${kind} is an error, and what was there stays readable`, async t => {
    const base = mountSmall(t, kind, kind === 'xfs' ? 320 : 24)
    if (base === undefined) return
    const directory = join(base, 'r1')
    const random = seededRandom(t)
    const source = Buffer.alloc(MIB)
    await createReplica(directory, SIZE)

    // A snapshot under the first megabytes, so that a failed write has something to hide.
    let volume = await openReplica(directory)
    random.fill(source)
    for (let at = 0; at < 4; at++) await volume.write(source, 0, MIB, at * MIB)
    await volume.flush()
    await volume.close()
    await freezeHead(directory, 'a')
    volume = await openReplica(directory)

    // XFS does not get smaller than 300 MB: something else takes most of it.
    fill(join(base, 'ballast'), kind === 'xfs' ? 290 : 14)

    const refused = new Set<number>()
    const written = new Map<number, Buffer>()
    for (let round = 0; round < 300; round++) {
      const length = [BLOCK, 16 * BLOCK, 40 * BLOCK, MIB][random.below(4)] ?? BLOCK
      const offset = random.below((8 * MIB - length) / BLOCK) * BLOCK
      random.fill(source.subarray(0, length))
      const before = read(volume, offset, length)
      const error = await attempt(() => volume.write(source, 0, length, offset))
      const after = read(volume, offset, length)
      for (let at = 0; at < length; at += BLOCK) {
        const block = (offset + at) / BLOCK
        const now = after.subarray(at, at + BLOCK)
        const wanted = source.subarray(at, at + BLOCK)
        if (error === undefined) {
          if (!now.equals(wanted)) throw new Error(`round ${round}: block ${block} is not what was written`)
          written.set(block, Buffer.from(wanted))
          continue
        }
        refused.add(round)
        const kept = now.equals(before.subarray(at, at + BLOCK))
        if (!kept && !(written.has(block) && now.equals(wanted))) throw new Error(`round ${round}: block ${block} is neither old nor new`)
        if (!kept) written.set(block, Buffer.from(wanted))
      }
    }
    t.ok(refused.size > 5, `${refused.size} of 300 writes found the disk full`)
    t.equal(volume.failure, undefined, 'the replica goes on')

    const before = read(volume, 0, 8 * MIB)
    await volume.flush()
    await volume.abandon()
    volume = await openReplica(directory)
    t.ok(read(volume, 0, 8 * MIB).equals(before), 'the same after a reopen')

    await volume.discard(0, MIB)
    for (const block of written.keys()) {
      const now = read(volume, block * BLOCK, BLOCK)
      if (block * BLOCK < MIB && !now.equals(Buffer.alloc(BLOCK))) t.fail(`discarded block ${block} is not zero`)
    }

    const zeroing = await attempt(() => volume.writeZeroes(16 * MIB, 64 * MIB, false))
    t.match(zeroing, {code: 'LH_NO_SPACE', message: /no space left on device/})
    t.ok(read(volume, 16 * MIB, 64 * MIB).equals(Buffer.alloc(64 * MIB)))

    rmSync(join(base, 'ballast'))
    random.fill(source)
    await volume.write(source, 0, MIB, 6 * MIB)
    t.ok(read(volume, 6 * MIB, MIB).equals(source), 'with space again, writes work')
    await volume.close()
  })
}

t.test('on a full disk a replica still opens', async t => {
  const base = mountSmall(t, 'tmpfs', 1)
  if (base === undefined) return
  const directory = join(base, 'r1')
  const meta = join(directory, 'volume.meta')
  await createReplica(directory, SIZE)
  const clean = readFileSync(meta, 'utf8')
  fill(join(base, 'ballast'), 2)
  const volume = await openReplica(directory)
  t.equal(readFileSync(meta, 'utf8'), clean.replace('false', 'true '), 'dirty, changed in place')
  t.ok(read(volume, 0, MIB).equals(Buffer.alloc(MIB)))
  await t.rejects(volume.close(), {code: 'LH_NO_SPACE', message: /volume\.meta/}, 'it cannot be marked clean')
  await (await openReplica(directory)).abandon()
  rmSync(join(base, 'ballast'))
  await (await openReplica(directory)).close()
  t.equal(readFileSync(meta, 'utf8').replace(/ \n$/, '\n'), clean)
})

function read(volume: ReplicaVolume, offset: number, length: number): Buffer {
  const target = Buffer.alloc(length, 0xee)
  volume.readSync(target, 0, length, offset)
  return target
}

async function attempt(operation: () => Promise<unknown> | undefined): Promise<unknown> {
  try {
    await operation()
    return undefined
  } catch (error) {
    return error
  }
}

/** Takes this much of the disk, or what is left of it. */
function fill(path: string, megabytes: number): void {
  try {
    writeFileSync(path, Buffer.alloc(megabytes * MIB, 1))
  } catch {
    // Full is what we want.
  }
}
