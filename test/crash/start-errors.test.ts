// Daemons that are started wrongly: one clear line, an exit code that scripts may rely on, and no trace.
import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {readFileSync, rmSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {longhorn, projectRoot} from '../cli/run-program.js'
import {startEngine, startReplica} from '../support/daemons.js'
import {directoryState} from '../support/directory-state.js'
import {shortDir} from '../support/short-dir.js'

const SIZE = 4 * 1024 * 1024

t.test('what a user gets to read', async t => {
  const folder = shortDir(t)
  const start = (name: string, size = SIZE): ReturnType<typeof startReplica> => startReplica(t, join(folder, name), size)
  const [running, large, idle, damaged] = await Promise.all([start('running'), start('large', 2 * SIZE), start('idle'), start('damaged')])
  const socket = join(folder, 'vol.sock')
  const engine = await startEngine(t, {sizeBytes: SIZE, replicas: [running.address], socket})
  await damaged.daemon.end('SIGTERM')
  rmSync(join(folder, 'damaged', 'volume-head-000.img'))

  const another = (...args: string[]): string[] => ['engine', 'other', '--size', `${SIZE}`, '--listen', '127.0.0.1:0', '--replica', ...args]
  const replica = (name: string): string[] => ['replica', join(folder, name), '--size', `${SIZE}`, '--listen', '127.0.0.1:0']
  const cases: {what: string; args: string[]; exit: number; line: RegExp}[] = [
    {what: 'a bad name', args: ['engine', 'a/b', '--size', '4m', '--replica', idle.address], exit: 2, line: /invalid volume name "a\/b"/},
    {what: 'a replica that is not there', args: another('127.0.0.1:1'), exit: 12, line: /127\.0\.0\.1:1: .*refused/},
    {what: 'different sizes', args: another(large.address, '--replica', idle.address), exit: 11, line: /different sizes/},
    {what: 'too few', args: another(idle.address, '--replica', '127.0.0.1:1', '--min-replicas', '2'), exit: 61, line: /^Error: 1 of at least 2 replicas/},
    {what: 'a frontend nobody knows', args: another(idle.address, '--frontend', 'floppy'), exit: 2, line: /unknown frontend "floppy": expected /},
    {
      what: 'a socket in use',
      args: another(idle.address, '--frontend', 'socket', '--frontend-listen', `unix:${socket}`),
      exit: 11,
      line: /vol\.sock: it is in use/,
    },
    {what: 'a directory in use', args: replica('running'), exit: 17, line: /running is in use by process \d+/},
    {what: 'no such folder', args: replica('a/b'), exit: 10, line: /does not exist/},
    {what: 'a layer that is gone', args: replica('damaged'), exit: 15, line: /volume-head-000\.img is missing/},
  ]
  const folders = ['idle', 'damaged', 'large']
  const before = folders.map(name => directoryState(join(folder, name)))
  // Two at a time: most of the time goes into starting Node.
  const queue = [...cases]
  const worker = async (): Promise<void> => {
    for (let one = queue.shift(); one !== undefined; one = queue.shift()) {
      const {exitCode, stdout, stderr} = await longhorn(one.args)
      t.equal(exitCode, one.exit, one.what)
      t.equal(stdout, '')
      const errors = stderr.split('\n').filter(line => !line.startsWith('{'))
      t.match(errors[0], /^Error: /, one.what)
      t.match(errors.join(' '), one.line)
      t.notMatch(stderr, /^ +at /m, 'no stack')
    }
  }
  await Promise.all([worker(), worker()])
  t.same(folders.map(name => directoryState(join(folder, name))), before, 'no file has changed')
  t.ok(engine.daemon.running)
  t.same(await engine.daemon.end('SIGTERM'), [0, null])
})

t.test('ended while it starts', async t => {
  const folder = shortDir(t)
  const replica = await startReplica(t, join(folder, 'r'), SIZE)
  const before = directoryState(join(folder, 'r'))
  for (const ms of [400, 700]) {
    const args = ['engine', 'vol', '--size', `${SIZE}`, '--listen', '127.0.0.1:0', '--replica', replica.address]
    const child = spawn(process.execPath, [`${projectRoot}bin/longhorn`, ...args], {stdio: 'ignore'})
    setTimeout(() => child.kill('SIGTERM'), ms)
    const [code, signal] = (await once(child, 'exit')) as [number | null, string | null]
    t.ok(code === 0 || code === 130 || signal === 'SIGTERM', `after ${ms} ms: ${code ?? signal}`)
    const {membership: _record, 'volume.meta': _meta, ...rest} = directoryState(join(folder, 'r'))
    t.match({...before, ...rest}, before, 'nothing but what it knows of its volume has changed')
    t.match(readFileSync(join(folder, 'r', 'volume.meta'), 'utf8'), /"Dirty":false/, 'the replica is clean')
  }
})
