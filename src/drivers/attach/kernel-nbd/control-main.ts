// Tells the NBD driver about one device: `node control-main.js disconnect INDEX [exclusive]`, `… resize INDEX BACKEND BYTES`.
// A process of its own, as the driver first waits for a request that it is just sending, possibly to the very process that asks.
// With `exclusive` it exits with the code of BUSY when somebody has the device for himself, as a mount does.
import {closeSync, constants, openSync} from 'node:fs'
import {errnoOf, LonghornError, messageOf} from '../../../lib/errors.js'
import {NbdControl} from './nbd-control.js'

const [verb, index, ...rest] = process.argv.slice(2)

try {
  if (verb === 'disconnect') {
    if (rest[0] === 'exclusive') checkUnused(`/dev/nbd${index}`)
    NbdControl.open().disconnect(Number(index))
  } else {
    const [backend = '', bytes] = rest
    NbdControl.open().resize(Number(index), backend, Number(bytes))
  }
} catch (error) {
  console.error(messageOf(error))
  process.exit(error instanceof LonghornError ? error.exitCode : 1)
}

function checkUnused(path: string): void {
  try {
    closeSync(openSync(path, constants.O_RDONLY | constants.O_EXCL))
  } catch (error) {
    if (errnoOf(error) === 'EBUSY') throw new LonghornError('BUSY', `${path} is in use`)
    // No such node, in a container; or a device that cannot be read any more.
  }
}
