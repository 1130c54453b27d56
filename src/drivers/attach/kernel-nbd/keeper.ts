// Starts the keeper of an attachment (keeper-main.ts).
import {spawn, type ChildProcess} from 'node:child_process'
import {closeSync, constants, openSync} from 'node:fs'
import {readFile} from 'node:fs/promises'
import {join} from 'node:path'
import {fileURLToPath} from 'node:url'
import type {Slot} from '../attach-way.js'
import {startAsIoFlusher} from '../io-flusher.js'
import {searchPath} from '../run-command.js'
import type {KeeperOrder} from './keeper-main.js'

const MAIN = fileURLToPath(new URL('keeper-main.js', import.meta.url))
const LOG_TAIL_CHARS = 1000

/** It sleeps nearly always, so it may be slow and shall be small. */
const NODE_FLAGS = ['--max-semi-space-size=1', '--max-lazy', '--no-opt', '--single-threaded-gc']

/** Starts it in a session of its own, so that neither our end nor a key pressed at our terminal ends it. */
export function startKeeper(slot: Slot, order: KeeperOrder): ChildProcess {
  const log = openSync(logOf(slot), constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND, 0o600)
  try {
    const child = startAsIoFlusher(() =>
      spawn(process.execPath, [...NODE_FLAGS, MAIN, JSON.stringify(order)], {
        detached: true,
        stdio: ['ignore', log, log],
        cwd: '/',
        env: {LC_ALL: 'C', PATH: searchPath(), UV_THREADPOOL_SIZE: '2'},
      }),
    )
    // That it could not be started is said by its exit code, which stays null, and by the missing device.
    child.once('error', () => undefined)
    child.unref()
    return child
  } finally {
    closeSync(log)
  }
}

/** The end of what it printed, on one line. */
export async function logTail(slot: Slot): Promise<string> {
  const text = await readFile(logOf(slot), 'utf8').catch(() => '')
  return text.slice(-LOG_TAIL_CHARS).trim().replace(/\s*\n\s*/g, '; ')
}

function logOf(slot: Slot): string {
  return join(slot.directory, 'nbd-keeper.log')
}
