import {once} from 'node:events'
import t from 'tap'
import {inParallel} from '../../src/backup/parallel.js'

t.test('many that listen for the end at once are no leak', async t => {
  const warnings: Error[] = []
  const onWarning = (warning: Error): void => void warnings.push(warning)
  process.on('warning', onWarning)
  t.teardown(() => process.off('warning', onWarning))
  const abort = new AbortController()
  const running = inParallel(Array(64).keys(), 64, async (_item, signal) => {
    await once(signal, 'abort')
    signal.throwIfAborted()
  }, abort.signal)
  // Warnings come in a turn of their own.
  await new Promise(resolve => setImmediate(resolve))
  const reason = new Error('enough')
  abort.abort(reason)
  await t.rejects(running, reason)
  t.same(warnings, [])
})
