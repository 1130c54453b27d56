// A process that serves memory with the NBD frontend, for peers and measurements: node memory-server.js ADDRESS BYTES
// Prints its endpoint when it can be reached, and ends with SIGTERM or when its standard input is closed.
import {createLog} from '../../../../../src/lib/log.js'
import {parseAddress} from '../../../../../src/lib/address.js'
import {nbdFrontend} from '../../../../../src/engine/frontends/nbd/nbd-frontend.js'
import {MemoryDevice} from '../../../support/memory-device.js'

const [address = '', bytes = ''] = process.argv.slice(2)
const device = new MemoryDevice(Number(bytes))
// Touched once, or measurements would be of page faults.
device.bytes.fill(0)
device.keepsDirty = false
const frontend = await nbdFrontend.open({volume: 'memory', device, listen: parseAddress(address), log: createLog('nbd')})
console.log(frontend.endpoint)

const end = (): void => {
  void frontend.close(1000).then(() => process.exit(0))
}
process.once('SIGTERM', end)
process.stdin.on('end', end).resume()
