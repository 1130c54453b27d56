import {spawn, type ChildProcess} from 'node:child_process'
import {once} from 'node:events'
import {existsSync, mkdtempSync, rmSync, writeFileSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {makeKeeperFile, readStatus, removeKeeper, takeKeeperFile, writeStatus} from '../../../src/drivers/attach/kernel-nbd/keeper-file.js'

const MODULE = new URL('../../../src/drivers/attach/kernel-nbd/keeper-file.js', import.meta.url).href
/** Takes the file, says so, and stays; whether it hangs up when it is told to is up to the test. */
const KEEPER = `
  import {HANG_UP, takeKeeperFile, writeStatus} from ${JSON.stringify(MODULE)}
  const fd = await takeKeeperFile(process.argv[1])
  if (fd === undefined) process.exit(3)
  writeStatus(fd, {pid: process.pid, state: 'linked'})
  process.on(HANG_UP, () => { if (process.argv[2] !== 'deaf') process.exit(0) })
  setInterval(() => undefined, 1000)
  console.log('kept')`

t.test('a keeper that lives tells of itself', async t => {
  const path = keeperPath(t)
  t.equal(readStatus(path), undefined, 'no file')
  makeKeeperFile(path)
  t.equal(readStatus(path), undefined, 'nobody keeps it')
  const child = await keep(t, path)
  t.same(readStatus(path), {pid: child.pid, state: 'linked'})
  const second = start(t, path)
  const [code] = (await once(second, 'exit')) as [number]
  t.equal(code, 3, 'there is one already')
  child.kill('SIGKILL')
  await once(child, 'exit')
  t.equal(readStatus(path), undefined)
})

t.test('a keeper that comes too late does nothing', async t => {
  const path = keeperPath(t)
  t.equal(await takeKeeperFile(path), undefined, 'its file was removed')
  t.notOk(existsSync(path))
})

t.test('removing ends the keeper, and its file is gone', async t => {
  for (const hangUp of [false, true]) {
    const path = keeperPath(t)
    makeKeeperFile(path)
    const child = await keep(t, path)
    const exited = once(child, 'exit') as Promise<[number | null, string | null]>
    await removeKeeper(path, {hangUp})
    t.same(await exited, hangUp ? [0, null] : [null, 'SIGKILL'], hangUp ? 'it could hang up' : 'at once')
    t.notOk(existsSync(path))
    await removeKeeper(path, {hangUp})
  }
})

t.test('a keeper that does not listen is killed', async t => {
  const path = keeperPath(t)
  makeKeeperFile(path)
  const child = await keep(t, path, 'deaf')
  const exited = once(child, 'exit') as Promise<[number | null, string | null]>
  await removeKeeper(path, {hangUp: true})
  t.same(await exited, [null, 'SIGKILL'])
})

t.test('a file that nobody keeps is just removed, also when it is empty or holds nonsense', async t => {
  for (const content of ['', 'nonsense', `${' '.repeat(127)}\n`]) {
    const path = keeperPath(t)
    writeFileSync(path, content)
    t.equal(readStatus(path), undefined)
    await removeKeeper(path, {hangUp: true})
    t.notOk(existsSync(path))
  }
})

t.test('a status is replaced as a whole', async t => {
  const path = keeperPath(t)
  makeKeeperFile(path)
  const fd = await takeKeeperFile(path)
  writeStatus(fd!, {pid: process.pid, state: 'starting'})
  writeStatus(fd!, {pid: process.pid, state: 'lost'})
  t.same(readStatus(path), {pid: process.pid, state: 'lost'})
})

function keeperPath(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'lh-'))
  t.teardown(() => rmSync(folder, {recursive: true}))
  return join(folder, 'nbd-0123456789abcdef.keeper')
}

async function keep(t: Test, path: string, how = ''): Promise<ChildProcess> {
  const child = start(t, path, how)
  await once(child.stdout!, 'data')
  return child
}

function start(t: Test, path: string, how = ''): ChildProcess {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', KEEPER, path, how], {stdio: ['ignore', 'pipe', 'inherit']})
  t.teardown(() => child.kill('SIGKILL'))
  return child
}
