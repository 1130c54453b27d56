/**
 * Every failure this program reports, with the exit code scripts may rely on.
 * docs/cli.md publishes this table; a code is never given a new meaning.
 */
const KINDS = {
  USAGE: {exit: 2, retryable: false},
  NOT_FOUND: {exit: 10, retryable: false},
  CONFLICT: {exit: 11, retryable: false},
  UNREACHABLE: {exit: 12, retryable: true},
  TIMEOUT: {exit: 13, retryable: true},
  PROTOCOL: {exit: 14, retryable: false},
  CORRUPT: {exit: 15, retryable: false},
  NO_SPACE: {exit: 16, retryable: false},
  BUSY: {exit: 17, retryable: true},
  UNSUPPORTED: {exit: 18, retryable: false},
  IO: {exit: 19, retryable: false},
  /** Replicas answered but none can be used; the number is the one upstream's manager looks for (ENODATA). */
  NO_DATA: {exit: 61, retryable: false},
  INTERRUPTED: {exit: 130, retryable: false},
} as const

export type ErrorKind = keyof typeof KINDS

/** A failure with a meaning: one line that says what was wrong and what to do, and the exit code of its kind. */
export class LonghornError extends Error {
  override readonly name: string = 'LonghornError'
  readonly code: `LH_${ErrorKind}`
  readonly exitCode: number
  readonly oclif: {exit: number}
  readonly retryable: boolean

  constructor(
    kind: ErrorKind,
    message: string,
    readonly details: object = {},
    options?: ErrorOptions,
  ) {
    super(message, options)
    const {exit, retryable} = KINDS[kind]
    this.code = `LH_${kind}`
    this.exitCode = exit
    this.oclif = {exit}
    this.retryable = retryable
  }
}

/** True when `error` is a LonghornError of this kind. */
export function isKind(error: unknown, kind: ErrorKind): error is LonghornError {
  return error instanceof LonghornError && error.code === `LH_${kind}`
}

/** The `code` of a Node.js system error (`ENOENT`, …), or undefined for anything else. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}

/** True for an error that says that somebody else listens on an address. */
export function isAddressInUse(error: unknown): boolean {
  return isKind(error, 'CONFLICT') && errnoOf(error.cause) === 'EADDRINUSE'
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** What was thrown, as an error. */
export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown))
}
