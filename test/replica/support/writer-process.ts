import {writeSync} from 'node:fs'
import {openReplica} from '../../../src/replica/open-replica.js'
import type {ReplicaVolume} from '../../../src/replica/replica-volume.js'
import {Random} from './random.js'
import type {VolumeModel} from './volume-model.js'

/** One of an endless sequence of changes that is the same for the same seed. */
export interface Change {
  readonly kind: 'write' | 'zero' | 'discard'
  readonly offset: number
  readonly data: Buffer
}

export function* changes(seed: number, sizeBytes: number): Generator<Change, never> {
  const random = new Random(seed)
  for (;;) {
    const length = 1 + random.below(random.oneIn(4) ? 600_000 : 20_000)
    const offset = random.below(sizeBytes - length)
    const data = Buffer.alloc(length, 1 + random.below(255))
    yield {kind: (['write', 'write', 'write', 'zero', 'discard'] as const)[random.below(5)] ?? 'write', offset, data}
  }
}

export function applyToModel(model: VolumeModel, {kind, offset, data}: Change): void {
  if (kind === 'write') model.write(data, offset)
  else if (kind === 'zero') model.writeZeroes(offset, data.length, true)
  else model.discard(offset, data.length)
}

function apply(volume: ReplicaVolume, {kind, offset, data}: Change): Promise<unknown> | undefined {
  if (kind === 'write') return volume.write(data, 0, data.length, offset)
  return kind === 'zero' ? volume.writeZeroes(offset, data.length, true) : volume.discard(offset, data.length)
}

/** Changes a replica until it is killed, one change after the other, and says before each one which it is. */
async function main(directory: string, seed: number, skip: number): Promise<void> {
  const volume = await openReplica(directory)
  let number = 0
  for (const change of changes(seed, volume.sizeBytes)) {
    number += 1
    if (number <= skip) continue
    writeSync(1, `${number}\n`)
    await apply(volume, change)
  }
}

if (process.argv[2] === '--write') await main(process.argv[3] ?? '', Number(process.argv[4]), Number(process.argv[5]))
