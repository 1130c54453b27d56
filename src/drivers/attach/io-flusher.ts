import {libcFunction} from '../../lib/sys/libc.js'

const PR_SET_IO_FLUSHER = 57

const prctl = libcFunction<(option: number, a: number, b: number, c: number, d: number) => number>(
  'int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)',
)

/**
 * Calls `start`, which starts a program without waiting, such that the program is known to the kernel as part of the way to
 * a disk. When it needs memory, the kernel then does not first try to write out what is dirty on that very disk, and
 * does not slow it down while others dirty too much: both would wait for the program itself, for ever.
 * Processes inherit this from the thread that starts them. Linux before 5.6, or a process that may not, goes without.
 */
export function startAsIoFlusher<T>(start: () => T): T {
  const wasSet = prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) === 0
  try {
    return start()
  } finally {
    if (wasSet) prctl(PR_SET_IO_FLUSHER, 0, 0, 0, 0)
  }
}
