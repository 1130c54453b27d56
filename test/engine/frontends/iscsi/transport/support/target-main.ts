// An iSCSI target on a device in memory, in a process of its own: `target-main.js SIZE_MIB [CHAP_FILE]`. It says its
// endpoint on one line and ends with its standard input.
import {iscsiFrontend} from '../../../../../../src/engine/frontends/iscsi/iscsi-frontend.js'
import {createLog} from '../../../../../../src/lib/log.js'
import {MemoryDevice} from '../../../../support/memory-device.js'

const [sizeMib = '100', chapFile] = process.argv.slice(2)
const device = new MemoryDevice(Number(sizeMib) * 1024 * 1024)
const frontend = await iscsiFrontend.open({
  volume: 'memory',
  device,
  listen: {kind: 'tcp', host: '127.0.0.1', port: 0},
  log: createLog('target'),
  iscsi: {chapFile},
})
console.log(frontend.endpoint)
process.stdin.resume().on('end', () => void frontend.close(1000).then(() => process.exit()))
