// NBD URIs, as doc/uri.md of github.com/NetworkBlockDevice/nbd defines them and libnbd and QEMU read them:
//   nbd://host:port/export    nbd+unix:///export?socket=/path
import {formatHostPort, parseAddress, type Address} from '../../../lib/address.js'

/** Where the sockets of volumes are when nobody says otherwise. */
export const SOCKET_FOLDER = '/var/run/longhorn'

/** The socket of a volume. Throws USAGE when its name makes the path too long for a socket. */
export function defaultAddress(volume: string): Address {
  return parseAddress(`unix:${SOCKET_FOLDER}/${volume}.nbd.sock`)
}

/** How a client reaches `volume` at `address`. A server that listens on all addresses is reached on this machine. */
export function endpointOf(address: Address, volume: string): string {
  const exportName = encodeURIComponent(volume)
  if (address.kind === 'unix') return `nbd+unix:///${exportName}?socket=${encodePath(address.path)}`
  const isWildcard = address.host === '' || address.host === '::' || address.host === '0.0.0.0'
  return `nbd://${formatHostPort(isWildcard ? {...address, host: 'localhost'} : address)}/${exportName}`
}

/** Slashes may stand in a query, and make it readable. */
function encodePath(path: string): string {
  return path.split('/').map(encodeURIComponent).join('/')
}
