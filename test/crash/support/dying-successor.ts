// A program that is told to take the place of an engine and ends in the middle: dying-successor.js HOST:PORT VOLUME STEP SOCKET
import {parseAddress} from '../../../src/lib/address.js'
import {FdChannel} from '../../../src/lib/net/fd-channel.js'
import {Listener} from '../../../src/lib/net/listener.js'
import {connect} from '../../../src/protocol/grpc/client.js'
import {ControllerServiceDefinition} from '../../../src/protocol/proto/generated/controller.js'

/** When it dies: before it is asked anything, with the state in its hands, having said that it is ready, and when all is its own. */
export const DEATHS = ['connected', 'state', 'ready', 'yours'] as const

if (process.argv[1]?.endsWith('dying-successor.js') === true) await dieAt()

async function dieAt(): Promise<void> {
  const [address = '', volumeName = '', step = '', path = ''] = process.argv.slice(2)
  const connected = new Promise<number>((resolve, reject) => {
    Listener.open({kind: 'unix', path}, resolve).catch(reject)
  })
  const rpc = connect(ControllerServiceDefinition, {peer: 'engine', address: parseAddress(address), identity: {volumeName}})
  await rpc.volumeHandOver({socket: path})
  const channel = new FdChannel(await connected, 'engine')
  if (step === 'connected') die()
  await channel.receive(60_000)
  if (step === 'state') die()
  channel.send({type: 'ready'})
  if (step === 'ready') die()
  await channel.receive(60_000)
  die()
}

function die(): never {
  process.kill(process.pid, 'SIGKILL')
  throw new Error('still alive')
}
