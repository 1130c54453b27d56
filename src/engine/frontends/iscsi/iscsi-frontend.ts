import {join} from 'node:path'
import {formatHostPort, type Address, type TcpAddress} from '../../../lib/address.js'
import {LonghornError} from '../../../lib/errors.js'
import type {Frontend, FrontendKind, FrontendOptions} from '../frontend.js'
import {FileReservationStore} from './scsi/reservations/file-reservation-store.js'
import {ScsiDeviceServer} from './scsi/device-server.js'
import {readChapFile} from './transport/chap-file.js'
import {IscsiServer, type ServerOptions} from './transport/server.js'

const DEFAULT_ADDRESS: TcpAddress = {kind: 'tcp', host: '127.0.0.1', port: 3260}
/** Upstream's; initiators keep the names of targets, so it never changes. */
const NAME_PREFIX = 'iqn.2019-10.io.longhorn:'
const PORTAL_GROUP = 1
/** The unit that is the volume. */
const DISK_LUN = 1

/**
 * Serves the volume as an iSCSI target: to Linux (open-iscsi), QEMU, Windows, VMware, libiscsi. Without an address it listens on
 * port 3260 of the loopback interface. Without CHAP secrets whoever reaches the port reaches the volume.
 */
export const iscsiFrontend: FrontendKind = {
  name: 'iscsi',

  async open(options: FrontendOptions): Promise<Frontend> {
    const {listen = DEFAULT_ADDRESS} = options
    if (listen.kind !== 'tcp') throw new LonghornError('USAGE', 'frontend iscsi listens on a TCP port: expected host:port')
    return frontendOf(await IscsiServer.open({...(await prepare(options)), listen}), options.volume)
  },

  /** Sessions are not handed over: their initiators have logged out and log in again. What is reserved is in its file. */
  async adopt(options, {state, fds: [listening]}) {
    const prepared = await prepare(options)
    const {address} = state as ParkedTarget
    return () => frontendOf(IscsiServer.adopt({...prepared, listen: address}, listening!), options.volume)
  },
}

/** What is handed over beside the listening socket. */
interface ParkedTarget {
  readonly address: Address
}

async function prepare({volume, device, log, iscsi = {}}: FrontendOptions): Promise<Omit<ServerOptions, 'listen'>> {
  const {chapFile, allowedInitiators, stateDirectory} = iscsi
  const secrets = chapFile === undefined ? undefined : await readChapFile(chapFile)
  const target = targetName(volume)
  const store = stateDirectory === undefined ? undefined : new FileReservationStore(join(stateDirectory, `${volume}.reservations.json`))
  const deviceServer = await ScsiDeviceServer.open({volume, target, device, store, log})
  const rules = {
    targetName: target,
    portalGroup: PORTAL_GROUP,
    allowedInitiators: allowedInitiators === undefined ? undefined : new Set(allowedInitiators.map(name => name.toLowerCase())),
    chap: secrets?.session,
    discoveryChap: secrets?.discovery,
  }
  return {rules, deviceServer, log}
}

function frontendOf(server: IscsiServer, volume: string): Frontend {
  return {
    endpoint: endpointOf(server.address, targetName(volume)),
    park: async deadline => {
      const {fd, resume} = await server.park(deadline)
      const state: ParkedTarget = {address: server.address}
      return {state, fds: [fd], resume}
    },
    close: graceMs => server.close(graceMs),
  }
}

/** The name of a volume's target, as upstream makes it: without the underscores, which RFC 3722 does not allow. */
export function targetName(volume: string): string {
  return NAME_PREFIX + volume.replaceAll('_', ':')
}

/** `iscsi://HOST:PORT/IQN/1`. A target that listens on all addresses is reached on this machine. */
export function endpointOf(address: Address, target: string): string {
  if (address.kind !== 'tcp') throw new Error('an iSCSI portal is a TCP port')
  const isWildcard = address.host === '' || address.host === '::' || address.host === '0.0.0.0'
  return `iscsi://${formatHostPort(isWildcard ? {...address, host: '127.0.0.1'} : address)}/${target}/${DISK_LUN}`
}
