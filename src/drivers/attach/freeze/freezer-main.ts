// `node freezer-main.js freeze LIMIT_MS PATH…` freezes the file systems mounted there, says so, and thaws them at the end of its
// input, of LIMIT_MS, or of whoever started it, which ends its input. `thaw PATH…` only thaws.
// A process of its own: freezing writes to the volume, which the engine must serve meanwhile, and it must be undone also when the
// engine is killed or stands still. While something is frozen nothing is done here that could wait for that.
import {closeSync, openSync, writeSync} from 'node:fs'
import {messageOf} from '../../../lib/errors.js'
import {freezeFileSystem, thawFileSystem} from '../../../lib/sys/freeze-file-system.js'
import {SystemError} from '../../../lib/sys/system-error.js'

const [verb, ...rest] = process.argv.slice(2)
if (verb === 'thaw') thaw(rest.map(path => openSync(path, 'r')))
else freeze(Number(rest[0]), rest.slice(1))

function freeze(limitMs: number, paths: readonly string[]): void {
  const open = paths.map(path => openSync(path, 'r'))
  const frozen: number[] = []
  for (const [index, fd] of open.entries()) {
    try {
      freezeFileSystem(fd)
      frozen.push(fd)
    } catch (error) {
      thaw(frozen)
      say({state: 'failed', path: paths[index], code: error instanceof SystemError ? error.code : '', text: messageOf(error)})
      return
    }
  }
  const end = (state: 'thawed' | 'late'): void => {
    thaw(frozen.splice(0))
    say({state})
    process.exit(0)
  }
  setTimeout(() => end('late'), limitMs)
  process.stdin.resume().once('end', () => end('thawed')).once('error', () => end('thawed'))
  say({state: 'frozen'})
}

function thaw(fds: readonly number[]): void {
  for (const fd of [...fds].reverse()) {
    try {
      thawFileSystem(fd)
    } catch (error) {
      // Not frozen, or thawed by somebody else: as it should be.
      if (!(error instanceof SystemError && error.code === 'EINVAL')) throw error
    }
    closeSync(fd)
  }
}

/** Its reader may be gone; what has to be thawed is by then. */
function say(what: object): void {
  try {
    writeSync(1, `${JSON.stringify(what)}\n`)
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EPIPE')) throw error
  }
}
