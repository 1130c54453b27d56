// Who heals and who is healed are killed in the middle of a scrub, under a load that knows what it has been promised.
import {closeSync, openSync, readFileSync, writeSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {isKind} from '../../src/lib/errors.js'
import type {VolumeScrubStatusResponse} from '../../src/protocol/proto/generated/controller.js'
import {seededRandom} from '../replica/support/random.js'
import {replicaImage} from '../support/replica-image.js'
import {until} from '../support/until.js'
import {endsAlike, SIZE_BYTES, System, type Replica} from './support/system.js'
import {BLOCK_BYTES, VerifiedLoad} from './support/verified-load.js'

const DAMAGE = 'damaged'
/** Within a block. */
const DAMAGED_AT = 16

interface Rig {
  readonly system: System
  readonly load: VerifiedLoad
  /** Whose snapshot `old` is damaged in many places, none of which is read through the head. */
  readonly damaged: Replica
  /** What `old` holds. */
  readonly content: Buffer
}

async function rig(t: Test): Promise<Rig> {
  const random = seededRandom(t)
  const system = await System.start(t, 3)
  const load = new VerifiedLoad(SIZE_BYTES, random)
  load.rests = true
  await load.connect(system.socket)
  for (const name of ['old', 'new']) {
    load.start()
    await load.progress(2000)
    await load.stop()
    await system.ask(rpc => rpc.volumeSnapshot({name, labels: new Map(), freezeFilesystem: false}))
  }
  const damaged = system.replicas[random.below(3)]!
  const content = await replicaImage(damaged.directory, 'old')
  t.ok(damage(damaged) > 80, 'it is damaged all over')
  load.start()
  return {system, load, damaged, content}
}

/** Damages every sixteenth block of `old` that `new` hides, and whole runs of such blocks. */
function damage({directory}: Replica): number {
  const [old, hiding] = ['old', 'new'].map(name => readFileSync(join(directory, `volume-snap-${name}.img`)))
  const holds = (layer: Buffer, block: number): boolean => layer.readUInt32LE(block * BLOCK_BYTES + 12) !== 0
  const fd = openSync(join(directory, 'volume-snap-old.img'), 'r+')
  let count = 0
  for (let block = 0; block < SIZE_BYTES / BLOCK_BYTES; block++) {
    if ((block % 16 !== 0 && block % 512 > 200) || !holds(old!, block) || !holds(hiding!, block)) continue
    writeSync(fd, DAMAGE, block * BLOCK_BYTES + DAMAGED_AT)
    count++
  }
  closeSync(fd)
  return count
}

function status(system: System): Promise<VolumeScrubStatusResponse> {
  return system.ask(rpc => rpc.volumeScrubStatus({}))
}

/** The replicas may be giving back the space of what a rebuild has left: nothing is healed meanwhile. */
async function scrub(system: System): Promise<VolumeScrubStatusResponse> {
  await until(() => system.ask(rpc => rpc.volumeScrub({})).then(() => true, isBusy), 'it can be scrubbed', 60_000)
  await until(async () => (await status(system)).state !== 'in_progress', 'it is scrubbed', 60_000)
  return status(system)
}

function isBusy(error: unknown): false {
  if (isKind(error, 'BUSY')) return false
  throw error
}

/** Begins to scrub; resolves when some of the damage has been healed, and not all. */
async function healing({system, damaged}: Rig): Promise<void> {
  const begun = async (): Promise<boolean> => {
    await system.ask(rpc => rpc.volumeScrub({}))
    let now = await status(system)
    await until(async () => (now = await status(system)).healed > 0n || now.state !== 'in_progress', 'something is healed')
    // It may have been quicker than the one who asks.
    if (now.state !== 'in_progress') damage(damaged)
    return now.state === 'in_progress'
  }
  await until(begun, 'it is in the middle of it', 120_000)
}

/** Everything is in use, and the next scrub heals what is left. */
async function ends(t: Test, {system, load, content}: Rig): Promise<void> {
  await system.resynced()
  await load.progress(300)
  let left = 0n
  await until(async () => {
    const {found, healed} = await scrub(system)
    left += healed
    return found === 0n
  }, 'there is nothing left to heal', 120_000)
  t.comment(`${left} ranges were left`)
  await endsAlike(t, system, load)
  for (const {directory} of system.replicas) t.ok(content.equals(await replicaImage(directory, 'old')), 'the snapshot is what it was')
}

/** What a kill leaves of `old`: every block is as it was damaged, or as it is to be. */
function oldOrHealed(t: Test, {damaged, content}: Rig): void {
  const now = readFileSync(join(damaged.directory, 'volume-snap-old.img'))
  let [healed, left] = [0, 0]
  const torn: number[] = []
  for (let at = 0; at < SIZE_BYTES; at += BLOCK_BYTES) {
    const block = now.subarray(at, at + BLOCK_BYTES)
    const right = content.subarray(at, at + BLOCK_BYTES)
    if (block.equals(right)) {
      healed++
      continue
    }
    const bad = Buffer.from(right)
    bad.write(DAMAGE, DAMAGED_AT)
    if (block.equals(bad)) left++
    else torn.push(at / BLOCK_BYTES)
  }
  t.same(torn, [], 'no block is anything else')
  t.comment(`${left} blocks are still damaged, ${healed} are not`)
}

t.test('the replica that is being healed is killed', async t => {
  const all = await rig(t)
  const {system, load, damaged} = all
  await healing(all)
  await load.progress(16)
  damaged.daemon.signal('SIGKILL')
  await until(async () => (await status(system)).state !== 'in_progress', 'the scrub ends', 60_000)
  t.match(await status(system), {state: /^(error|complete)$/})
  await load.progress(300)
  t.equal(load.errors, 0, 'the initiator does not notice')
  await damaged.daemon.exited
  oldOrHealed(t, all)
  await system.restart(damaged)
  await system.ask(rpc => rpc.replicaAdd({address: damaged.address, bytesPerSecond: 0n}))
  await ends(t, all)
  t.equal(load.errors, 0)
})

t.test('the engine is killed, and the next one heals what is left', async t => {
  const all = await rig(t)
  const {system, load} = all
  await healing(all)
  await load.progress(16)
  system.engine!.signal('SIGKILL')
  await load.stop()
  load.disconnect()
  await system.startEngine(system.replicas)
  await load.connect(system.socket)
  await load.verifyAll()
  oldOrHealed(t, all)
  t.same(load.problems, [])
  load.start()
  await ends(t, all)
})
