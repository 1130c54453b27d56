// Reads what the iSCSI frontend gives as its endpoint, as upstream's manager writes it: iscsi://host:port/iqn/lun
import {parseAddress} from '../../../lib/address.js'
import {isKind, LonghornError} from '../../../lib/errors.js'
import type {IscsiEndpoint} from '../attach-way.js'

const ISCSI_URI = /^iscsi:\/\/([^/?#@]+)\/([^/?#\s]+)\/(\d{1,5})$/
const DEFAULT_PORT = 3260
/** RFC 7143 section 4.2.7: lower case where the target has been named properly, but that is for the target to say. */
const IQN = /^(?:iqn\.|eui\.|naa\.)[A-Za-z0-9.:_-]+$/
const MAX_IQN_LENGTH = 223
/** Linux numbers them flat up to here. */
const MAX_LUN = 16383

/** Throws USAGE for everything else, as for URIs with a user and a password: secrets come from a file. */
export function parseIscsiUri(uri: string): IscsiEndpoint {
  const [, authority = '', name = '', lun = ''] = ISCSI_URI.exec(uri) ?? []
  const iqn = decode(uri, name)
  if (!IQN.test(iqn) || iqn.length > MAX_IQN_LENGTH || Number(lun) > MAX_LUN) throw invalid(uri)
  try {
    const address = parseAddress(/(?:^[^:]+|\]):\d+$/.test(authority) ? authority : `${authority}:${DEFAULT_PORT}`)
    if (address.kind !== 'tcp' || address.host === '') throw invalid(uri)
    return {kind: 'iscsi', address, iqn, lun: Number(lun)}
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
  // What stands before an @ could be a password.
  const shown = uri.replace(/\/\/[^/]*@/, '//…@')
  return new LonghornError('USAGE', `invalid iSCSI URI "${shown}": expected iscsi://host:port/iqn/lun`, {}, {cause})
}
