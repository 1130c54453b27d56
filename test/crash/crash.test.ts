// Processes are killed and stopped under a load that knows what it has been promised.
import {readFileSync} from 'node:fs'
import {join} from 'node:path'
import {setTimeout as delay} from 'node:timers/promises'
import t, {type Test} from 'tap'
import {seededRandom} from '../replica/support/random.js'
import {sameImages, SIZE_BYTES, System, verifyImages} from './support/system.js'
import {VerifiedLoad} from './support/verified-load.js'

/** Of a replica that is to be given up, in seconds. What the others are asked meanwhile takes that long on no disk that other tests keep busy. */
const SHORT_S = '10'

function noProblems(t: Test, load: VerifiedLoad): void {
  t.same(load.problems, [])
}

t.test('a clean stop, without and with load', async t => {
  const system = await System.start(t, 2)
  const load = new VerifiedLoad(SIZE_BYTES, seededRandom(t))
  await load.connect(system.socket)
  load.start()
  await load.progress(1000)
  const stopping = system.stop()
  await load.stop()
  await stopping
  t.notOk(system.engine!.said('cut off'), 'nobody waits for a client that goes on writing')
  noProblems(t, load)
  await sameImages(t, system.replicas)
  await verifyImages(load, system.replicas)
  noProblems(t, load)
})

t.test('kill -9 of a replica', async t => {
  const system = await System.start(t, 3, ['--engine-replica-timeout', '90'])
  const [victim, ...others] = system.replicas
  const load = new VerifiedLoad(SIZE_BYTES, seededRandom(t))
  await load.connect(system.socket)
  load.start()
  await load.progress(700)
  victim!.daemon.signal('SIGKILL')
  await load.progress(1500)
  await load.stop()
  t.equal(load.errors, 0, 'the initiator does not notice')
  t.ok(load.longestSilenceMs < 45_000, `nobody waits for the time-out: ${Math.round(load.longestSilenceMs)} ms without an answer`)
  await load.verifyAll()
  await system.stop(others)
  noProblems(t, load)
  await sameImages(t, others)
  await verifyImages(load, others)
  noProblems(t, load)
})

t.test('a replica is told to stop under load', async t => {
  const system = await System.start(t, 2)
  const [victim, other] = system.replicas
  const load = new VerifiedLoad(SIZE_BYTES, seededRandom(t))
  await load.connect(system.socket)
  load.start()
  await load.progress(700)
  t.same(await victim!.daemon.end('SIGTERM'), [0, null])
  await load.progress(700)
  await load.stop()
  t.equal(load.errors, 0, 'the initiator does not notice')
  t.match(readFileSync(join(victim!.directory, 'volume.meta'), 'utf8'), /"Dirty":false/)
  await load.verifyAll()
  await system.stop([other!])
  noProblems(t, load)
})

t.test('a replica stands still (SIGSTOP)', async t => {
  const system = await System.start(t, 3, ['--engine-replica-timeout', SHORT_S])
  const [victim] = system.replicas
  const load = new VerifiedLoad(SIZE_BYTES, seededRandom(t), false)
  await load.connect(system.socket)
  load.start(64)
  await load.progress(1500)
  const before = system.engine!.residentMiB()
  let most = before
  const watch = setInterval(() => {
    most = Math.max(most, system.engine!.residentMiB())
  }, 50)
  victim!.daemon.signal('SIGSTOP')
  await load.progress(2500)
  clearInterval(watch)
  // The time-out, a second until it is looked at, and much more for a busy machine.
  t.ok(load.longestSilenceMs < 60_000, `${Math.round(load.longestSilenceMs)} ms without an answer`)
  t.ok(load.longestSilenceMs > 1000, 'it was given time')
  t.equal(load.errors, 0, 'the initiator gets no error')
  t.ok(most - before < 200, `the engine grew from ${Math.round(before)} to ${Math.round(most)} MiB`)
  victim!.daemon.signal('SIGCONT')
  await load.progress(1000)
  await load.stop()
  t.equal(load.errors, 0)
  await load.verifyAll()
  const left = await system.inUse()
  t.same(left, system.replicas.slice(1), 'the others are in use')
  await system.stop(left)
  noProblems(t, load)
  await sameImages(t, left)
  await verifyImages(load, left)
  noProblems(t, load)
})

t.test('the engine stands still for longer than replicas may', async t => {
  const system = await System.start(t, 2, ['--engine-replica-timeout', SHORT_S])
  const load = new VerifiedLoad(SIZE_BYTES, seededRandom(t), false)
  await load.connect(system.socket)
  load.start()
  await load.progress(1000)
  system.engine!.signal('SIGSTOP')
  await delay(2000 * Number(SHORT_S))
  system.engine!.signal('SIGCONT')
  await load.progress(1000)
  await load.stop()
  t.equal(load.errors, 0)
  await load.verifyAll()
  t.same(await system.inUse(), system.replicas)
  await system.stop()
  noProblems(t, load)
  await sameImages(t, system.replicas)
})

t.test('kill -9 of the engine, again and again: the next one takes over', async t => {
  const random = seededRandom(t)
  const system = await System.start(t, 2)
  const load = new VerifiedLoad(SIZE_BYTES, random)
  for (let round = 0; round < 2; round++) {
    await load.connect(system.socket)
    load.start()
    await load.progress(300 + random.below(700))
    system.engine!.signal('SIGKILL')
    await load.stop()
    load.disconnect()
    await system.startEngine(system.replicas)
    await load.connect(system.socket)
    await load.verifyAll()
    noProblems(t, load)
    load.disconnect()
  }
  await system.resynced()
  await system.stop()
  await verifyImages(load, system.replicas)
  noProblems(t, load)
  await sameImages(t, system.replicas)
})

t.test('kill -9 of everything, again and again', async t => {
  const random = seededRandom(t)
  const system = await System.start(t, 2)
  const load = new VerifiedLoad(SIZE_BYTES, random)
  for (let round = 0; round < 2; round++) {
    await load.connect(system.socket)
    load.start()
    await load.progress(300 + random.below(700))
    // The engine first: it would drop the first of the replicas and go on with the other, see the last test.
    const all = [system.engine!, ...system.replicas.map(({daemon}) => daemon)]
    for (const daemon of all) daemon.signal('SIGKILL')
    await load.stop()
    load.disconnect()
    for (const daemon of all) await daemon.exited
    for (const replica of system.replicas) t.match(readFileSync(join(replica.directory, 'volume.meta'), 'utf8'), /"Dirty":true/)
    await Promise.all(system.replicas.map(replica => system.restart(replica)))
    await system.startEngine(system.replicas)
    await load.connect(system.socket)
    await load.verifyAll()
    noProblems(t, load)
    load.disconnect()
  }
  await system.resynced()
  await system.stop()
  await verifyImages(load, system.replicas)
  noProblems(t, load)
  await sameImages(t, system.replicas)
})

t.test('kill -9 of all replicas, one after the other: errors and not silence, and the last one has everything', async t => {
  const system = await System.start(t, 2, ['--engine-replica-timeout', '90'])
  const [first, last] = system.replicas
  const load = new VerifiedLoad(SIZE_BYTES, seededRandom(t))
  await load.connect(system.socket)
  load.start()
  await load.progress(800)
  first!.daemon.signal('SIGKILL')
  await load.progress(800)
  last!.daemon.signal('SIGKILL')
  await load.progress(1500)
  t.ok(load.errors > 0)
  t.ok(load.longestSilenceMs < 45_000, `nobody waits for the time-out: ${Math.round(load.longestSilenceMs)} ms without an answer`)
  await load.stop()
  load.disconnect()
  t.same(await system.engine!.end('SIGTERM'), [0, null])
  await system.restart(last!)
  await system.startEngine([last!])
  await load.connect(system.socket)
  await load.verifyAll()
  noProblems(t, load)
  await system.stop([last!])
})

t.test('a replica that was dropped and comes back: what it has is not taken for the volume', async t => {
  const system = await System.start(t, 2)
  const [victim, other] = system.replicas
  const load = new VerifiedLoad(SIZE_BYTES, seededRandom(t))
  await load.connect(system.socket)
  load.start()
  await load.progress(300)
  victim!.daemon.signal('SIGKILL')
  await load.progress(800)
  await load.stop()
  load.disconnect()
  await system.engine!.end('SIGTERM')
  await system.restart(victim!)
  await system.startEngine([victim!, other!])
  await load.connect(system.socket)
  await load.verifyAll()
  noProblems(t, load)
  await system.resynced()
  load.start()
  await load.progress(300)
  await load.stop()
  await load.verifyAll()
  await system.stop()
  noProblems(t, load)
  await sameImages(t, system.replicas)
  await verifyImages(load, system.replicas)
  noProblems(t, load)
})
