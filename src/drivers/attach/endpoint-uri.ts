// Endpoints as the frontends announce them, and as people give them.
import {resolve} from 'node:path'
import {endpointOf as nbdUriOf} from '../../engine/frontends/nbd/endpoint.js'
import {formatHostPort} from '../../lib/address.js'
import {LonghornError} from '../../lib/errors.js'
import type {Endpoint} from './attach-way.js'
import {parseIscsiUri} from './kernel-iscsi/iscsi-uri.js'
import {parseNbdUri} from './nbd-uri.js'

/** Reads `nbd://…`, `nbd+unix://…` and `iscsi://…`. Throws USAGE. */
export function parseEndpoint(uri: string): Endpoint {
  if (/^nbd(\+unix)?:/.test(uri)) return parseNbdUri(uri)
  if (uri.startsWith('iscsi:')) return parseIscsiUri(uri)
  throw new LonghornError('USAGE', `invalid endpoint "${uri}": expected nbd://…, nbd+unix://… or iscsi://…`)
}

export function formatEndpoint(endpoint: Endpoint): string {
  if (endpoint.kind === 'nbd') return nbdUriOf(endpoint.address, endpoint.exportName)
  return `iscsi://${formatHostPort(endpoint.address)}/${endpoint.iqn}/${endpoint.lun}`
}

/** The endpoint with the file that its CHAP secrets are in. Throws USAGE where there is no CHAP. */
export function withChapFile(endpoint: Endpoint, chapFile: string | undefined): Endpoint {
  if (chapFile === undefined) return endpoint
  if (endpoint.kind !== 'iscsi') throw new LonghornError('USAGE', 'a CHAP file is for iscsi endpoints only')
  return {...endpoint, chapFile: resolve(chapFile)}
}
