import {LonghornError} from '../../lib/errors.js'

/** Upstream's profiler serves what Go's runtime knows of itself; Node has an inspector instead. Throws UNSUPPORTED. */
export function refuseProfiler(): never {
  throw new LonghornError('UNSUPPORTED', 'there is no profiler of upstream\'s kind here: send SIGUSR1 to the process and connect Node\'s inspector to it (node inspect -p PID)')
}
