// A disk in memory, as an NBD server, that does as it is told: node disk-server.js SOCKET BYTES
// Prints a line when it can be reached. A line of JSON on its standard input says what fails from now on, and is answered with a line.
import {createInterface} from 'node:readline'
import {nbdFrontend} from '../../../src/engine/frontends/nbd/nbd-frontend.js'
import {createLog} from '../../../src/lib/log.js'
import {ERRNO, OP} from '../../../src/protocol/block-device.js'
import {MemoryDevice} from '../../engine/support/memory-device.js'

const BLOCK_BYTES = 4096

export interface DiskFaults {
  /** All reads fail. */
  readonly reads?: boolean
  /** All that changes something fails, and so does a flush. */
  readonly writes?: boolean
  /** Ranges in bytes, of whole blocks, that cannot be read until they are written. */
  readonly badRanges?: readonly (readonly [offset: number, length: number])[]
}

if (process.argv[1]?.endsWith('disk-server.js') === true) await serve()

async function serve(): Promise<void> {
  const [path = '', bytes = ''] = process.argv.slice(2)
  const device = new MemoryDevice(Number(bytes))
  device.keepsDirty = false
  const frontend = await nbdFrontend.open({volume: 'disk', device, listen: {kind: 'unix', path}, log: createLog('disk')})
  console.log('ready')
  for await (const line of createInterface({input: process.stdin})) {
    const {reads = false, writes = false, badRanges = []} = JSON.parse(line) as DiskFaults
    device.fault = ({op}) => ((op === OP.READ ? reads : writes) ? ERRNO.EIO : ERRNO.OK)
    for (const [offset, length] of badRanges) for (let at = offset; at < offset + length; at += BLOCK_BYTES) device.badBlocks.add(at / BLOCK_BYTES)
    console.log(device.badBlocks.size)
  }
  await frontend.close(0)
  process.exit(0)
}
