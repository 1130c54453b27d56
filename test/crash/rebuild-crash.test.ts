// Everything that takes part in a rebuild is killed in the middle of it, under a load that knows what it has been promised.
import {setTimeout as delay} from 'node:timers/promises'
import t, {type Test} from 'tap'
import {seededRandom, type Random} from '../replica/support/random.js'
import {until} from '../support/until.js'
import {endsAlike, SIZE_BYTES, System, type Replica} from './support/system.js'
import {VerifiedLoad} from './support/verified-load.js'

interface Rig {
  readonly system: System
  readonly load: VerifiedLoad
  readonly random: Random
  /** The replica that was killed, has come back, and is not taken in yet. */
  readonly returned: Replica
}

/** Three replicas under load, of which one was killed and has missed something. */
async function rig(t: Test): Promise<Rig> {
  const random = seededRandom(t)
  const system = await System.start(t, 3)
  const load = new VerifiedLoad(SIZE_BYTES, random)
  load.rests = true
  await load.connect(system.socket)
  load.start()
  await load.progress(1500)
  await system.ask(rpc => rpc.volumeSnapshot({name: 'before', labels: new Map(), freezeFilesystem: false}))
  const returned = system.replicas[random.below(3)]!
  returned.daemon.signal('SIGKILL')
  await load.progress(800)
  await returned.daemon.exited
  await system.restart(returned)
  return {system, load, random, returned}
}

/** Slow enough to be caught in the middle of it. */
const SLOW = 4n * 1024n * 1024n

async function add(system: System, replica: Replica, bytesPerSecond = 0n): Promise<void> {
  await system.ask(rpc => rpc.replicaAdd({address: replica.address, bytesPerSecond}, {timeoutMs: 60_000}))
}

async function ends(t: Test, {system, load}: Rig): Promise<void> {
  await until(async () => (await system.inUse()).length === 3, 'all replicas are up to date', 60_000)
  await load.progress(500)
  await endsAlike(t, system, load)
}

t.test('the replica that is being rebuilt is killed, again and again', async t => {
  const all = await rig(t)
  const {system, load, random, returned} = all
  for (let round = 0; round < 3; round++) {
    await add(system, returned, SLOW)
    await load.progress(50 + random.below(600))
    returned.daemon.signal('SIGKILL')
    await load.progress(200)
    await returned.daemon.exited
    await system.restart(returned)
  }
  await add(system, returned)
  t.equal(load.errors, 0, 'the initiator does not notice')
  await ends(t, all)
})

t.test('a source is killed in the middle of it', async t => {
  const all = await rig(t)
  const {system, load, random, returned} = all
  await add(system, returned, SLOW)
  await load.progress(50 + random.below(300))
  const source = system.replicas.find(replica => replica !== returned)!
  source.daemon.signal('SIGKILL')
  await load.progress(300)
  t.equal(load.errors, 0, 'the initiator does not notice')
  await until(async () => (await system.inUse()).includes(returned), 'the other source is enough', 60_000)
  await source.daemon.exited
  await system.restart(source)
  await add(system, source)
  await ends(t, all)
})

t.test('the engine is killed in the middle of it, and the next one goes on', async t => {
  const all = await rig(t)
  const {system, load, random, returned} = all
  await add(system, returned, SLOW)
  await delay(random.below(1500))
  await load.progress(32)
  system.engine!.signal('SIGKILL')
  await load.stop()
  load.disconnect()
  await system.startEngine(system.replicas)
  await load.connect(system.socket)
  await load.verifyAll()
  t.same(load.problems, [])
  load.start()
  await ends(t, all)
})

t.test('everything is killed in the middle of it', async t => {
  const all = await rig(t)
  const {system, load, random, returned} = all
  await add(system, returned, SLOW)
  await delay(random.below(1500))
  await load.progress(32)
  const daemons = [system.engine!, ...system.replicas.map(({daemon}) => daemon)]
  for (const daemon of daemons) daemon.signal('SIGKILL')
  await load.stop()
  load.disconnect()
  for (const daemon of daemons) await daemon.exited
  await Promise.all(system.replicas.map(replica => system.restart(replica)))
  await system.startEngine(system.replicas)
  await load.connect(system.socket)
  await load.verifyAll()
  t.same(load.problems, [])
  load.start()
  await ends(t, all)
})
