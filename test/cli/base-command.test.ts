import {once} from 'node:events'
import t from 'tap'
import {sample} from './run-program.js'

t.test('the result is text on stdout, or JSON', async t => {
  const text = await sample(['print', '--retries', '3'])
  t.match(text, {exitCode: 0, stdout: 'manager=undefined retries=3 size=undefined', stderr: ''})
  for (const args of [['--json'], ['--output', 'json'], ['--output=json'], ['-o', 'json'], ['-ojson']]) {
    const json = await sample(['print', ...args])
    t.equal(json.exitCode, 0)
    t.match(JSON.parse(json.stdout), {big: '9223372036854775808'}, args.join(' '))
  }
})

t.test('a failure is one line on stderr and the exit code of its kind', async t => {
  const {exitCode, stdout, stderr} = await sample(['fail'])
  t.match({exitCode, stdout, stderr}, {exitCode: 16, stdout: '', stderr: 'Error: replica 10.0.0.3: no space left'})
})

t.test('with JSON output a failure is an object on stdout, with the same exit code', async t => {
  const {exitCode, stdout, stderr} = await sample(['fail', '--json'])
  t.match({exitCode, stderr}, {exitCode: 16, stderr: ''})
  t.same(JSON.parse(stdout), {
    error: {code: 'LH_NO_SPACE', message: 'replica 10.0.0.3: no space left', details: {replica: '10.0.0.3'}},
  })
})

t.test('what nobody foresaw exits with 1, and shows its stack only when asked', async t => {
  const plain = await sample(['bug'])
  t.match(plain, {exitCode: 1, stdout: '', stderr: 'Error: x is not a function (unexpected; --debug shows where)'})
  t.notMatch(plain.stderr, /at /)
  t.match(await sample(['bug', '--debug']), {exitCode: 1, stderr: /TypeError: x is not a function\n +at /})
  t.match(await sample(['bug'], {LONGHORN_DEBUG: '1'}), {exitCode: 1, stderr: /\n +at /})
  const json = await sample(['bug', '--json'])
  t.match(JSON.parse(json.stdout), {error: {code: 'LH_INTERNAL', message: 'x is not a function'}})
})

t.test('an argument that a parser of ours refuses names its flag', async t => {
  const {exitCode, stderr} = await sample(['print', '--size', '2x'])
  t.equal(exitCode, 2)
  t.match(stderr, /^Error: --size: invalid size "2x": .*$/)
  t.notMatch(stderr, /\n/)
})

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  t.test(`${signal} lets finally run and exits with 130`, async t => {
    const running = sample(['wait'])
    await once(running.stderr, 'data')
    running.kill(signal)
    t.match(await running, {exitCode: 130, stdout: '', stderr: `waiting\ncleaned up\nError: interrupted by ${signal}`})
  })
}

t.test('what an interrupt means is told by whoever knows it', async t => {
  const running = sample(['leave'])
  await once(running.stderr, 'data')
  running.kill('SIGINT')
  t.match(await running, {exitCode: 130, stderr: 'waiting\ncleaned up\nError: the work goes on without this command'})
})

t.test('an interrupt has its JSON, too', async t => {
  const running = sample(['wait', '--json'])
  await once(running.stderr, 'data')
  running.kill('SIGINT')
  const {exitCode, stdout} = await running
  t.equal(exitCode, 130)
  t.match(JSON.parse(stdout), {error: {code: 'LH_INTERRUPTED', message: 'interrupted by SIGINT'}})
})

t.test('a second signal ends a command that does not listen', async t => {
  const running = sample(['stubborn'])
  await once(running.stderr, 'data')
  running.kill('SIGINT')
  await once(running.stderr, 'data')
  running.kill('SIGINT')
  t.match(await running, {exitCode: 130, stderr: 'waiting\nheard'})
})

t.test('a reader that goes away does not make a failure', async t => {
  const running = sample(['print'])
  running.stdout.destroy()
  t.equal((await running).exitCode, 0)
})
