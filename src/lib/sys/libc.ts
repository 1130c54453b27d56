import koffi, {type KoffiFunc, type LibraryHandle} from 'koffi'

const CANDIDATES = ['libc.so.6', 'libc.musl-x86_64.so.1', 'libc.musl-aarch64.so.1']

let library: LibraryHandle | undefined

/**
 * Declares a function of the C library from its C prototype, e.g. `int flock(int fd, int operation)`.
 * Declaring costs microseconds and a call about 100 ns, so declare once, at the top of a module.
 * Addresses are passed as `uintptr_t`; file offsets and sizes are 64 bits wide on every platform we run on.
 */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- what koffi itself asks of T
export function libcFunction<T extends (...args: any[]) => unknown>(prototype: string): KoffiFunc<T> {
  library ??= loadLibc()
  return library.func(prototype) as KoffiFunc<T>
}

/** As `libcFunction`, but undefined where this C library lacks the function (musl before 1.2.5 has no preadv2). */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- what koffi itself asks of T
export function optionalLibcFunction<T extends (...args: any[]) => unknown>(prototype: string): KoffiFunc<T> | undefined {
  try {
    return libcFunction<T>(prototype)
  } catch {
    return undefined
  }
}

/** The `errno` of the call just made; any other work in between may change it. */
export function lastErrno(): number {
  return koffi.errno()
}

function loadLibc(): LibraryHandle {
  const failures: unknown[] = []
  for (const name of CANDIDATES) {
    try {
      return koffi.load(name)
    } catch (error) {
      failures.push(error)
    }
  }
  throw new AggregateError(failures, `no C library found (tried ${CANDIDATES.join(', ')})`)
}
