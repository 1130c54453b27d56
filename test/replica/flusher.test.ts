import t from 'tap'
import {LonghornError} from '../../src/lib/errors.js'
import {Flusher} from '../../src/replica/flusher.js'
import {Gate} from '../../src/replica/gate.js'

/** A flusher over one file whose fdatasync ends when the test says so. */
function setUp() {
  const running: ((error: Error | null) => void)[] = []
  const failures: LonghornError[] = []
  const gate = new Gate(reason => failures.push(reason))
  const flusher = new Flusher([3], '/r1/head', gate, (_fd, done) => running.push(done))
  let started = 0
  const finish = async (error: Error | null = null): Promise<void> => {
    started += 1
    running.shift()?.(error)
    await new Promise(resolve => setImmediate(resolve))
  }
  return {flusher, gate, running, failures, finish, started: () => started + running.length}
}

/** Notes when each of these is done. */
function watch(flushes: Record<string, Promise<void>>): string[] {
  const done: string[] = []
  for (const [name, flush] of Object.entries(flushes)) {
    flush.then(
      () => done.push(name),
      () => done.push(`${name} failed`),
    )
  }
  return done
}

t.test('what is asked for during a flush, after a write, waits for the next one, and all share it', async t => {
  const {flusher, running, finish, started} = setUp()
  const first = flusher.flush()
  flusher.touch()
  const done = watch({first, second: flusher.flush(), third: flusher.flush()})
  t.equal(running.length, 1)
  await finish()
  t.strictSame(done, ['first'])
  t.equal(running.length, 1, 'the next one started by itself')
  await finish()
  t.strictSame(done, ['first', 'second', 'third'])
  t.equal(started(), 2)
})

t.test('without a write in between the running one is enough, and when clean there is nothing to do', async t => {
  const {flusher, running, finish, started} = setUp()
  const done = watch({first: flusher.flush(), second: flusher.flush()})
  await finish()
  t.strictSame(done, ['first', 'second'])
  await flusher.flush()
  t.equal(running.length, 0)
  t.equal(started(), 1)
  flusher.touch()
  void flusher.flush()
  t.equal(running.length, 1)
})

t.test('a write during a flush is not covered by it', async t => {
  const {flusher, finish, started} = setUp()
  const first = flusher.flush()
  flusher.touch()
  await finish()
  await first
  void flusher.flush()
  t.equal(started(), 2)
})

t.test('a failure is final, for those who wait and for those who come later', async t => {
  const {flusher, gate, failures, finish, running} = setUp()
  const first = flusher.flush()
  flusher.touch()
  const second = flusher.flush()
  const error = Object.assign(new Error('EIO'), {code: 'EIO'})
  const both = Promise.allSettled([first, second])
  await finish(error)
  t.match(await both, [{reason: {code: 'LH_IO', message: 'flushing /r1/head: i/o error', cause: error}}, {reason: {code: 'LH_IO'}}])
  await t.rejects(flusher.flush(), {code: 'LH_IO'})
  t.equal(running.length, 0, 'no second attempt: the kernel has forgotten what it could not write')
  t.equal(gate.failed, true)
  t.equal(failures.length, 1)
})

t.test('two files are synced side by side', async t => {
  const done: ((error: Error | null) => void)[] = []
  const flusher = new Flusher([3, 4], 'x', new Gate(), (_fd, finished) => done.push(finished))
  const finished = watch({both: flusher.flush()})
  t.equal(done.length, 2)
  done[0]?.(null)
  await Promise.resolve()
  t.strictSame(finished, [])
  done[1]?.(null)
  await new Promise(resolve => setImmediate(resolve))
  t.strictSame(finished, ['both'])
})

t.test('a gate shuts once; a failure counts more than a close', async t => {
  const gate = new Gate()
  const closed = new LonghornError('CONFLICT', 'closed')
  const failed = new LonghornError('IO', 'failed')
  gate.close(closed)
  gate.close(new LonghornError('CONFLICT', 'again'))
  t.equal(gate.reason, closed)
  gate.checkFailure()
  t.equal(gate.fail(failed), failed)
  t.equal(gate.fail(new LonghornError('IO', 'later')), failed)
  t.throws(() => gate.checkFailure(), {message: 'failed'})
})
