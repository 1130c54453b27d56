import {networkInterfaces} from 'node:os'
import {LonghornError} from '../../../lib/errors.js'
import {IscsiHost} from './iscsi-host.js'

/**
 * Where a target of this process has to listen so that this host's initiator reaches it: the loopback interface, or, in a
 * container with a network of its own, the address of that. Throws UNSUPPORTED when it has none.
 */
export function portalHost(): string {
  return IscsiHost.find().sharesNetwork ? '127.0.0.1' : ownAddress()
}

/** As upstream chooses: a global address, IPv4 first. */
function ownAddress(): string {
  const addresses = Object.values(networkInterfaces())
    .flatMap(entries => entries ?? [])
    .filter(({internal, address}) => !internal && !/^fe80:/i.test(address))
  const found = addresses.find(({family}) => family === 'IPv4') ?? addresses[0]
  if (found === undefined) throw new LonghornError('UNSUPPORTED', 'the initiator of this host lives in another network, and this container has no address where it could reach us')
  return found.address
}
