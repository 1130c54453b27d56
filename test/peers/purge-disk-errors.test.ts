// A purge on a disk that returns errors, or is full: it stops and says why, nothing that is kept changes, and the next one finishes it.
import {closeSync, fsyncSync, openSync, rmSync, writeSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {parseAddress, type TcpAddress} from '../../src/lib/address.js'
import {errnoOf} from '../../src/lib/errors.js'
import {connect} from '../../src/protocol/grpc/client.js'
import {ReplicaMode} from '../../src/protocol/proto/generated/controller.js'
import {SyncAgentServiceDefinition, type SnapshotPurgeStatusResponse} from '../../src/protocol/proto/generated/sync-agent.js'
import {longhorn} from '../cli/run-program.js'
import type {Replica, System} from '../crash/support/system.js'
import {until} from '../support/until.js'
import {comesBack, dropped, ends, modeOf, rebuilt, rig, scrub, snapshot, type Rig} from './support/disk-error-rig.js'
import {withoutFailingDisks} from './support/failing-disk.js'

const skip = await withoutFailingDisks()
const MIB = 1024 * 1024
const BLOCK = 4096
const DISK_ERROR = /input\/output error|i\/o error|read-only file system/i

/** Snapshots `one` and `two`, of which `one` is marked as removed and the smaller one: it is copied into `two`. No load. */
async function removedSnapshot(t: Test, kind: 'ext4' | 'xfs'): Promise<Rig> {
  const all = await rig(t, kind)
  const {system, load} = all
  await snapshot(system, 'one')
  await load.progress(1500)
  await snapshot(system, 'two')
  await load.progress(300)
  await load.stop()
  t.match(await longhorn(['snapshot', 'rm', 'one', '--engine', system.control]), {exitCode: 0})
  return all
}

function status({address}: Replica): Promise<SnapshotPurgeStatusResponse> {
  return askAgent(address, rpc => rpc.snapshotPurgeStatus({}))
}

async function askAgent<T>(address: string, question: (rpc: ReturnType<typeof agentOf>) => Promise<T>): Promise<T> {
  const rpc = agentOf(address)
  try {
    return await question(rpc)
  } finally {
    rpc.destroy()
  }
}

function agentOf(replica: string) {
  const address = parseAddress(replica) as TcpAddress
  return connect(SyncAgentServiceDefinition, {peer: 'sync agent', address: {...address, port: address.port + 2}})
}

/** Purges all replicas; the one on that disk cannot, and is said to be the one. */
async function failsToPurge(t: Test, {system, bad}: Rig, reason: RegExp): Promise<void> {
  const {exitCode, stderr} = await longhorn(['snapshot', 'purge', '--engine', system.control])
  t.not(exitCode, 0)
  t.match(stderr, bad.address, 'it is said which one')
  t.match(stderr, reason)
  const {state, error, isPurging} = await status(bad)
  t.match({state, isPurging}, {state: 'error', isPurging: false})
  t.match(error, reason, 'its status says why')
  t.match(error, 'volume-snap-one.img', 'and what it was about')
}

async function purges(t: Test, {control, replicas}: System): Promise<void> {
  t.match(await longhorn(['snapshot', 'purge', '--engine', control]), {exitCode: 0})
  for (const replica of replicas) t.match(await status(replica), {state: 'complete', error: ''})
}

t.test('layers that cannot be read', {skip}, async t => {
  const all = await removedSnapshot(t, 'ext4')
  const {disk, system, load, bad} = all
  for (const name of ['one', 'two']) for (let at = 0; at < 32; at += 8) await disk.damage(join(bad.directory, `volume-snap-${name}.img`), at * MIB, 64 * BLOCK)
  await failsToPurge(t, all, DISK_ERROR)
  t.equal(await modeOf(system, bad), ReplicaMode.RW, 'the replica can still be used')
  load.start()
  await load.progress(300)
  await load.stop()
  t.equal(await modeOf(system, bad), ReplicaMode.RW, 'what it cannot read others can')
  await until(async () => (await scrub(system)).found === 0n, 'nothing bad is left', 120_000)
  await purges(t, system)
  load.start()
  await ends(t, all, ['two'])
})

for (const kind of ['ext4', 'xfs'] as const) {
  t.test(`${kind}: nothing can be read any more`, {skip}, async t => {
    const all = await removedSnapshot(t, kind)
    const {disk, bad, load} = all
    disk.forget(bad.directory)
    await disk.fail({reads: true})
    await failsToPurge(t, all, DISK_ERROR)
    await comesBack(all)
    await rebuilt(all)
    await purges(t, all.system)
    load.start()
    await ends(t, all, ['two'])
  })

  t.test(`${kind}: nothing can be written any more`, {skip}, async t => {
    const all = await removedSnapshot(t, kind)
    const {disk, load} = all
    await disk.fail({writes: true})
    await failsToPurge(t, all, DISK_ERROR)
    load.start()
    await dropped(t, all, DISK_ERROR)
    await load.progress(300)
    await comesBack(all)
    await rebuilt(all)
    await purges(t, all.system)
    await ends(t, all, ['two'])
  })

  t.test(`${kind}: the disk fails in the middle of it, under load`, {skip}, async t => {
    const all = await removedSnapshot(t, kind)
    const {disk, load, bad} = all
    load.start()
    await askAgent(bad.address, rpc => rpc.snapshotPurge({}))
    await bad.daemon.says('purge: next step')
    await disk.fail({writes: true})
    await until(async () => !(await status(bad)).isPurging, 'it ends')
    const {state, error} = await status(bad)
    // It may have been quicker.
    if (state !== 'complete') t.match({state, error}, {state: 'error', error: /input\/output error|i\/o error|read-only file system|closed/i})
    await dropped(t, all, DISK_ERROR)
    await load.progress(300)
    await comesBack(all)
    await rebuilt(all)
    await purges(t, all.system)
    await ends(t, all, ['two'])
  })

  t.test(`${kind}: the disk is full`, {skip}, async t => {
    const all = await removedSnapshot(t, kind)
    const {disk, system, bad, load} = all
    const ballast = join(disk.path, 'ballast')
    fill(ballast)
    await failsToPurge(t, all, /no space left on device/)
    t.equal(await modeOf(system, bad), ReplicaMode.RW, 'the replica can still be used')
    await load.verifyAll()
    t.same(load.problems, [])
    rmSync(ballast)
    await purges(t, system)
    load.start()
    await ends(t, all, ['two'])
  })
}

/** Takes what is left of a disk. */
function fill(path: string): void {
  const fd = openSync(path, 'w')
  try {
    for (const bytes of [MIB, BLOCK]) writeUntilFull(fd, Buffer.alloc(bytes, 1))
  } finally {
    closeSync(fd)
  }
}

function writeUntilFull(fd: number, chunk: Buffer): void {
  try {
    for (;;) {
      writeSync(fd, chunk)
      // What is only promised may turn out not to be there.
      fsyncSync(fd)
    }
  } catch (error) {
    if (errnoOf(error) !== 'ENOSPC') throw error
  }
}
