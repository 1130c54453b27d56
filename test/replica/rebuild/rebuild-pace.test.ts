import t from 'tap'
import {RebuildPace} from '../../../src/replica/rebuild/rebuild-pace.js'

/** How many of ten pieces of work were under way at the same time, at most. */
async function mostAtOnce(pace: RebuildPace): Promise<number> {
  let running = 0
  let most = 0
  const piece = () =>
    pace.run(1, async () => {
      running += 1
      most = Math.max(most, running)
      await new Promise(resolve => setImmediate(resolve))
      running -= 1
    })
  await Promise.all(Array.from({length: 10}, piece))
  return most
}

t.test('side by side, and one after the other while the volume is used', async t => {
  const {signal} = new AbortController()
  t.equal(await mostAtOnce(new RebuildPace(0, () => false, signal)), 10)
  t.equal(await mostAtOnce(new RebuildPace(0, () => true, signal)), 1)
})

t.test('one piece that fails does not keep the next ones', async t => {
  const pace = new RebuildPace(0, () => true, new AbortController().signal)
  const failing = pace.run(1, () => Promise.reject(new Error('this one')))
  const next = pace.run(1, () => Promise.resolve('done'))
  await t.rejects(failing, /this one/)
  t.equal(await next, 'done')
})

t.test('what is asked to end ends, also what waits for its turn', async t => {
  const abort = new AbortController()
  const pace = new RebuildPace(0, () => true, abort.signal)
  let release: () => void = () => undefined
  const held = pace.run(1, () => new Promise<void>(resolve => (release = resolve)))
  const waiting = pace.run(1, () => Promise.resolve())
  await new Promise(resolve => setImmediate(resolve))
  abort.abort(new Error('enough'))
  release()
  await held
  await t.rejects(waiting, /enough/)
})

t.test('many that wait for the rate at once are no leak to Node', async t => {
  const warnings: Error[] = []
  const warned = (warning: Error): number => warnings.push(warning)
  process.on('warning', warned)
  t.teardown(() => process.off('warning', warned))
  const abort = new AbortController()
  const pace = new RebuildPace(1, () => false, abort.signal)
  const waiting = Array.from({length: 20}, () => pace.run(1_000_000, () => Promise.resolve()))
  // Warnings are emitted in a later tick.
  await new Promise(resolve => setImmediate(resolve))
  abort.abort(new Error('enough'))
  const ended = await Promise.allSettled(waiting)
  t.ok(ended.every(({status}) => status === 'rejected'))
  t.same(warnings, [])
})
