// Generic netlink, the language in which the kernel is told about NBD devices. All numbers are in the machine's byte order,
// which is little-endian wherever this program runs.
//   message:    0 u32 length  4 u16 type  6 u16 flags  8 u32 sequence  12 u32 port  16 u8 command  17 u8 version  18 u16 0  20 attributes
//   attribute:  0 u16 length, with these four bytes  2 u16 kind, bit 15: holds attributes  4 data, padded to a multiple of four
//   type 2:     16 i32 errno, negative, or 0 as an acknowledgement
import {performance} from 'node:perf_hooks'
import {LonghornError} from '../../../lib/errors.js'
import {checked, closeFd, type Call} from '../../../lib/net/socket-calls.js'
import {libcFunction} from '../../../lib/sys/libc.js'
import {systemError} from '../../../lib/sys/system-error.js'
import {receiveDatagram, sendAll} from './socket-io.js'

const AF_NETLINK = 16
const SOCK_RAW = 3
const SOCK_CLOEXEC = 0x80000
const NETLINK_GENERIC = 16
const SOL_NETLINK = 270
const NETLINK_ADD_MEMBERSHIP = 1

const HEADER_BYTES = 20
const ATTRIBUTE_BYTES = 4
const NLM_F_REQUEST = 1
const NLM_F_ACK = 4
const NLMSG_ERROR = 2
const NESTED = 0x8000
const KIND_MASK = 0x3fff
const MAX_MESSAGE_BYTES = 32 * 1024

/** The kernel answers at once, except where it waits for a lock that someone holds who sends to a server that hangs. */
const ANSWER_TIMEOUT_MS = 60_000

/** The family that knows the others. */
const CONTROL = {family: 16, getFamily: 3, familyId: 1, familyName: 2, groups: 7, groupName: 1, groupId: 2} as const
const ENOENT = 2

const socket = libcFunction<Call>('int socket(int domain, int type, int protocol)')
const setsockopt = libcFunction<Call>('int setsockopt(int fd, int level, int name, const void *value, uint32_t length)')

export interface Attribute {
  readonly kind: number
  readonly data: Buffer
}

export interface Family {
  readonly id: number
  /** Groups of listeners, by name. */
  readonly groups: ReadonlyMap<string, number>
}

export function u32(kind: number, value: number): Attribute {
  const data = Buffer.alloc(4)
  data.writeUInt32LE(value)
  return {kind, data}
}

export function u64(kind: number, value: number): Attribute {
  const data = Buffer.alloc(8)
  data.writeBigUInt64LE(BigInt(value))
  return {kind, data}
}

/** With a zero at the end. */
export function text(kind: number, value: string): Attribute {
  return {kind, data: Buffer.from(`${value}\0`)}
}

export function nested(kind: number, attributes: readonly Attribute[]): Attribute {
  return {kind: kind | NESTED, data: encodeAttributes(attributes)}
}

export function encodeAttributes(attributes: readonly Attribute[]): Buffer {
  return Buffer.concat(
    attributes.map(({kind, data}) => {
      const bytes = Buffer.alloc(ATTRIBUTE_BYTES + padded(data.length))
      bytes.writeUInt16LE(ATTRIBUTE_BYTES + data.length, 0)
      bytes.writeUInt16LE(kind, 2)
      data.copy(bytes, ATTRIBUTE_BYTES)
      return bytes
    }),
  )
}

/** Throws PROTOCOL when a length makes no sense. */
export function decodeAttributes(bytes: Buffer): Attribute[] {
  const attributes: Attribute[] = []
  for (let at = 0; at + ATTRIBUTE_BYTES <= bytes.length; ) {
    const length = bytes.readUInt16LE(at)
    if (length < ATTRIBUTE_BYTES || at + length > bytes.length) throw new LonghornError('PROTOCOL', `netlink: an attribute of ${length} bytes`)
    attributes.push({kind: bytes.readUInt16LE(at + 2) & KIND_MASK, data: bytes.subarray(at + ATTRIBUTE_BYTES, at + length)})
    at += padded(length)
  }
  return attributes
}

/** A message of a family, as listeners get it: its command and attributes. Undefined for anything else. */
export function decodeMessage(bytes: Buffer): {command: number; attributes: Attribute[]} | undefined {
  if (bytes.length < HEADER_BYTES || bytes.readUInt16LE(4) <= NLMSG_ERROR) return undefined
  return {command: bytes.readUInt8(16), attributes: decodeAttributes(bytes.subarray(HEADER_BYTES, bytes.readUInt32LE(0)))}
}

/** A conversation with the kernel. Belongs to the network namespace in which it was opened. */
export class NetlinkSocket {
  readonly fd: number
  #sequence = 0

  private constructor(fd: number) {
    this.fd = fd
  }

  static open(): NetlinkSocket {
    return new NetlinkSocket(checked(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC), 'socket', 'opening a netlink socket'))
  }

  /** Undefined when the kernel, or this network namespace, has no such family. */
  family(name: string): Family | undefined {
    try {
      const attributes = this.request(CONTROL.family, CONTROL.getFamily, [text(CONTROL.familyName, name)])
      const groups = decodeAttributes(find(attributes, CONTROL.groups) ?? Buffer.alloc(0)).map(({data}) => decodeAttributes(data))
      return {
        id: find(attributes, CONTROL.familyId)?.readUInt16LE() ?? 0,
        groups: new Map(groups.map(group => [textOf(find(group, CONTROL.groupName)), find(group, CONTROL.groupId)?.readUInt32LE() ?? 0])),
      }
    } catch (error) {
      if (error instanceof Error && 'errno' in error && error.errno === -ENOENT) return undefined
      throw error
    }
  }

  /** From now on messages to this group come in at `fd`; requests need another socket then. */
  listenTo(group: number): void {
    const value = Buffer.alloc(4)
    value.writeUInt32LE(group)
    checked(setsockopt(this.fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, value, value.length), 'setsockopt', 'listening to the kernel')
  }

  /** Sends a command, waits until the kernel has done it, and gives the attributes of its reply, if it replied. Throws SystemError. */
  request(family: number, command: number, attributes: readonly Attribute[]): Attribute[] {
    const sequence = ++this.#sequence
    const deadline = performance.now() + ANSWER_TIMEOUT_MS
    sendAll(this.fd, encodeMessage(family, command, sequence, attributes), deadline)
    let reply: Attribute[] = []
    for (;;) {
      for (const message of split(receiveDatagram(this.fd, MAX_MESSAGE_BYTES, deadline))) {
        if (message.readUInt32LE(8) !== sequence) continue
        if (message.readUInt16LE(4) !== NLMSG_ERROR) {
          reply = decodeMessage(message)?.attributes ?? []
          continue
        }
        const errno = -message.readInt32LE(16)
        if (errno !== 0) throw systemError('netlink', errno, `command ${command} of family ${family}`)
        return reply
      }
    }
  }

  close(): void {
    closeFd(this.fd)
  }
}

export function find(attributes: readonly Attribute[], kind: number): Buffer | undefined {
  return attributes.find(attribute => attribute.kind === kind)?.data
}

function encodeMessage(family: number, command: number, sequence: number, attributes: readonly Attribute[]): Buffer {
  const body = encodeAttributes(attributes)
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt32LE(HEADER_BYTES + body.length, 0)
  header.writeUInt16LE(family, 4)
  header.writeUInt16LE(NLM_F_REQUEST | NLM_F_ACK, 6)
  header.writeUInt32LE(sequence, 8)
  header.writeUInt8(command, 16)
  header.writeUInt8(1, 17)
  return Buffer.concat([header, body])
}

/** The messages of one datagram. */
function split(datagram: Buffer): Buffer[] {
  const messages: Buffer[] = []
  for (let at = 0; at + HEADER_BYTES <= datagram.length; ) {
    const length = datagram.readUInt32LE(at)
    if (length < HEADER_BYTES || at + length > datagram.length) throw new LonghornError('PROTOCOL', `netlink: a message of ${length} bytes`)
    messages.push(datagram.subarray(at, at + length))
    at += padded(length)
  }
  return messages
}

function padded(length: number): number {
  return Math.ceil(length / 4) * 4
}

function textOf(data: Buffer | undefined): string {
  return data === undefined ? '' : data.toString('utf8').replace(/\0.*$/, '')
}
