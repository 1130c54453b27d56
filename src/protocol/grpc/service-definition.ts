// What the generated tables of methods and codecs look like from here. The types are structural, so any file that ts-proto
// writes fits them, and nothing generated has to import this folder or grpc-js.
import {BinaryReader} from '@bufbuild/protobuf/wire'
import {LonghornError, messageOf} from '../../lib/errors.js'

/** How messages of one type are written and read. */
export interface Codec<T> {
  encode(message: T): {finish(): Uint8Array}
  decode(from: BinaryReader): T
}

export interface MethodDefinition<Request = unknown, Response = unknown> {
  readonly name: string
  readonly requestType: Codec<Request>
  readonly requestStream: boolean
  readonly responseType: Codec<Response>
  readonly responseStream: boolean
}

export interface ServiceDefinition {
  readonly name: string
  readonly fullName: string
  readonly methods: Readonly<Record<string, MethodDefinition>>
}

type MessageOf<C> = C extends Codec<infer T> ? T : never

/** Names of the methods that take one request and give one response. */
export type UnaryMethod<S extends ServiceDefinition> = MethodWith<S, {requestStream: false; responseStream: false}>

/** Names of the methods that take one request and give any number of responses. */
export type StreamingMethod<S extends ServiceDefinition> = MethodWith<S, {requestStream: false; responseStream: true}>

type MethodWith<S extends ServiceDefinition, Shape> = {
  [M in keyof S['methods']]: S['methods'][M] extends Shape ? M : never
}[keyof S['methods']]

export type RequestOf<S extends ServiceDefinition, M extends keyof S['methods']> = MessageOf<S['methods'][M]['requestType']>
export type ResponseOf<S extends ServiceDefinition, M extends keyof S['methods']> = MessageOf<S['methods'][M]['responseType']>

/** `/ptypes.ReplicaService/ReplicaGet`, as it is called on the wire. */
export function methodPath(service: ServiceDefinition, method: MethodDefinition): string {
  return `/${service.fullName}/${method.name}`
}

/** A message with these fields and the defaults of protobuf for all others: `newMessage(Replica, {state: 'closed'})`. */
export function newMessage<T>(codec: Codec<T>, fields: Partial<T> = {}): T {
  return {...codec.decode(new BinaryReader(new Uint8Array(0))), ...fields}
}

/** Throws for a number that its field cannot hold. */
export function encodeMessage<T>(codec: Codec<T>, message: T): Buffer {
  const bytes = codec.encode(message).finish()
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** Fields that are not known here are skipped. Throws PROTOCOL for bytes that are not a message; `what` names them in the text. */
export function decodeMessage<T>(codec: Codec<T>, bytes: Uint8Array, what: string): T {
  const reader = new BinaryReader(bytes)
  let message: T
  try {
    message = codec.decode(reader)
  } catch (error) {
    throw new LonghornError('PROTOCOL', `${what} is malformed: ${messageOf(error)}`, {}, {cause: error})
  }
  // The generated code takes a tag of zero as the end, and would accept a message with any garbage behind it.
  if (reader.pos !== reader.len) {
    throw new LonghornError('PROTOCOL', `${what} is malformed: it ends at byte ${reader.pos} of ${reader.len}`)
  }
  return message
}
