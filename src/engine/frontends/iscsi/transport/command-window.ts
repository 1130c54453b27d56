import {isAfter} from './pdu.js'

/**
 * The numbers that commands of a session carry, RFC 7143 section 4.2.2.1. An initiator may send commands numbered from
 * `expCmdSN` to `maxCmdSN`. The window moves on as commands end, so it also bounds how many there are at a time.
 */
export class CommandWindow {
  /** The next command in order. */
  expCmdSN: number
  /** The last one that may be sent. */
  maxCmdSN: number

  constructor(
    first: number,
    readonly size: number,
  ) {
    this.expCmdSN = first | 0
    this.maxCmdSN = (first + size - 1) | 0
  }

  /** Whether a command with this number is the next in order, comes later, or is to be ignored. */
  place(cmdSN: number): 'next' | 'later' | 'outside' {
    if (cmdSN === this.expCmdSN && !isAfter(cmdSN, this.maxCmdSN)) return 'next'
    return isAfter(cmdSN, this.expCmdSN) && !isAfter(cmdSN, this.maxCmdSN) ? 'later' : 'outside'
  }

  /** The next command has been received. */
  advance(): void {
    this.expCmdSN = (this.expCmdSN + 1) | 0
  }

  /** A command that was received has ended. */
  release(): void {
    this.maxCmdSN = (this.maxCmdSN + 1) | 0
  }
}
