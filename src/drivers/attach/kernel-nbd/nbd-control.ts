// What the kernel's NBD driver can be told, linux/nbd-netlink.h. With this interface, and not with the older one of ioctl, a
// device outlives its connection for a while: requests wait until it gets another one. nbd-client up to 3.24 uses it
// without that, and with `-persist -nonetlink` it ends like without: to the older interface Linux 6.1 reports a connection that
// has ended as if somebody had wished it to.
import {closeSync, constants, existsSync, openSync} from 'node:fs'
import {LonghornError} from '../../../lib/errors.js'
import {checked, type Call} from '../../../lib/net/socket-calls.js'
import {libcFunction} from '../../../lib/sys/libc.js'
import {decodeMessage, find, NetlinkSocket, nested, text, u32, u64, type Family} from './generic-netlink.js'

const FAMILY = 'nbd'
const GROUP = 'nbd_mc_group'
const COMMAND = {CONNECT: 1, DISCONNECT: 2, RECONFIGURE: 3, LINK_DEAD: 4} as const
const ATTRIBUTE = {INDEX: 1, SIZE_BYTES: 2, BLOCK_SIZE_BYTES: 3, TIMEOUT: 4, SERVER_FLAGS: 5, SOCKETS: 7, DEAD_CONNECTION_TIMEOUT: 8, BACKEND: 10} as const
const SOCKET_ITEM = 1
const SOCKET_FD = 1
const BLOCK_BYTES = 512

/** The driver is told about in the first network namespace only. In a container that one can be seen where the host's /proc is. */
const FIRST_NAMESPACE = ['/host/proc/1/ns/net', '/proc/1/ns/net']
const CLONE_NEWNET = 0x4000_0000

const setns = libcFunction<Call>('int setns(int fd, int type)')

export interface NbdDevice {
  /** Shown in /sys/block/nbdN/backend, and needed for every later change. */
  readonly backend: string
  readonly sizeBytes: number
  /** Transmission flags of the server. */
  readonly flags: number
  /** A request that is not answered for so long is sent again, over another connection. Seconds. */
  readonly requestTimeout: number
  /** Without a connection requests wait for so long before they fail. Seconds. */
  readonly deadConnectionTimeout: number
}

/** The driver's end of netlink. For short use: every call waits for the kernel. */
export class NbdControl {
  readonly #socket: NetlinkSocket
  readonly #family: Family

  private constructor(socket: NetlinkSocket, family: Family) {
    this.#socket = socket
    this.#family = family
  }

  /** Throws UNSUPPORTED when the driver is not there, or not for us. */
  static open(): NbdControl {
    const found = openFamily()
    if (found === undefined) throw new LonghornError('UNSUPPORTED', 'the NBD driver does not answer: load the kernel module nbd, or run in the network namespace of the host')
    return new NbdControl(found.socket, found.family)
  }

  /** Makes a device on a free index, and gives that. The kernel keeps the sockets; our descriptors can be closed. */
  connect(device: NbdDevice, sockets: readonly number[]): number {
    const reply = this.#request(COMMAND.CONNECT, [
      u64(ATTRIBUTE.SIZE_BYTES, device.sizeBytes),
      u64(ATTRIBUTE.BLOCK_SIZE_BYTES, BLOCK_BYTES),
      u64(ATTRIBUTE.TIMEOUT, device.requestTimeout),
      u64(ATTRIBUTE.DEAD_CONNECTION_TIMEOUT, device.deadConnectionTimeout),
      u64(ATTRIBUTE.SERVER_FLAGS, device.flags),
      text(ATTRIBUTE.BACKEND, device.backend),
      encodeSockets(sockets),
    ])
    const index = find(reply, ATTRIBUTE.INDEX)?.readUInt32LE()
    if (index === undefined) throw new LonghornError('IO', 'the NBD driver did not say which device it has made')
    return index
  }

  /** Gives a device that has lost its connections new ones. Does nothing when it has lost none. */
  reconnect(index: number, backend: string, sockets: readonly number[]): void {
    this.#request(COMMAND.RECONFIGURE, [u32(ATTRIBUTE.INDEX, index), text(ATTRIBUTE.BACKEND, backend), encodeSockets(sockets)])
  }

  resize(index: number, backend: string, sizeBytes: number): void {
    this.#request(COMMAND.RECONFIGURE, [u32(ATTRIBUTE.INDEX, index), text(ATTRIBUTE.BACKEND, backend), u64(ATTRIBUTE.SIZE_BYTES, sizeBytes)])
  }

  /** Ends the connections; who still uses the device gets errors. Returns when that is so. */
  disconnect(index: number): void {
    this.#request(COMMAND.DISCONNECT, [u32(ATTRIBUTE.INDEX, index)])
  }

  /** Another socket, at which the kernel tells when a connection has ended; linkDead() reads what comes in. */
  listen(): NetlinkSocket {
    const found = openFamily()
    const group = found?.family.groups.get(GROUP)
    if (found === undefined || group === undefined) throw new LonghornError('UNSUPPORTED', 'the NBD driver does not tell about lost connections')
    found.socket.listenTo(group)
    return found.socket
  }

  close(): void {
    this.#socket.close()
  }

  #request(command: number, attributes: Parameters<NetlinkSocket['request']>[2]): ReturnType<NetlinkSocket['request']> {
    return this.#socket.request(this.#family.id, command, attributes)
  }
}

/** The index of the device that has lost a connection; undefined for other messages. */
export function linkDead(message: Buffer): number | undefined {
  const decoded = decodeMessage(message)
  return decoded?.command === COMMAND.LINK_DEAD ? find(decoded.attributes, ATTRIBUTE.INDEX)?.readUInt32LE() : undefined
}

function encodeSockets(sockets: readonly number[]): ReturnType<typeof nested> {
  return nested(ATTRIBUTE.SOCKETS, sockets.map(fd => nested(SOCKET_ITEM, [u32(SOCKET_FD, fd)])))
}

/** A socket from where the driver can be reached; undefined when that is nowhere. */
function openFamily(): {socket: NetlinkSocket; family: Family} | undefined {
  const elsewhere = FIRST_NAMESPACE.filter(existsSync).map(path => () => inNamespace(path, () => NetlinkSocket.open()))
  for (const open of [() => NetlinkSocket.open(), ...elsewhere]) {
    const socket = open()
    const family = socket.family(FAMILY)
    if (family !== undefined) return {socket, family}
    socket.close()
  }
  return undefined
}

/** This thread alone goes there, and comes back. */
function inNamespace<T>(path: string, action: () => T): T {
  const own = openSync('/proc/thread-self/ns/net', constants.O_RDONLY)
  try {
    const there = openSync(path, constants.O_RDONLY)
    try {
      checked(setns(there, CLONE_NEWNET), 'setns', `entering ${path}`)
    } finally {
      closeSync(there)
    }
    try {
      return action()
    } finally {
      checked(setns(own, CLONE_NEWNET), 'setns', 'coming back')
    }
  } finally {
    closeSync(own)
  }
}
