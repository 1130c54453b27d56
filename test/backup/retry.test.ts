import t from 'tap'
import {retried} from '../../src/backup/retry.js'
import {LonghornError} from '../../src/lib/errors.js'

t.test('an interrupt ends the waiting at once, with its reason', async t => {
  const abort = new AbortController()
  const reason = new LonghornError('INTERRUPTED', 'the backup was cancelled')
  let calls = 0
  const work = async (): Promise<never> => {
    calls++
    queueMicrotask(() => abort.abort(reason))
    throw new LonghornError('UNREACHABLE', 'the store is away')
  }
  await t.rejects(retried(work, abort.signal), reason)
  t.equal(calls, 1)
})

t.test('what does not pass is not tried again', async t => {
  for (const [kind, io] of [['NO_SPACE', true], ['IO', false], ['CORRUPT', true], ['NOT_FOUND', true]] as const) {
    let calls = 0
    await t.rejects(
      retried(async () => {
        calls++
        throw new LonghornError(kind, 'no')
      }, undefined, {io}),
      {code: `LH_${kind}`},
    )
    t.equal(calls, 1, kind)
  }
})
