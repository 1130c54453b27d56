import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {readdirSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {DirectoryLock} from '../../src/replica/directory-lock.js'

t.test('one holder at a time, and no file is left behind', async t => {
  const directory = t.testdir({})
  const lock = new DirectoryLock(directory)
  t.throws(() => new DirectoryLock(directory), {code: 'LH_BUSY', message: /in use by this process/, details: {directory, pid: process.pid}})
  lock.close()
  lock.close()
  new DirectoryLock(directory).close()
  t.strictSame(readdirSync(directory), [])
})

t.test('another process is named, and its death frees the directory', async t => {
  const directory = t.testdir({})
  const module = new URL('../../src/replica/directory-lock.js', import.meta.url).href
  const script = `
    const {DirectoryLock} = await import(${JSON.stringify(module)})
    const lock = new DirectoryLock(${JSON.stringify(directory)})
    console.log('locked', lock !== undefined)
    setInterval(() => lock, 1000)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {stdio: ['ignore', 'pipe', 'inherit']})
  t.teardown(() => {
    child.kill('SIGKILL')
  })
  await once(child.stdout, 'data')
  t.throws(() => new DirectoryLock(directory), {code: 'LH_BUSY', message: `in use by process ${child.pid}`})
  child.kill('SIGKILL')
  await once(child, 'exit')
  new DirectoryLock(directory).close()
})

t.test('what is not a directory', async t => {
  const directory = t.testdir({})
  t.throws(() => new DirectoryLock(join(directory, 'none')), {code: 'LH_NOT_FOUND', message: /does not exist/})
  writeFileSync(join(directory, 'file'), '')
  t.throws(() => new DirectoryLock(join(directory, 'file')), {code: 'LH_NOT_FOUND', message: /not a directory/})
})
