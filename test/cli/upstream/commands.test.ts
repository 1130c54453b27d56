import {join} from 'node:path'
import t, {type Test} from 'tap'
import {startDaemon, startEngine, startReplica} from '../../support/daemons.js'
import {shortDir} from '../../support/short-dir.js'
import {until} from '../../support/until.js'
import {longhorn, projectRoot} from '../run-program.js'

const SIZE = 4 * 1024 * 1024

interface Rig {
  readonly replicas: readonly {readonly address: string}[]
  /** Runs a command in upstream's form and gives what it prints. */
  run(...args: string[]): Promise<string>
  refuse(exitCode: number, line: RegExp, ...args: string[]): Promise<void>
  json<T = Record<string, unknown>>(...args: string[]): Promise<T>
}

function runner(t: Test, url: string): Omit<Rig, 'replicas'> {
  const call = (args: string[]) => longhorn(['--url', url, '--volume-name', 'vol', ...args], {LONGHORN_OUTPUT: 'json'})
  const run = async (...args: string[]): Promise<string> => {
    const {exitCode, stdout, stderr} = await call(args)
    t.match({exitCode, stderr}, {exitCode: 0, stderr: ''}, args.join(' '))
    return stdout
  }
  return {
    run,
    async refuse(expected, line, ...args) {
      const {exitCode, stdout, stderr} = await call(args)
      t.match({exitCode, stdout}, {exitCode: expected, stdout: ''}, args.join(' '))
      t.match(stderr, line)
    },
    async json(...args) {
      const text = await run(...args)
      const value: unknown = JSON.parse(text)
      t.equal(text, JSON.stringify(value, undefined, '\t'), `${args.join(' ')}: indented with tabs`)
      return value as never
    },
  }
}

async function rig(t: Test): Promise<Rig> {
  const folder = shortDir(t)
  const replicas = await Promise.all(['one', 'two'].map(name => startReplica(t, join(folder, name), SIZE)))
  const engine = await startEngine(t, {sizeBytes: SIZE, replicas: replicas.map(({address}) => address), socket: join(folder, 'vol.sock'), more: ['--snapshot-max-count', '250']})
  return {replicas, ...runner(t, engine.address.replace('tcp://', 'http://'))}
}

t.test('a volume', async t => {
  const {replicas, run, refuse, json} = await rig(t)
  const info = await json('info')
  t.same(info, {
    name: 'vol',
    size: SIZE,
    replicaCount: 2,
    endpoint: info.endpoint,
    frontend: 'socket',
    frontendState: 'up',
    isExpanding: false,
    lastExpansionError: '',
    lastExpansionFailedAt: '',
    unmapMarkSnapChainRemoved: false,
    snapshotMaxCount: 250,
    SnapshotMaxSize: 0,
  })
  t.match(info.endpoint, /vol\.sock$/)
  const versions = await json<{clientVersion: object; serverVersion: object}>('version')
  t.same(versions.serverVersion, versions.clientVersion)

  t.equal(await run('unmap-mark-snap-chain-removed', '--enable'), '')
  t.equal((await json('info')).unmapMarkSnapChainRemoved, true)
  t.equal(await run('unmap-mark-snap', '--disable'), '')
  await refuse(1, /expected one of --enable and --disable/, 'unmap-mark-snap')
  await refuse(1, /expected one of --enable and --disable/, 'unmap-mark-snap', '--enable', '--disable')

  t.equal(await run('expand', '--size', `${2 * SIZE}`), '')
  t.equal((await json('info')).size, 2 * SIZE)
  await refuse(1, /cannot shrink/, 'expand', '--size', `${SIZE}`)
  await refuse(1, /--size is "8m": expected a decimal number of bytes/, 'expand', '--size', '8m')

  t.equal(await run('frontend', 'shutdown'), '')
  t.match(await json('info'), {frontend: '', frontendState: 'down', endpoint: ''})
  await refuse(1, /unknown frontend "nosuch"/, 'frontend', 'start', 'nosuch')
  t.equal(await run('journal'), '')
  t.equal(await run('journal', '--limit', '5'), '')
  await refuse(1, /SIGUSR1/, 'profiler', 'show')
  await refuse(1, /SIGUSR1/, 'profiler', 'enable', '--port', '40000')
  await refuse(1, /already/, 'start-with-replicas', replicas[0]!.address, '--size', '4m', '--current-size', '4m')
})

t.test('its replicas', async t => {
  const {replicas, run, refuse, json} = await rig(t)
  const [one, two] = replicas.map(({address}) => address) as [string, string]
  const table = (...rows: string[][]): string => [['ADDRESS', 'MODE', 'CHAIN'], ...rows].map(([address = '', mode = '', chain]) => `${address.padEnd(one.length)} ${mode.padEnd(4)} ${chain}`).join('\n')
  t.equal(one.length, two.length, 'the ports have as many digits')
  t.equal(await run('ls-replica'), table([one, 'RW', '[volume-head-000.img]'], [two, 'RW', '[volume-head-000.img]']))
  t.same(await json('replica-rebuild-status'), {})
  await refuse(1, /has no replica/, 'update-replica', 'tcp://127.0.0.1:1', '--mode', 'ERR')
  await refuse(1, /can only be set to ERR/, 'update', two, '--mode', 'WO')
  await refuse(1, /--mode=XX/, 'update', two, '--mode', 'XX')
  t.equal(await run('update-replica', '--mode', 'ERR', two), '')
  t.equal(await run('ls'), table([one, 'RW', '[volume-head-000.img]'], [two, 'ERR', '']))
  await refuse(1, /last one of the volume that can be used/, 'update-replica', one, '--mode', 'ERR')
  await refuse(1, /last one of the volume that can be used/, 'rm-replica', one)
  t.equal(await run('rm-replica', two), '')
  t.equal(await run('rm-replica', two), '', 'twice is success')
  t.equal(await run('ls'), table([one, 'RW', '[volume-head-000.img]']))
  t.equal((await json('info')).replicaCount, 1)
})

t.test('its snapshots', async t => {
  const {replicas, run, refuse, json} = await rig(t)
  t.equal(await run('snapshots'), 'ID')
  t.equal(await run('snapshots', 'create', 'a', '--label', 'app=<db>&'), 'a')
  const made = await run('snapshot', 'create')
  t.match(made, /^[0-9a-f-]{36}$/)
  await refuse(1, /volume-snap-a\.img is already existing/, 'snapshot', 'create', 'a')
  t.equal(await run('snapshot', 'ls'), `ID\n${made}\na`)
  const text = await run('snapshot', 'info')
  t.match(text, '"app": "\\u003cdb\\u003e\\u0026"', 'as Go writes it')
  const disks = JSON.parse(text) as Record<string, Record<string, unknown>>
  const layer = (name: string, parent: string, child: string | undefined, labels: object, usercreated: boolean): object => {
    const {created, size} = disks[name]!
    t.match(created, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
    return {name, parent, children: child === undefined ? {} : {[child]: true}, removed: false, usercreated, created, size, labels}
  }
  t.same(disks, {
    [made]: layer(made, 'a', 'volume-head', {}, true),
    a: layer('a', '', made, {app: '<db>&'}, true),
    'volume-head': layer('volume-head', made, undefined, {}, false),
  })
  t.same(Object.keys(disks), [...Object.keys(disks)].sort())
  await refuse(1, /frontend socket is up/, 'snapshot', 'revert', 'a')
  await run('frontend', 'shutdown')
  t.equal(await run('snapshot', 'revert', 'a'), '')
  t.equal(await run('snapshot', 'ls'), 'ID\na', 'the branch is another one')
  t.equal(await run('snapshot', 'rm', made, 'nosuch'), '')
  const idle = {error: '', isPurging: false, progress: 0, state: ''}
  t.same(await json('snapshots', 'purge-status'), Object.fromEntries(replicas.map(({address}) => [address, idle])))
  t.equal(await run('snapshots', 'purge'), '')
  const done = {...idle, progress: 100, state: 'complete'}
  await until(async () => Object.values(await json('snapshots', 'purge-status')).every(status => (status as typeof done).state === 'complete'), 'the purge has ended', 60_000)
  t.same(await json('snapshots', 'purge-status'), Object.fromEntries(replicas.map(({address}) => [address, done])))
  t.equal(await run('snapshots', 'purge', '--skip-if-in-progress'), '')
  t.notMatch(await run('snapshots', 'info'), made)
})

t.test('without an engine', async t => {
  const {refuse} = runner(t, 'http://127.0.0.1:1/v1')
  await refuse(1, /^Error: engine 127\.0\.0\.1:1: connection refused/, 'info')
  await refuse(1, /^Error: engine 127\.0\.0\.1:1: connection refused/, 'version')
  await runner(t, 'nonsense').refuse(1, /--url "nonsense": expected http:\/\/HOST:PORT/, 'info')
  const {exitCode, stdout} = await longhorn(['info', '--help'])
  t.equal(exitCode, 0)
  t.match(stdout, /--url/)
})

t.test('processes as upstream\'s manager starts them, volume and replicas apart', async t => {
  const folder = shortDir(t)
  const starts = ['one', 'two'].map(name =>
    startDaemon(t, [
      ...['--volume-name', 'vol', 'replica', join(folder, name), '--size', `${SIZE}`, '--disableRevCounter', '--sync-agent-port-count', '7'],
      ...['--unmap-mark-disk-chain-removed', '--replica-instance-name', `r-${name}`, '--snapshot-max-count', '250', '--snapshot-max-size', '0', '--listen', '127.0.0.1:0'],
    ]),
  )
  const replicas = (await Promise.all(starts)).map(({ready}) => ready.control!)
  const {ready, daemon} = await startDaemon(t, [
    ...['--engine-instance-name', 'e', 'controller', 'vol', '--size', `${SIZE}`, '--current-size', `${SIZE}`, '--disableRevCounter', '--salvageRequested=false'],
    ...['--data-server-protocol', 'tcp', '--unmap-mark-snap-chain-removed', '--file-sync-http-client-timeout', '30', '--snapshot-max-count', '3'],
    ...['--snapshot-max-size', '0', '--rebuild-sync-concurrent-limit', '2', '--enable-backend', 'tcp', '--listen', '127.0.0.1:0'],
  ])
  t.match(daemon.stderr.join('\n'), /--disableRevCounter.*these flags have no effect here/)
  const {run, refuse, json} = runner(t, ready.control!)
  t.match(await json('info'), {size: 0, replicaCount: 0, frontendState: 'down', snapshotMaxCount: 3, unmapMarkSnapChainRemoved: true})
  t.equal(await run('ls'), 'ADDRESS MODE CHAIN')
  await refuse(1, /volume vol is not started/, 'snapshot', 'create')
  t.equal(await run('start-with-replicas', ...replicas, '--size', '4m', '--current-size', '4m'), '')
  await refuse(1, /already/, 'start', ...replicas, '--size', '4m', '--current-size', '4m')
  t.match(await json('info'), {size: SIZE, replicaCount: 2, snapshotMaxCount: 3, unmapMarkSnapChainRemoved: true})
  for (const name of ['a', 'b', 'c']) await run('snapshot', 'create', name)
  await refuse(1, /has 3 snapshots and may have 3/, 'snapshot', 'create', 'd')
  const other = await longhorn(['--url', ready.control!, '--engine-instance-name', 'other', 'info'])
  t.match(other, {exitCode: 1, stderr: /incorrect instance name other/})
  t.same(await daemon.end('SIGINT'), [0, null])
})

t.test('the first replica of a volume starts it', async t => {
  const replica = await startReplica(t, join(shortDir(t), 'one'), SIZE)
  const {ready} = await startDaemon(t, ['engine', 'vol', '--size', `${SIZE}`, '--listen', '127.0.0.1:0'])
  const {run, refuse, json} = runner(t, ready.control!)
  await refuse(1, /Missing required flags? current-size|--current-size/, 'add-replica', replica.address, '--size', '4m')
  await refuse(1, /Missing 1 required arg/, 'add', '--size', '4m', '--current-size', '4m')
  t.equal(await run('add-replica', replica.address, '--size', '4m', '--current-size', '4m'), '')
  t.match(await json('info'), {replicaCount: 1, size: SIZE})
})

t.test('flags that promise what is not there are refused', async t => {
  const refused = async (line: RegExp, ...args: string[]): Promise<void> => {
    const {exitCode, stderr} = await longhorn(args)
    t.equal(exitCode, 18, args.join(' '))
    t.match(stderr, line)
  }
  const engine = ['controller', 'vol', '--size', '4m', '--replica', 'tcp://127.0.0.1:1']
  await refused(/--salvageRequested: /, ...engine, '--replica', 'tcp://127.0.0.1:2', '--salvageRequested')
  await refused(/--data-server-protocol unix: only tcp/, ...engine, '--data-server-protocol', 'unix')
  await refused(/--enable-backend file: only tcp/, ...engine, '--enable-backend', 'file')
  const replica = ['replica', join(projectRoot, 'nowhere'), '--size', '4m']
  await refused(/--backing-file \/x: /, ...replica, '--backing-file', '/x')
  await refused(/--encrypted: /, ...replica, '--encrypted=true')
  await refused(/--data-server-protocol unix: only tcp/, '--volume-name', 'v', ...replica, '--data-server-protocol', 'unix')
  t.match(await longhorn(['--volume-name', 'other', ...engine]), {exitCode: 2, stderr: /--volume-name is other, but the volume is vol/})
})
