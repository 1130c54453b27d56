import {mkdtemp, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {formatAddress, type Address, type TcpAddress} from '../../lib/address.js'
import {Cleanup} from '../../lib/cleanup.js'
import {isKind, LonghornError, messageOf} from '../../lib/errors.js'
import type {Log} from '../../lib/log.js'
import {FdChannel} from '../../lib/net/fd-channel.js'
import {Listener} from '../../lib/net/listener.js'
import {closeFd, peerCredentials} from '../../lib/net/socket-calls.js'
import {processEnded} from '../../lib/sys/process-end.js'
import {connect} from '../../protocol/grpc/client.js'
import {ControllerServiceDefinition} from '../../protocol/proto/generated/controller.js'
import {Engine, type EngineOptions} from '../engine.js'
import {parseReplicaAddress} from '../replica-control.js'
import {checkState, hostClock, type EngineState} from './engine-state.js'
import {expectType, STATE_MS, type FromNew, type FromOld} from './messages.js'

const ASK_MS = 10_000
/** How long one that ends may take to be gone. */
const END_MS = 10_000

/**
 * Takes the place of the engine whose control service is at one of `addresses`: its replicas, its frontend, and the connections of
 * both, in the state they are in. Undefined when there is no such engine, or when it has died before it gave anything: this one
 * is then started as after a crash. When it throws, the other one goes on.
 * UNSUPPORTED when that one cannot do it, BUSY, TIMEOUT; CONFLICT when it has other replicas or another frontend than is wanted.
 */
export async function takeOver(options: EngineOptions & {readonly frontend?: string | undefined}, addresses: readonly TcpAddress[], signal?: AbortSignal): Promise<Engine | undefined> {
  await using done = new Cleanup()
  const folder = await mkdtemp(join(tmpdir(), 'longhorn-upgrade-'))
  done.defer(() => rm(folder, {recursive: true, force: true}))
  const path = join(folder, 'socket')
  const came: number[] = []
  let comes: () => void = () => undefined
  const listener = done.add(
    await Listener.open({kind: 'unix', path}, fd => {
      came.push(fd)
      comes()
    }),
  )
  const connected = new Promise<void>(resolve => (comes = resolve))
  if (!(await askAny(addresses, options, path, () => came.length > 0, signal))) return undefined
  await connected
  await listener.close()
  const [fd, ...others] = came as [number, ...number[]]
  for (const other of others) closeFd(other)
  const {pid, uid} = peerCredentials(fd)
  const channel = done.add(new FdChannel(fd, `the running engine (process ${pid})`))
  if (uid !== process.geteuid?.()) throw new LonghornError('CONFLICT', `process ${pid} is another user's: it is not the engine`)
  try {
    return await take(channel, pid, options)
  } catch (error) {
    if (!(error instanceof PeerDied)) throw error
    options.log.warn({pid}, 'the running engine has ended before it handed over: starting as after a crash')
    await ended(pid)
    return undefined
  }
}

/** The other one ended before it had given anything. */
class PeerDied extends Error {}

async function take(channel: FdChannel, pid: number, options: EngineOptions & {readonly frontend?: string | undefined}): Promise<Engine> {
  const {log} = options
  const given = await channel.receive(STATE_MS).catch((error: unknown) => {
    throw isKind(error, 'UNREACHABLE') ? new PeerDied() : error
  })
  const message = given as FromOld
  if (message.type === 'abort') throw refusal(message)
  const fds = channel.takeFds()
  const state = checkState(expectType(message, 'state').state, fds.length)
  checkWanted(state, options)
  const start = await Engine.adopt(options, state, fds)
  sendTo(channel, {type: 'ready'})
  try {
    const answer = (await channel.receive(Infinity)) as FromOld
    if (answer.type === 'abort') throw refusal(answer)
    expectType(answer, 'yours')
  } catch (error) {
    // It has died, and would have said so if it went on: what it gave is complete, and nobody else's.
    if (!isKind(error, 'UNREACHABLE') || error instanceof Refused) throw error
    await ended(pid)
  }
  // From here to "took" nothing may be awaited: it is the other one's until then, and could end with this process.
  const engine = startOrExit(start, log)
  sendTo(channel, {type: 'took'})
  log.info({stoodStillMs: Math.round((hostClock() - state.stoppedAt) * 10) / 10, sockets: fds.length, endpoint: engine.frontend?.endpoint}, 'took over from the running engine')
  return engine
}

/** One that starts half must not run on: it would serve together with the other one, which goes on when this process has ended. */
function startOrExit(start: () => Engine, log: Log): Engine {
  try {
    return start()
  } catch (error) {
    log.fatal({reason: messageOf(error)}, 'could not take over')
    process.exit(1)
  }
}

async function ended(pid: number): Promise<void> {
  if (await processEnded(pid, END_MS)) return
  throw new LonghornError('BUSY', `the running engine (process ${pid}) has ended the handover and does not end itself: end it, then start this one again`)
}

/** What the other one has said; never taken for its end. */
class Refused extends LonghornError {}

function refusal({kind, text}: FromOld & {type: 'abort'}): Refused {
  return new Refused(kind, `the running engine goes on: ${text}`)
}

/** One that has ended needs no message. */
function sendTo(channel: FdChannel, message: FromNew): void {
  try {
    channel.send(message)
  } catch (error) {
    if (!isKind(error, 'UNREACHABLE')) throw error
  }
}

function checkWanted(state: EngineState, {volume, replicas, frontend, sizeBytes, log}: EngineOptions & {readonly frontend?: string | undefined}): void {
  if (state.volume !== volume) throw new LonghornError('CONFLICT', `the running engine serves volume ${state.volume}, not ${volume}`)
  const has = new Set(state.replicas.map(({address}) => address))
  const other = replicas.map(text => formatAddress(parseReplicaAddress(text))).find(address => !has.has(address))
  if (other !== undefined) throw new LonghornError('CONFLICT', `replica ${other} is not one of the running engine's (${[...has].join(', ')}): add it when the engine is upgraded`)
  if (frontend !== undefined && state.frontend !== undefined && frontend !== state.frontend.name) {
    throw new LonghornError('CONFLICT', `the running engine serves frontend ${state.frontend.name}, not ${frontend}`)
  }
  if (sizeBytes !== state.sizeBytes) log.warn({given: sizeBytes, sizeBytes: state.sizeBytes}, 'the volume has another size than is given, and keeps it')
}

/**
 * False when there is no engine at any of them. One that was killed before it answered has been asked when it `hasCome`: what it gave is on that
 * connection, and keeps its sockets in use until it is taken or the connection is closed.
 */
async function askAny(addresses: readonly TcpAddress[], {volume, log}: EngineOptions, socket: string, hasCome: () => boolean, signal: AbortSignal | undefined): Promise<boolean> {
  for (const address of addresses) {
    const rpc = connect(ControllerServiceDefinition, {peer: 'engine', address: address satisfies Address, identity: {volumeName: volume}})
    try {
      await rpc.volumeHandOver({socket}, {timeoutMs: ASK_MS, signal})
      return true
    } catch (error) {
      if (!isKind(error, 'UNREACHABLE')) throw error
      if (hasCome()) return true
      log.warn({engine: formatAddress(address)}, 'there is no engine to take over from')
    } finally {
      rpc.destroy()
    }
  }
  return false
}
