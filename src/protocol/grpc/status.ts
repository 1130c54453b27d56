// Errors across gRPC, both ways, for peers of ours and for upstream's.
//
// Between processes of ours a trailer names the kind, so an error arrives as what it was. Upstream's peers send code UNKNOWN and
// free text for nearly everything, and look for certain words in ours: those words are part of upstream's protocol. This file
// is the only one that reads or writes them; everyone else branches on the kind.
import {getSystemErrorMap} from 'node:util'
import {Metadata, status as Status, type ServiceError} from '@grpc/grpc-js'
import {LonghornError, messageOf, type ErrorKind} from '../../lib/errors.js'

/** The trailer with the kind. Upstream ignores it. */
const KIND_TRAILER = 'longhorn-error'

/** A text travels in a header, three to nine bytes a character, and Node refuses headers of more than 64 KiB. */
const MAX_TEXT = 4096

/**
 * IO is UNKNOWN and not INTERNAL: upstream's engine takes the text of an INTERNAL from ReplicaExpand for JSON (expansion.ts).
 * UNAVAILABLE, DEADLINE_EXCEEDED and CANCELLED make upstream try again later, which is what these kinds mean.
 */
const STATUS_OF: Record<ErrorKind, Status> = {
  USAGE: Status.INVALID_ARGUMENT,
  NOT_FOUND: Status.NOT_FOUND,
  CONFLICT: Status.FAILED_PRECONDITION,
  UNREACHABLE: Status.UNAVAILABLE,
  TIMEOUT: Status.DEADLINE_EXCEEDED,
  PROTOCOL: Status.INVALID_ARGUMENT,
  CORRUPT: Status.DATA_LOSS,
  NO_SPACE: Status.RESOURCE_EXHAUSTED,
  BUSY: Status.ABORTED,
  UNSUPPORTED: Status.UNIMPLEMENTED,
  IO: Status.UNKNOWN,
  NO_DATA: Status.UNKNOWN,
  INTERRUPTED: Status.CANCELLED,
}

/** What a code means that came without our trailer: from upstream, from grpc-js itself, from something in between. */
const KIND_OF: Record<Exclude<Status, Status.OK>, ErrorKind> = {
  [Status.CANCELLED]: 'UNREACHABLE',
  [Status.UNKNOWN]: 'IO',
  [Status.INVALID_ARGUMENT]: 'USAGE',
  [Status.DEADLINE_EXCEEDED]: 'TIMEOUT',
  [Status.NOT_FOUND]: 'NOT_FOUND',
  [Status.ALREADY_EXISTS]: 'CONFLICT',
  [Status.PERMISSION_DENIED]: 'USAGE',
  // Not NO_SPACE: grpc libraries use it for messages that are too large.
  [Status.RESOURCE_EXHAUSTED]: 'PROTOCOL',
  [Status.FAILED_PRECONDITION]: 'CONFLICT',
  [Status.ABORTED]: 'BUSY',
  [Status.OUT_OF_RANGE]: 'USAGE',
  [Status.UNIMPLEMENTED]: 'UNSUPPORTED',
  [Status.INTERNAL]: 'IO',
  [Status.UNAVAILABLE]: 'UNREACHABLE',
  [Status.DATA_LOSS]: 'CORRUPT',
  [Status.UNAUTHENTICATED]: 'USAGE',
}

/** Words that upstream's components look for. The handlers themselves write those that are not tied to one kind. */
const TEXT_FOR: Partial<Record<ErrorKind, string>> = {
  NO_SPACE: 'no space left on device',
  NO_DATA: 'no available backend due to replica error',
}

/** What an UNKNOWN from upstream is about. */
const KIND_BY_TEXT: readonly (readonly [RegExp, ErrorKind])[] = [
  [/no space left on device/, 'NO_SPACE'],
  [/no available backend due to replica error/, 'NO_DATA'],
  [/snapshot .* is already existing/, 'CONFLICT'],
  [/already purging|already in progress|cannot request hashing snapshot/, 'BUSY'],
]

/** Without our trailer, these come from the way to the peer rather than from the peer. */
const NO_ANSWER: readonly Status[] = [Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.CANCELLED]

/** A call that failed: the kind says what to do about it, the rest how it came about. */
export class RpcError extends LonghornError {
  constructor(
    kind: ErrorKind,
    message: string,
    readonly status: Status,
    /**
     * True when the peer itself reports this. False when the call may not have reached it, or its answer was lost: then it is
     * the peer that is in doubt. A sync agent that cannot reach a backup store answers UNREACHABLE, and is alive.
     */
    readonly answered: boolean,
    /** The text as it came. */
    readonly text: string,
    options?: ErrorOptions,
  ) {
    super(kind, message, {status: Status[status]}, options)
  }
}

/** What a handler throws to answer with exactly this code and text; of other errors the kind decides. */
export class StatusError extends Error {
  override readonly name: string = 'StatusError'

  constructor(
    readonly status: Status,
    message: string,
  ) {
    super(message)
  }
}

/** How a handler's error goes to the peer. */
export function toStatus(error: unknown): {code: Status; details: string; metadata: Metadata} {
  const metadata = new Metadata()
  if (error instanceof StatusError) return {code: error.status, details: clip(error.message), metadata}
  if (!(error instanceof LonghornError)) return {code: Status.UNKNOWN, details: clip(messageOf(error)), metadata}
  const kind = error.code.slice('LH_'.length) as ErrorKind
  metadata.set(KIND_TRAILER, kind)
  const words = TEXT_FOR[kind] ?? ''
  const text = error.message.includes(words) ? error.message : `${error.message}: ${words}`
  return {code: STATUS_OF[kind], details: clip(text), metadata}
}

export interface FailedCall {
  /** Who was called, for the text: `replica 10.0.0.3:9502`. */
  readonly peer: string
  readonly method: string
  readonly timeoutMs: number
  /** Whether there was a connection when it failed. */
  readonly connected: boolean
}

/** How a failed call comes back to its caller. */
export function fromStatus(error: ServiceError, {peer, method, timeoutMs, connected}: FailedCall): RpcError {
  const {code, details: text} = error
  const named = kindTrailer(error.metadata)
  const answered = named !== undefined || !NO_ANSWER.includes(code)
  const make = (kind: ErrorKind, what: string): RpcError => new RpcError(kind, `${peer}: ${what}`, code, answered, text, {cause: error})

  if (named !== undefined) return make(named, text)
  if (code === Status.DEADLINE_EXCEEDED) {
    const seconds = timeoutMs / 1000
    return connected ? make('TIMEOUT', `${method} took longer than ${seconds} s`) : make('UNREACHABLE', `no connection within ${seconds} s`)
  }
  if (code === Status.UNAVAILABLE) return make('UNREACHABLE', connectionFailure(text))
  const byText = code === Status.UNKNOWN ? KIND_BY_TEXT.find(([words]) => words.test(text)) : undefined
  return make(byText?.[1] ?? kindOf(code), text)
}

function kindTrailer(metadata: Metadata | undefined): ErrorKind | undefined {
  const kind = metadata?.get(KIND_TRAILER)[0]
  return typeof kind === 'string' && Object.hasOwn(STATUS_OF, kind) ? (kind as ErrorKind) : undefined
}

/** A peer may send a code that does not exist. */
function kindOf(code: Status): ErrorKind {
  return (KIND_OF as Partial<Record<Status, ErrorKind>>)[code] ?? 'IO'
}

/** grpc-js hands out only a text: `No connection established. Last error: connect ECONNREFUSED 10.0.0.3:9502 (2026-11-20T…). …`. */
function connectionFailure(text: string): string {
  const name = /\bE[A-Z\d]{3,}\b/.exec(text)?.[0]
  for (const [known, meaning] of getSystemErrorMap().values()) {
    if (known === name) return meaning
  }
  return /Last error: (.*?) \(\d{4}-/.exec(text)?.[1] ?? text
}

/** Cut, and with half surrogate pairs replaced: grpc-js throws on them when it writes the header. */
function clip(text: string): string {
  const short = text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text
  return Buffer.from(short).toString()
}
