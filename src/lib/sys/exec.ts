import {lastErrno, libcFunction} from './libc.js'
import {systemError} from './system-error.js'

const execve = libcFunction<(path: string, argv: (string | null)[], envp: (string | null)[]) => number>(
  'int execve(const char *path, const char **argv, const char **envp)',
)

const fcntl = libcFunction<(fd: number, command: number, type: 'int', value: number) => number>('int fcntl(int fd, int command, ...)')
const F_SETFD = 2

/**
 * Replaces the program that this process runs; process id, standard streams and working directory stay. Everything else
 * that Node has open is closed by the kernel. Does not return; throws SystemError when the program cannot be run.
 */
export function replaceProcess(path: string, args: readonly string[], env: NodeJS.ProcessEnv): never {
  const variables = Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]))
  // Node marks the standard streams as its own; the next program needs them.
  for (const fd of [0, 1, 2]) fcntl(fd, F_SETFD, 'int', 0)
  execve(path, [path, ...args, null], [...variables, null])
  throw systemError('execve', lastErrno(), `running ${path}`)
}
