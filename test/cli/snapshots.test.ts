import {join} from 'node:path'
import t from 'tap'
import {startEngine, startReplica} from '../support/daemons.js'
import {shortDir} from '../support/short-dir.js'
import {longhorn} from './run-program.js'

const SIZE = 4 * 1024 * 1024

t.test('a life with snapshots, as a person types it', async t => {
  const folder = shortDir(t)
  const replicas = await Promise.all(['one', 'two'].map(name => startReplica(t, join(folder, name), SIZE)))
  const engine = await startEngine(t, {sizeBytes: SIZE, replicas: replicas.map(({address}) => address), socket: join(folder, 'vol.sock')})
  const env = {LONGHORN_ENGINE: engine.address}
  const run = async (...args: string[]): Promise<string> => {
    const {exitCode, stdout, stderr} = await longhorn(args, env)
    t.equal(exitCode, 0, `${args.join(' ')}: ${stderr}`)
    return stdout
  }
  const refuse = async (exit: number, line: RegExp, ...args: string[]): Promise<void> => {
    const {exitCode, stderr} = await longhorn(args, env)
    t.equal(exitCode, exit, args.join(' '))
    t.match(stderr, line)
  }
  t.equal(await run('snapshot', 'create', 'a', '--label', 'app=db', '--label', 'url=x=y'), 'a')
  const made = await run('snapshot', 'create')
  t.match(made, /^[0-9a-f-]{36}$/)
  await refuse(11, /volume-snap-a\.img is already existing/, 'snapshot', 'create', 'a')
  await refuse(2, /--label "nothing": expected KEY=VALUE/, 'snapshot', 'create', 'b', '--label', 'nothing')
  t.match(await run('snapshot', 'ls'), new RegExp(`^SNAPSHOT +CREATED.*\\na +\\S+Z +0 B +user +- +app=db url=x=y\\n${made} .*\\nvolume-head `))
  t.match(JSON.parse(await run('snapshot', 'info', 'a', '--json')), {name: 'a', parent: '', children: [made], userCreated: true, removed: false, labels: {app: 'db', url: 'x=y'}, missingOn: []})
  await refuse(10, /has no snapshot "volume-head"/, 'snapshot', 'info', 'volume-head')
  await refuse(11, /frontend socket is up/, 'snapshot', 'revert', 'a')
  t.equal(await run('frontend', 'shutdown'), 'nothing is served')
  await refuse(10, /no snapshot volume-snap-nope\.img/, 'snapshot', 'revert', 'nope')
  t.match(await run('snapshot', 'revert', 'a'), /what it was at a/)
  t.match(await run('snapshot', 'ls'), new RegExp(`\\na .*\\n├─ ${made} .*\\n└─ volume-head `), 'a fork')
  t.equal(await run('snapshot', 'rm', made), `${made} is removed`)
  t.match(await run('snapshot', 'ls'), new RegExp(`${made} .* user +yes `))
  await refuse(10, /marked as removed/, 'snapshot', 'revert', made)
  t.match(JSON.parse(await run('snapshot', 'purge', '--json')), {replicas: [{state: 'complete', error: ''}, {state: 'complete', error: ''}]})
  t.match(await run('snapshot', 'ls'), /^SNAPSHOT .*\na .*\nvolume-head +\S+ .*$/, 'it is gone')
  await refuse(10, /has no snapshot "nope"/, 'snapshot', 'rm', 'nope')
})
