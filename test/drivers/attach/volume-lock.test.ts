import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {existsSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {VolumeLock} from '../../../src/drivers/attach/volume-lock.js'

t.test('one at a time, and no file is left', async t => {
  const path = join(t.testdir(), 'locks', 'v')
  const first = await VolumeLock.take(path, 1000)
  t.ok(VolumeLock.isHeld(path))
  await t.rejects(VolumeLock.take(path, 100), {code: 'LH_BUSY', message: path})
  const second = VolumeLock.take(path, 5000)
  first.close()
  first.close()
  await using lock = await second
  t.ok(VolumeLock.isHeld(path))
  lock.close()
  t.notOk(existsSync(path))
  t.notOk(VolumeLock.isHeld(path))
})

t.test('many who want it get it one after the other', async t => {
  const path = join(t.testdir(), 'v')
  let inside = 0
  let most = 0
  await Promise.all(
    Array.from({length: 20}, async () => {
      await using _lock = await VolumeLock.take(path, 60_000)
      most = Math.max(most, ++inside)
      await new Promise(resolve => setTimeout(resolve, 5))
      inside--
    }),
  )
  t.equal(most, 1)
  t.notOk(existsSync(path))
})

t.test('the file of a dead process does not count', async t => {
  const path = join(t.testdir(), 'v')
  writeFileSync(path, '')
  const lock = await VolumeLock.take(path, 100)
  lock.close()
  t.notOk(existsSync(path))
})

t.test('a process that is killed gives it back', async t => {
  const path = join(t.testdir(), 'v')
  const child = spawn('flock', ['--no-fork', path, 'sleep', '60'], {stdio: 'ignore'})
  t.teardown(() => child.kill('SIGKILL'))
  while (!VolumeLock.isHeld(path)) await new Promise(resolve => setTimeout(resolve, 10))
  const waiting = VolumeLock.take(path, 60_000)
  child.kill('SIGKILL')
  await once(child, 'exit')
  const lock = await waiting
  lock.close()
})

t.test('waiting for it ends with the signal', async t => {
  const path = join(t.testdir(), 'v')
  await using _lock = await VolumeLock.take(path, 100)
  await t.rejects(VolumeLock.take(path, 10_000, AbortSignal.timeout(30)), {name: 'TimeoutError'})
})
