// Ports are reused: a process that took over a dead one's address must not be taken for it. So calls say in their metadata whom
// they mean, and a server that knows itself by another name refuses them.
import {Metadata} from '@grpc/grpc-js'
import {LonghornError} from '../../lib/errors.js'

/** Names as the manager gives them. Empty or missing means not known, and is not compared. */
export interface Identity {
  readonly volumeName?: string | undefined
  readonly instanceName?: string | undefined
}

/** The names are upstream's. */
const KEYS = {volumeName: 'volume-name', instanceName: 'instance-name'} as const
const FIELDS = [
  ['volumeName', 'volume name'],
  ['instanceName', 'instance name'],
] as const

export function identityMetadata(meant: Identity): Metadata {
  const metadata = new Metadata()
  for (const [field] of FIELDS) {
    const name = meant[field]
    if (name) metadata.set(KEYS[field], name)
  }
  return metadata
}

/** Throws CONFLICT when the caller means somebody else. Text and rules are upstream's: of several values none is compared. */
export function checkIdentity(own: Identity, role: 'controller' | 'replica', metadata: Metadata): void {
  for (const [field, label] of FIELDS) {
    const [meant, ...others] = metadata.get(KEYS[field])
    if (!own[field] || !meant || others.length > 0 || meant === own[field]) continue
    throw new LonghornError('CONFLICT', `incorrect ${label} ${meant.toString()}; check ${role} address`)
  }
}
