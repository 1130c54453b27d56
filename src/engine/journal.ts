import type {Log} from '../lib/log.js'
import {OP, type Io} from '../protocol/block-device.js'
import type {Volume} from './volume.js'

/**
 * Writes to the log what the engine waits for: a line per request in flight and replica, the oldest first, at most `limit`
 * of them (0: all), and one with how many there are. For whoever wants to know why a volume stands still.
 */
export function logRequestsInFlight(volume: Volume, limit: number, log: Log): void {
  const now = performance.now()
  const requests = volume.replicas
    .flatMap(link => link.client.requestsInFlight().map(io => ({replica: link.address, io})))
    .sort((a, b) => a.io.startedAt - b.io.startedAt)
  for (const {replica, io} of limit === 0 ? requests : requests.slice(0, limit)) {
    log.info({replica, op: nameOf(io), offset: io.offset, length: io.length, ageMs: Math.round(now - io.startedAt)}, 'request in flight')
  }
  log.info({inFlight: volume.requestsInFlight, atReplicas: requests.length}, 'journal')
}

function nameOf({op}: Io): string {
  return Object.entries(OP).find(([, value]) => value === op)?.[0] ?? `${op}`
}
