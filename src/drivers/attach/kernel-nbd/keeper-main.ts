// Makes one NBD device and stays for as long as that exists, to give it another connection whenever it has lost one:
// `node keeper-main.js ORDER`. A process of its own, as it outlives who has started it, and because the server may be that
// one. Without it the device goes on working; what is lost is only that it finds its server again.
import {lookup} from 'node:dns/promises'
import {isIP} from 'node:net'
import {setTimeout as sleep} from 'node:timers/promises'
import type {Address} from '../../../lib/address.js'
import {LonghornError, messageOf} from '../../../lib/errors.js'
import {closeFd, type IpEndpoint} from '../../../lib/net/socket-calls.js'
import {HANG_UP, takeKeeperFile, writeStatus, type KeeperState} from './keeper-file.js'
import {watchLosses} from './losses.js'
import {NbdControl} from './nbd-control.js'
import {findNbdDevices} from './nbd-devices.js'
import {connectExport, type NbdConnection} from './nbd-handshake.js'
import {shutDown} from './socket-io.js'

export interface KeeperOrder {
  readonly file: string
  readonly backend: string
  readonly address: Address
  readonly exportName: string
  /** Of the device; all of the export if not given. */
  readonly sizeBytes?: number | undefined
  readonly readOnly: boolean
  readonly requestTimeout: number
  readonly deadConnectionTimeout: number
}

const CONNECT_TIMEOUT_MS = 10_000
/** For a try at a server that was lost; signals wait meanwhile. */
const RECONNECT_TIMEOUT_MS = 2000
const RECONNECT_PAUSE_MS = 250
/** For a device that was removed by somebody else's hand. */
const CHECK_INTERVAL_MS = 10_000
const READ_ONLY = 1 << 1

const order = JSON.parse(process.argv[2] ?? '{}') as KeeperOrder
const file = await takeKeeperFile(order.file)
if (file === undefined) process.exit(0)
/** The connection that the kernel has from us; -1 when it has none, or one of a keeper before us. */
let linkFd = -1
// Whoever stops a service, or the machine, tells all of its processes at once, and then the device still has to be written to.
for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(name, () => undefined)
// The kernel then stops waiting for a server that hangs.
process.on(HANG_UP, () => {
  if (linkFd >= 0) shutDown(linkFd)
  process.exit(0)
})
try {
  await keep(file)
  process.exit(0)
} catch (error) {
  console.error(messageOf(error))
  process.exit(error instanceof LonghornError ? error.exitCode : 1)
}

async function keep(status: number): Promise<void> {
  const tell = (state: KeeperState): void => writeStatus(status, {pid: process.pid, state})
  tell('starting')
  const control = NbdControl.open()
  const losses = watchLosses(control)
  let index = await ownIndex()
  if (index === undefined) index = await makeDevice(control)
  else losses.add(index)
  for (;;) {
    if (losses.take(index)) {
      tell('lost')
      if (!(await reconnect(control, index))) return
    }
    tell('linked')
    await losses.next(CHECK_INTERVAL_MS)
    if ((await ownIndex()) !== index) return
  }
}

async function makeDevice(control: NbdControl): Promise<number> {
  const connection = connectExport(await whereTo(), order.exportName, CONNECT_TIMEOUT_MS)
  const {backend, requestTimeout, deadConnectionTimeout} = order
  const flags = connection.flags | (order.readOnly ? READ_ONLY : 0)
  const sizeBytes = order.sizeBytes ?? connection.sizeBytes
  const index = control.connect({backend, sizeBytes, flags, requestTimeout, deadConnectionTimeout}, [connection.fd])
  linkFd = connection.fd
  return index
}

/** Tries until it has worked, or the device is gone: then false. */
async function reconnect(control: NbdControl, index: number): Promise<boolean> {
  for (let said = ''; (await ownIndex()) === index; await sleep(RECONNECT_PAUSE_MS)) {
    try {
      const connection = connectExport(await whereTo(), order.exportName, RECONNECT_TIMEOUT_MS)
      await hand(control, index, connection)
      console.error('connected again')
      return true
    } catch (error) {
      const message = messageOf(error)
      if (message !== said) console.error(`cannot connect again: ${message}`)
      said = message
    }
  }
  return false
}

async function hand(control: NbdControl, index: number, connection: NbdConnection): Promise<void> {
  try {
    const sizeBytes = (await findNbdDevices([order.backend]))[0]?.sizeBytes ?? 0
    // It cannot be the same volume: volumes only grow.
    if (connection.sizeBytes < sizeBytes) throw new LonghornError('CONFLICT', `the export has ${connection.sizeBytes} bytes, the device ${sizeBytes}`)
    control.reconnect(index, order.backend, [connection.fd])
  } catch (error) {
    closeFd(connection.fd)
    throw error
  }
  if (linkFd >= 0) closeFd(linkFd)
  linkFd = connection.fd
}

async function ownIndex(): Promise<number | undefined> {
  return (await findNbdDevices([order.backend]))[0]?.index
}

async function whereTo(): Promise<IpEndpoint | string> {
  const {address} = order
  if (address.kind === 'unix') return address.path
  const {host, port} = {...address, host: address.host || 'localhost'}
  const version = isIP(host)
  const found = version === 0 ? await lookup(host) : {address: host, family: version}
  return {family: found.family === 6 ? 6 : 4, address: found.address, port}
}
