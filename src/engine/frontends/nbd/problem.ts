import {inRange, ERRNO} from '../../../protocol/block-device.js'
import type {Agreement} from './handshake.js'
import {COMMAND, COMMAND_FLAG, MAX_PAYLOAD_BYTES, NBD_ERROR} from './protocol.js'
import type {Request} from './requests.js'

/** Why a request is refused. */
export interface Problem {
  /** An NBD error. */
  readonly error: number
  /** For whoever runs the client; only those with structured replies get to see it. */
  readonly text: string
}

/** What is wrong with a request that has not been started; undefined when it can be. `sizeBytes` is the volume's size now. */
export function problemOf(request: Request, agreement: Agreement, sizeBytes: number): Problem | undefined {
  const allowed = allowedFlags(request.command, agreement)
  if (allowed === undefined) return {error: NBD_ERROR.EINVAL, text: `command ${request.command} is not supported on this connection`}
  if ((request.flags & ~allowed) !== 0) {
    return {error: NBD_ERROR.EINVAL, text: `flags 0x${request.flags.toString(16)} do not go with command ${request.command}`}
  }
  if (request.length > MAX_PAYLOAD_BYTES && (request.command === COMMAND.READ || request.command === COMMAND.WRITE)) {
    const error = request.command === COMMAND.READ ? NBD_ERROR.EOVERFLOW : NBD_ERROR.EINVAL
    return {error, text: `${request.length} bytes are more than the ${MAX_PAYLOAD_BYTES} that one request may move`}
  }
  if (inRange(request.offset, request.length, sizeBytes)) return lengthProblem(request)
  const isWrite = request.command === COMMAND.WRITE || request.command === COMMAND.WRITE_ZEROES
  const error = isWrite ? NBD_ERROR.ENOSPC : NBD_ERROR.EINVAL
  return {error, text: `${request.length} bytes at ${request.offset} reach beyond the end of the volume, which has ${sizeBytes}`}
}

/** The NBD error for one of the device's: the same numbers, by the protocol's decree. */
export function nbdError(errno: number): number {
  return KNOWN_ERRORS.has(errno) ? errno : NBD_ERROR.EIO
}

/** The usual words for an NBD error. */
export function errorText(error: number): string {
  switch (error) {
    case NBD_ERROR.EINVAL:
      return 'invalid request'
    case NBD_ERROR.ENOSPC:
      return 'no space left for the data of the volume'
    case NBD_ERROR.ESHUTDOWN:
      return 'the volume is being detached'
    default:
      return 'input/output error'
  }
}

const KNOWN_ERRORS: ReadonlySet<number> = new Set([ERRNO.EIO, ERRNO.EINVAL, ERRNO.ENOSPC, ERRNO.ESHUTDOWN])

/** FUA goes with everything, as clients are known to set it anywhere. Undefined for a command that there is not. */
function allowedFlags(command: number, {structured, blockStatus}: Agreement): number | undefined {
  const {FUA, NO_HOLE, DF, REQ_ONE} = COMMAND_FLAG
  switch (command) {
    case COMMAND.READ:
      return structured ? FUA | DF : FUA
    case COMMAND.WRITE:
    case COMMAND.FLUSH:
    case COMMAND.TRIM:
      return FUA
    case COMMAND.WRITE_ZEROES:
      return FUA | NO_HOLE
    case COMMAND.BLOCK_STATUS:
      return blockStatus ? FUA | REQ_ONE : undefined
    default:
      return undefined
  }
}

function lengthProblem({command, offset, length}: Request): Problem | undefined {
  if (command === COMMAND.FLUSH && (offset !== 0 || length !== 0)) {
    return {error: NBD_ERROR.EINVAL, text: 'a flush covers the whole volume: its offset and length must be 0'}
  }
  if (command === COMMAND.BLOCK_STATUS && length === 0) return {error: NBD_ERROR.EINVAL, text: 'there is no status of no bytes'}
  return undefined
}
