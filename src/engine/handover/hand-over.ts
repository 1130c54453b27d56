import {LonghornError, messageOf, type ErrorKind} from '../../lib/errors.js'
import {connectSocket} from '../../lib/net/connect.js'
import {FdChannel} from '../../lib/net/fd-channel.js'
import {closeFd, peerCredentials} from '../../lib/net/socket-calls.js'
import {processEnded} from '../../lib/sys/process-end.js'
import type {Engine} from '../engine.js'
import {expectType, READY_MS, type FromNew, type FromOld} from './messages.js'
import type {ParkedEngine} from './park-engine.js'

const CONNECT_MS = 5000

/**
 * Gives everything that an engine has open to the engine process that waits at `socket`, in the background; resolves when that is
 * connected. When it has taken over, `gone` is called, which must end this process without closing anything. Until then this engine
 * goes on whenever the other one fails. Throws UNREACHABLE, or CONFLICT when the other process is another user's.
 */
export async function handOver(engine: Engine, socket: string, gone: () => never): Promise<void> {
  const fd = await connectSocket({kind: 'unix', path: socket}, CONNECT_MS)
  const {pid, uid} = peerCredentials(fd)
  if (uid !== process.geteuid?.()) {
    closeFd(fd)
    throw new LonghornError('CONFLICT', `process ${pid} cannot take over: it runs as user ${uid}, not as this engine's`)
  }
  const channel = new FdChannel(fd, `engine process ${pid}`)
  const {log} = engine
  log.info({pid}, 'handing over to another engine')
  engine
    .handOver(parked => give(parked, channel, pid, gone))
    .catch((error: unknown) => {
      log.error({reason: messageOf(error)}, 'not handed over')
      abort(channel, error)
    })
    .finally(() => channel.close())
}

async function give(parked: ParkedEngine, channel: FdChannel, pid: number, gone: () => never): Promise<void> {
  try {
    send(channel, {type: 'state', state: parked.state}, parked.fds)
    expectType((await channel.receive(READY_MS)) as FromNew, 'ready')
    send(channel, {type: 'yours'})
  } catch (error) {
    parked.resume()
    throw error
  }
  try {
    expectType((await channel.receive(Infinity)) as FromNew, 'took')
  } catch (error) {
    // Only its end proves that it does not serve what it was given, so this waits as long as it takes.
    await processEnded(pid, Infinity)
    parked.resume()
    throw error
  }
  gone()
}

function send(channel: FdChannel, message: FromOld, fds?: readonly number[]): void {
  channel.send(message, fds)
}

/** Best effort: the other one may be what has failed. */
function abort(channel: FdChannel, error: unknown): void {
  try {
    send(channel, {type: 'abort', kind: error instanceof LonghornError ? (error.code.slice(3) as ErrorKind) : 'IO', text: messageOf(error)})
  } catch (failure) {
    if (!(failure instanceof LonghornError)) throw failure
  }
}
