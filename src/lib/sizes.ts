import {LonghornError} from './errors.js'

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'] as const
const PREFIXES = 'kmgtpe'

/** `2g`, `42kb`, `1.5 GiB`, `4096`: digits, perhaps a fraction, perhaps a unit. A bare `i` belongs to a prefix (`Gi`). */
const SIZE = /^(\d{1,20})(?:\.(\d{1,20}))?\s*(?:([kmgtpe])(?:i?b|i)?|b)?$/i

/**
 * Reads a size as people and upstream write it, in bytes.
 * Units are binary whichever way they are written: `1g`, `1GB`, `1Gi` and `1GiB` are all 2^30, as in upstream's tools.
 * Throws USAGE for anything else, for a fraction of a byte, and for more than a number can count exactly.
 */
export function parseSize(text: string): number {
  const match = SIZE.exec(text.trim())
  if (match === null) {
    throw new LonghornError('USAGE', `invalid size "${text}": expected a number with an optional unit, such as 4096, 512m, 2g or 1GiB`)
  }
  const [, whole = '', fraction = '', prefix = ''] = match
  const unit = 1n << BigInt(10 * (prefix === '' ? 0 : PREFIXES.indexOf(prefix.toLowerCase()) + 1))
  const scaled = BigInt(whole + fraction) * unit
  const divisor = 10n ** BigInt(fraction.length)
  if (scaled % divisor !== 0n) throw new LonghornError('USAGE', `invalid size "${text}": not a whole number of bytes`)
  const bytes = scaled / divisor
  if (bytes > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new LonghornError('USAGE', `invalid size "${text}": must be less than 8 PiB`)
  }
  return Number(bytes)
}

/** A size for people: `512 B`, `1.5 GiB`. At most one decimal, so not exact; machines get the plain number. */
export function formatSize(bytes: number | bigint): string {
  let value = Number(bytes)
  let unit = 0
  // From 1023.95 on, one decimal would round up to "1024.0": the next unit says it better.
  while (value >= 1023.95 && unit < UNITS.length - 1) {
    value /= 1024
    unit += 1
  }
  const digits = unit === 0 ? value.toFixed(0) : value.toFixed(1).replace(/\.0$/, '')
  return `${digits} ${UNITS[unit]}`
}
