import {readFileSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {isInstalled, runCommand, tryCommand} from '../../../src/drivers/attach/run-command.js'

const timeoutMs = 60_000

t.test('output, exit code, error text', async t => {
  t.match(await tryCommand('sh', ['-c', 'echo out; echo err >&2'], {timeoutMs}), {ok: true, stdout: 'out', stderr: 'err'})
  t.match(await tryCommand('sh', ['-c', 'echo bad >&2; exit 3'], {timeoutMs}), {ok: false, stderr: 'bad'})
  t.match(await tryCommand('false', [], {timeoutMs}), {ok: false, stderr: /exit code 1/}, 'there is always a reason')
  t.equal(await runCommand('echo', ['x'], {timeoutMs}), 'x')
  await t.rejects(runCommand('sh', ['-c', 'echo bad >&2; exit 3'], {timeoutMs}), {code: 'LH_IO', message: /"sh .*" failed: bad/})
})

t.test('a program that does not end is killed', async t => {
  await t.rejects(tryCommand('sleep', ['600'], {timeoutMs: 50}), {code: 'LH_TIMEOUT', message: /"sleep 600"/})
})

t.test('a program whose children keep its output open is not waited for', async t => {
  const pidFile = join(t.testdir(), 'pid')
  const started = performance.now()
  await t.rejects(tryCommand('sh', ['-c', `sleep 600 & echo $! > '${pidFile}'; wait`], {timeoutMs: 2000}), {code: 'LH_TIMEOUT'})
  t.ok(performance.now() - started < 300_000)
  process.kill(Number(readFileSync(pidFile, 'utf8')), 'SIGKILL')
})

t.test('the signal ends it, with its reason', async t => {
  await t.rejects(tryCommand('sleep', ['600'], {timeoutMs, signal: AbortSignal.abort(new Error('early'))}), {message: 'early'})
  await t.rejects(tryCommand('sleep', ['600'], {timeoutMs, signal: AbortSignal.timeout(50)}), {name: 'TimeoutError'})
})

t.test('a program that is not installed', async t => {
  await t.rejects(tryCommand('no-such-program', [], {timeoutMs}), {code: 'LH_UNSUPPORTED', message: /no-such-program/})
  t.notOk(await isInstalled('no-such-program'))
  t.ok(await isInstalled('sh'))
})
