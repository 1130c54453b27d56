// Replicas of which one lies on a disk that can be made to fail, under a load that knows what it has been promised.
import {join} from 'node:path'
import type {Test} from 'tap'
import {isKind} from '../../../src/lib/errors.js'
import {ReplicaMode, type VolumeScrubStatusResponse} from '../../../src/protocol/proto/generated/controller.js'
import {endsAlike, SIZE_BYTES, System, type Replica} from '../../crash/support/system.js'
import {VerifiedLoad} from '../../crash/support/verified-load.js'
import {seededRandom, type Random} from '../../replica/support/random.js'
import {replicaImage} from '../../support/replica-image.js'
import {shortDir} from '../../support/short-dir.js'
import {until} from '../../support/until.js'
import {FailingDisk} from './failing-disk.js'

export interface Rig {
  readonly disk: FailingDisk
  readonly system: System
  readonly load: VerifiedLoad
  readonly random: Random
  /** The one on that disk; the engine reads from it first. */
  readonly bad: Replica
  readonly others: readonly Replica[]
}

export async function rig(t: Test, kind: 'ext4' | 'xfs', replicas = 2): Promise<Rig> {
  const random = seededRandom(t)
  const disk = await FailingDisk.make(t, shortDir(t), kind)
  const system = await System.start(t, replicas, [], [join(disk.path, 'replica')])
  const [bad, ...others] = system.replicas
  const load = new VerifiedLoad(SIZE_BYTES, random)
  load.rests = true
  await load.connect(system.socket)
  load.start()
  await load.progress(700)
  return {disk, system, load, random, bad: bad!, others}
}

export async function modeOf(system: System, {address}: Replica): Promise<ReplicaMode | undefined> {
  const {replicas} = await system.ask(rpc => rpc.replicaList())
  return replicas.find(one => one.address?.address === address)?.mode
}

/** Waits until it is dropped, for this reason. */
export async function dropped(t: Test, {system, bad}: Rig, reason: RegExp): Promise<void> {
  await until(async () => (await modeOf(system, bad)) === ReplicaMode.ERR, 'the replica is dropped', 60_000)
  const said = system.engine!.stderr.find(line => line.includes('replica dropped') || line.includes('out of use')) ?? system.engine!.lastLines
  t.match(said, reason, 'with the reason')
}

export async function snapshot(system: System, name: string): Promise<void> {
  await system.ask(rpc => rpc.volumeSnapshot({name, labels: new Map(), freezeFilesystem: false}, {timeoutMs: 60_000}))
}

function isBusy(error: unknown): false {
  if (isKind(error, 'BUSY')) return false
  throw error
}

/** Throws when it did not come to its end. */
export async function scrub(system: System): Promise<VolumeScrubStatusResponse> {
  const begun = (): Promise<boolean> => system.ask(rpc => rpc.volumeScrub({})).then(() => true, isBusy)
  await until(begun, 'it can be scrubbed: no replica is purging', 60_000)
  const status = (): Promise<VolumeScrubStatusResponse> => system.ask(rpc => rpc.volumeScrubStatus({}))
  await until(async () => (await status()).state !== 'in_progress', 'it is scrubbed', 60_000)
  const ended = await status()
  if (ended.state !== 'complete') throw new Error(`scrub: ${ended.error}`)
  return ended
}

/** The disk is repaired and the replica started again. */
export async function comesBack({disk, system, bad}: Rig): Promise<void> {
  bad.daemon.signal('SIGTERM')
  await bad.daemon.end('SIGTERM')
  await disk.mend()
  await system.restart(bad)
}

export async function rebuilt({system, bad}: Rig): Promise<void> {
  await system.ask(rpc => rpc.replicaAdd({address: bad.address, bytesPerSecond: 0n}, {timeoutMs: 60_000}))
  await system.resynced()
}

export async function ends(t: Test, {system, load}: Rig, snapshots: readonly string[] = []): Promise<void> {
  await load.progress(300)
  await endsAlike(t, system, load)
  t.equal(load.errors, 0, 'the initiator does not notice')
  for (const name of snapshots) {
    const [first, ...more] = await Promise.all(system.replicas.map(({directory}) => replicaImage(directory, name)))
    for (const image of more) t.ok(image.equals(first!), `the snapshot ${name} is the same`)
  }
}
