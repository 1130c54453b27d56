import {join} from 'node:path'
import {formatHostPort, type Address, type TcpAddress} from '../../../lib/address.js'
import {LonghornError} from '../../../lib/errors.js'
import type {Frontend, FrontendKind, FrontendOptions} from '../frontend.js'
import {FileReservationStore} from './scsi/reservations/file-reservation-store.js'
import {ScsiDeviceServer} from './scsi/device-server.js'
import {readChapFile} from './transport/chap-file.js'
import {IscsiServer} from './transport/server.js'

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
  summary: 'an iSCSI target, on a TCP port',

  async open({volume, device, listen = DEFAULT_ADDRESS, log, iscsi = {}}: FrontendOptions): Promise<Frontend> {
    if (listen.kind !== 'tcp') throw new LonghornError('USAGE', 'frontend iscsi listens on a TCP port: expected host:port')
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
    const server = await IscsiServer.open({rules, deviceServer, listen, log})
    return {
      endpoint: endpointOf(server.address, target),
      close: graceMs => server.close(graceMs),
    }
  },
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
