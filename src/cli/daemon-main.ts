// What a daemon runs after becomeDaemon(): the service and nothing of the command line.
import {LonghornError} from '../lib/errors.js'
import {createLog, type Log} from '../lib/log.js'
import {reactor} from '../lib/net/reactor.js'
import {abandonDevice} from './abandon-device.js'
import {announce} from './announce.js'
import {DAEMON_VARIABLE, type DaemonRequest} from './become-daemon.js'
import {makesDevice} from './device-frontends.js'
import {engineAddresses, recordEngine} from './engine-record.js'
import {printFailure} from './failure.js'

/** As a shell reports a process that SIGHUP has ended. */
const SIGHUP_EXIT = 129

const stop = new AbortController()
const request = takeRequest()
reactor.busyPoll.limitMs = request.busyPollUs / 1000
// An orderly stop waits for some things with timers that keep no process alive; without this it could end in the middle of it.
setInterval(() => undefined, 60_000)
/** Whether a block device may be there that goes only when somebody removes it. */
let mayHaveDevice = request.role === 'engine' && (request.upgrade !== undefined || makesDevice(request.frontend))
process.title = `longhorn ${request.role} ${request.role === 'engine' ? request.volume : request.directory}`
if (request.role === 'engine') process.on('SIGHUP', () => process.exit(SIGHUP_EXIT))
for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => onSignal(name))
try {
  await (request.role === 'engine' ? runEngine(request) : runReplica(request))
  process.exit(0)
} catch (error) {
  process.exit(printFailure(error, {format: request.json ? 'json' : 'text', debug: request.debug}))
}

async function runReplica(options: DaemonRequest & {role: 'replica'}): Promise<void> {
  const {startReplicaServer} = await import('../replica/replica-server.js')
  const log = createLog('replica')
  sayIgnored(options.ignored, log)
  await using server = await startReplicaServer({...options, log})
  announce(options.json, 'replica', {control: server.address})
  await stopped()
}

async function runEngine(options: DaemonRequest & {role: 'engine'}): Promise<void> {
  const [{startEngineServer}, {frontendKinds}] = await Promise.all([import('../engine/engine-server.js'), import('./frontend-kinds.js')])
  const log = createLog('engine')
  sayIgnored(options.ignored, log)
  const takeOverFrom = options.upgrade && (await engineAddresses(options.volume, options.upgrade.from ?? options.listen))
  const gone = (): never => process.exit(0)
  await using server = await startEngineServer({...options, frontends: frontendKinds(options.attach), log, takeOverFrom, gone}, stop.signal)
  await using _record = await recordEngine(options.volume, server.address, log)
  announce(options.json, 'engine', {control: server.address, endpoint: server.slot.engine?.frontend?.endpoint})
  await stopped()
  mayHaveDevice = makesDevice(server.slot.engine?.frontend?.name)
}

function sayIgnored(flags: readonly string[], log: Log): void {
  if (flags.length > 0) log.warn({flags}, 'these flags have no effect here')
}

function takeRequest(): DaemonRequest {
  const text = process.env[DAEMON_VARIABLE]
  if (text === undefined) throw new Error('this is started by the commands "replica" and "engine" only')
  Reflect.deleteProperty(process.env, DAEMON_VARIABLE)
  return JSON.parse(text) as DaemonRequest
}

/** Resolves at the first SIGINT or SIGTERM: an orderly stop, not a failure. */
function stopped(): Promise<void> {
  if (stop.signal.aborted) return Promise.resolve()
  return new Promise(resolve => {
    stop.signal.addEventListener('abort', () => resolve(), {once: true})
  })
}

function onSignal(name: NodeJS.Signals): void {
  const interrupted = new LonghornError('INTERRUPTED', `interrupted by ${name}`)
  if (!stop.signal.aborted) {
    stop.abort(interrupted)
    return
  }
  // A second one: whoever sends it does not want to wait any longer.
  if (request.role === 'engine' && mayHaveDevice) {
    createLog('engine').warn({by: abandonDevice(request.volume)}, 'ending without waiting for the block device, which is removed by another process')
  }
  process.exit(interrupted.exitCode)
}
