// Reads what the NBD frontend gives as its endpoint; src/engine/frontends/nbd/endpoint.ts writes it.
//   nbd://host:port/export    nbd+unix:///export?socket=/path
import {parseAddress, type Address} from '../../lib/address.js'
import {isKind, LonghornError} from '../../lib/errors.js'
import type {NbdEndpoint} from './attach-way.js'

const NBD_URI = /^nbd(\+unix)?:\/\/([^/?#]*)(?:\/([^?#]*))?(?:\?socket=([^&#]+))?$/
const DEFAULT_PORT = 10809

/** Throws USAGE for everything else, as for URIs that ask for TLS. */
export function parseNbdUri(uri: string): NbdEndpoint {
  const match = NBD_URI.exec(uri)
  const [, unix, authority = '', name = '', socket] = match ?? []
  const isUnix = unix !== undefined
  if (match === null || isUnix !== (authority === '') || isUnix !== (socket !== undefined)) throw invalid(uri)
  return {kind: 'nbd', address: addressOf(uri, authority, socket), exportName: decode(uri, name)}
}

function addressOf(uri: string, authority: string, socket: string | undefined): Address {
  try {
    if (socket !== undefined) return parseAddress(`unix:${decode(uri, socket)}`)
    return parseAddress(/:\d+$/.test(authority) ? authority : `${authority}:${DEFAULT_PORT}`)
  } catch (error) {
    throw isKind(error, 'USAGE') ? invalid(uri, error) : error
  }
}

function decode(uri: string, text: string): string {
  try {
    return decodeURIComponent(text)
  } catch (error) {
    throw invalid(uri, error)
  }
}

function invalid(uri: string, cause?: unknown): LonghornError {
  return new LonghornError('USAGE', `invalid NBD URI "${uri}": expected nbd://host:port/export or nbd+unix:///export?socket=/path`, {}, {cause})
}
