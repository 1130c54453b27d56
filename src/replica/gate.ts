import type {LonghornError} from '../lib/errors.js'

/**
 * Whether a replica still admits I/O. It shuts once and for all, and every later request fails with the reason:
 * after a failed fdatasync the kernel forgets what it could not write, so going on would mean serving data that is lost.
 */
export class Gate {
  /** Why nothing is admitted any more; undefined while the gate is open. Requests look at this first. */
  reason: LonghornError | undefined
  /** True when it shut because of a failure. */
  failed = false

  /** `onFailure` is told of a failure, not of an orderly close. */
  constructor(readonly onFailure: (reason: LonghornError) => void = () => undefined) {}

  /** Shuts because the replica can no longer be trusted. Returns the reason that counts: the first failure. */
  fail(reason: LonghornError): LonghornError {
    if (this.failed && this.reason !== undefined) return this.reason
    this.reason = reason
    this.failed = true
    this.onFailure(reason)
    return reason
  }

  /** Throws the failure, for what was admitted before it and has been waiting. Closing waits for that, so it is no reason. */
  checkFailure(): void {
    if (this.failed && this.reason !== undefined) throw this.reason
  }

  /** Shuts because the replica is being closed. */
  close(reason: LonghornError): void {
    this.reason ??= reason
  }
}
