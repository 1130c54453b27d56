import {spawn, type ChildProcess} from 'node:child_process'
import {once} from 'node:events'
import t from 'tap'
import {findProcesses, identify, isRunning, programOf, signalProcess, waitForExit} from '../../../src/drivers/attach/process-identity.js'
import {until} from '../../support/until.js'

t.test('a process is known by its number and its start', async t => {
  const child = spawn('sleep', ['60'])
  t.teardown(() => end(child))
  const id = identify(child.pid ?? 0)
  if (id === undefined) throw new Error('it does not run')
  t.ok(isRunning(id))
  t.equal(programOf(id.pid), 'sleep')
  t.notOk(await waitForExit(id, 30))

  const successor = {...id, startTicks: id.startTicks - 1}
  t.notOk(isRunning(successor), 'somebody else who had this number before')
  signalProcess(successor, 'SIGKILL')
  t.ok(isRunning(id), 'is not mistaken for it')

  signalProcess(id, 'SIGKILL')
  t.ok(await waitForExit(id, 60_000))
  t.equal(identify(id.pid), undefined)
  signalProcess(id, 'SIGKILL')
})

t.test('what nobody has waited for yet counts as ended', async t => {
  // The shell starts a process that ends at once and then becomes a program that never waits for its children.
  const child = spawn('sh', ['-c', 'true & echo $!; exec sleep 60'], {stdio: ['ignore', 'pipe', 'ignore']})
  t.teardown(() => end(child))
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  const pid = Number(line.toString())
  await until(() => identify(pid) === undefined, 'it has ended')
})

t.test('found by program and by one whole argument', async t => {
  const argument = `59.${process.pid}`
  const child = spawn('sleep', [argument])
  t.teardown(() => end(child))
  await once(child, 'spawn')
  t.same(findProcesses('sleep', argument).map(({pid}) => pid), [child.pid])
  t.same(findProcesses('sleep', argument.slice(0, -1)), [])
  t.same(findProcesses('sleeper', argument), [])
})

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGKILL')
  await once(child, 'exit')
}
