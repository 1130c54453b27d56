// Both ends of a connection, as the kernel names them: the log says who an initiator is, and discovery tells initiators
// the address that they have reached us at, which is not the one we listen on when that is a wildcard.
import {formatHostPort} from '../../../../lib/address.js'
import {libcFunction} from '../../../../lib/sys/libc.js'

const AF_INET = 2
const AF_INET6 = 10
/** Bytes of a sockaddr_in6, the largest one here. */
const ADDRESS_BYTES = 28

const names = {
  getpeername: libcFunction<NameCall>('int getpeername(int fd, void *address, void *length)'),
  getsockname: libcFunction<NameCall>('int getsockname(int fd, void *address, void *length)'),
}
type NameCall = (fd: number, address: Buffer, length: Buffer) => number

/** `10.0.0.7:52144`; undefined when the connection is gone or is no TCP connection. */
export function peerName(fd: number): string | undefined {
  return nameOf(fd, names.getpeername)
}

/** The address and port that the other side has connected to. */
export function localName(fd: number): string | undefined {
  return nameOf(fd, names.getsockname)
}

// sockaddr_in:  0 u16 family  2 u16 port (big-endian)  4 4 bytes of address
// sockaddr_in6: 0 u16 family  2 u16 port (big-endian)  4 u32 flow  8 16 bytes of address
function nameOf(fd: number, call: NameCall): string | undefined {
  const address = Buffer.alloc(ADDRESS_BYTES)
  const length = Buffer.from([ADDRESS_BYTES, 0, 0, 0])
  if (call(fd, address, length) < 0) return undefined
  const port = address.readUInt16BE(2)
  switch (address.readUInt16LE(0)) {
    case AF_INET:
      return formatHostPort({host: [...address.subarray(4, 8)].join('.'), port})
    case AF_INET6:
      return formatHostPort({host: ipv6Text(address.subarray(8, 24)), port})
    default:
      return undefined
  }
}

/** An IPv4 address in IPv6's clothes is shown as what it is. */
function ipv6Text(bytes: Buffer): string {
  const groups = Array.from({length: 8}, (_, index) => bytes.readUInt16BE(index * 2))
  if (groups.slice(0, 5).every(group => group === 0) && groups[5] === 0xffff) return [...bytes.subarray(12)].join('.')
  // The short form, with its longest run of zeros left out.
  return new URL(`http://[${groups.map(group => group.toString(16)).join(':')}]`).hostname.slice(1, -1)
}
