import {constants} from 'node:os'
import {getSystemErrorMap} from 'node:util'

/** A failed system call, shaped like Node's own: `code` is the symbolic name, `errno` is negative. */
export class SystemError extends Error {
  override readonly name: string = 'SystemError'

  constructor(
    message: string,
    readonly code: string,
    readonly errno: number,
    readonly syscall: string,
  ) {
    super(message)
  }
}

/**
 * The error of a system call that failed with this (positive) errno.
 * `doing` says what we wanted: "punching 4096 bytes at 0".
 */
export function systemError(syscall: string, errno: number, doing: string): SystemError {
  const [code, text] = describe(errno)
  return new SystemError(`${code}: ${text}, ${doing}`, code, -errno, syscall)
}

/** What an error code means, in words: `no space left on device` for ENOSPC. The code itself when it is unknown. */
export function errnoText(code: string): string {
  for (const [name, text] of getSystemErrorMap().values()) {
    if (name === code) return text
  }
  return code === 'EDQUOT' ? 'disk quota exceeded' : code
}

function describe(errno: number): [code: string, text: string] {
  const known = getSystemErrorMap().get(-errno)
  if (known !== undefined) return known
  // libuv has no text for a few of them, EDQUOT among them.
  for (const [code, number] of Object.entries(constants.errno)) {
    if (number === errno) return [code, errnoText(code)]
  }
  return [`E${errno}`, `unknown error ${errno}`]
}
