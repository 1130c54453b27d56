import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {fileURLToPath} from 'node:url'
import t from 'tap'
import {createReplica} from '../../src/replica/create-replica.js'
import {openReplica} from '../../src/replica/open-replica.js'
import {freezeHead} from './support/freeze.js'
import {freshPath} from './support/places.js'
import {seededRandom} from './support/random.js'
import {VolumeModel} from './support/volume-model.js'
import {applyToModel, changes} from './support/writer-process.js'

const SIZE = 8 * 1024 ** 2
const SECTOR = 512

t.test('killed in the middle of it: what was done is there, what was being done is old or new', async t => {
  const directory = freshPath(t)
  const random = seededRandom(t)
  const seed = random.below(2 ** 31)
  await createReplica(directory, SIZE)
  const model = new VolumeModel(SIZE)
  const sequence = changes(seed, SIZE)
  let applied = 0
  for (let round = 0; round < 6; round++) {
    const last = await runAndKill(directory, seed, applied, 30 + random.below(150))
    while (applied < last - 1) {
      applyToModel(model, sequence.next().value)
      applied += 1
    }
    // The one it died in.
    const before = Buffer.from(model.content)
    const change = sequence.next().value
    applyToModel(model, change)
    applied += 1
    await using volume = await openReplica(directory)
    const found = Buffer.alloc(SIZE)
    volume.readSync(found, 0, SIZE, 0)
    let mixed = 0
    for (let at = 0; at < SIZE; at += SECTOR) {
      const now = found.subarray(at, at + SECTOR)
      if (now.equals(model.content.subarray(at, at + SECTOR))) continue
      if (!now.equals(before.subarray(at, at + SECTOR))) return t.fail(`round ${round}: the sector at ${at} is neither old nor new`)
      mixed += 1
    }
    t.pass(`killed at change ${last}, ${mixed} sectors of it not done`)
    // From here both go on with the whole change done.
    await volume.write(model.content, 0, SIZE, 0)
    model.layers.at(-1)?.fill(1)
    await volume.close()
    await freezeHead(directory, `s${round}`)
    model.snapshot()
  }
  return undefined
})

/** Lets a writer go for some time after its first change, kills it, and returns the change that it had begun last. */
async function runAndKill(directory: string, seed: number, skip: number, milliseconds: number): Promise<number> {
  const script = fileURLToPath(new URL('./support/writer-process.js', import.meta.url))
  const child = spawn(process.execPath, [script, '--write', directory, `${seed}`, `${skip}`], {stdio: ['ignore', 'pipe', 'inherit']})
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    if (output === '') setTimeout(() => child.kill('SIGKILL'), milliseconds)
    output += text
  })
  await once(child, 'close')
  return Number(output.trim().split('\n').at(-1))
}
