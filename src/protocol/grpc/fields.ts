// Checks of what stands in a message before it is used. `what` names the field in the error: `ReplicaCreate: size`.
// In a request a wrong value is the caller's USAGE, in a response it is PROTOCOL: the kind is the last parameter.
import {LonghornError, type ErrorKind} from '../../lib/errors.js'

/** A count of bytes, as a decimal string (`Replica.size`) or as an int64, if it can be counted exactly. */
export function toSize(value: string | bigint, what: string, kind: ErrorKind = 'USAGE'): number {
  if (typeof value === 'string' && !/^\d{1,19}$/.test(value)) {
    throw new LonghornError(kind, `${what} is ${JSON.stringify(value.slice(0, 64))}: expected a decimal number of bytes`)
  }
  const bytes = Number(value)
  if (!Number.isSafeInteger(bytes) || bytes < 0) {
    throw new LonghornError(kind, `${what} is ${value}: expected 0 to ${Number.MAX_SAFE_INTEGER} bytes`)
  }
  return bytes
}

/** An int32 between two limits, both included. */
export function toInteger(value: number, min: number, max: number, what: string, kind: ErrorKind = 'USAGE'): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value
  throw new LonghornError(kind, `${what} is ${value}: expected ${min} to ${max}`)
}

/** A text that must not be missing. */
export function toText(value: string, what: string, kind: ErrorKind = 'USAGE'): string {
  if (value !== '') return value
  throw new LonghornError(kind, `${what} is missing`)
}

/** A moment as RFC 3339 has it (`2026-01-02T03:04:05Z`), at most as long as one. */
export function toTime(value: string, what: string, kind: ErrorKind = 'USAGE'): string {
  if (/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/.test(value) && !Number.isNaN(Date.parse(value))) return value
  throw new LonghornError(kind, `${what} is ${JSON.stringify(value.slice(0, 64))}: expected a time like 2026-01-02T03:04:05Z`)
}

/** The name of a file in a directory that is known: no path leads out of it. */
export function toFileName(value: string, what: string, kind: ErrorKind = 'USAGE'): string {
  toText(value, what, kind)
  if (value === '.' || value === '..' || /[/\0]/.test(value) || Buffer.byteLength(value) > 255) {
    throw new LonghornError(kind, `${what} is ${JSON.stringify(value.slice(0, 64))}: expected the name of a file`)
  }
  return value
}

/** A value of an enum that is known here: `toMember(ReplicaMode, request.mode, …)`. A newer peer may send others. */
export function toMember<T extends number>(
  members: Readonly<Record<string, T>>,
  value: number,
  what: string,
  kind: ErrorKind = 'USAGE',
): T {
  const member = Object.values(members).find(known => known === value)
  if (member !== undefined) return member
  throw new LonghornError(kind, `${what} is ${value}: expected one of ${Object.keys(members).join(', ')}`)
}
