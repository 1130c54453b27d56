// The file of one attachment's keeper, `nbd-ID.keeper` in the directory of the attachment. It is locked as long as the keeper
// lives, and holds a line about it:
//
//     {"pid":4711,"state":"linked"}
//
// It is made before the keeper is started and removed under its lock, so a keeper that comes too late finds no file, or not
// the one that it has locked, and ends without having done anything.
import {closeSync, constants, openSync, readSync, rmSync, writeSync} from 'node:fs'
import {readdir} from 'node:fs/promises'
import {join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {errnoOf, LonghornError} from '../../../lib/errors.js'
import {isFileAt, tryLockFile} from '../../../lib/sys/file-lock.js'
import type {Slot} from '../attach-way.js'
import {isObject} from '../attachment-record.js'

const NAME = /^nbd-([0-9a-f]{16})\.keeper$/
/** Lines have this length, so that a reader never sees half of one. */
const LINE_BYTES = 128
const KILL_TIMEOUT_MS = 5000
const POLL_MS = 20
const LOCK_TRIES = 50

/** Tells a keeper to end the connection, and itself. */
export const HANG_UP = 'SIGUSR2'

/** `lost`: the connection has ended, and the keeper tries to get another one. */
export type KeeperState = 'starting' | 'linked' | 'lost'

export interface KeeperStatus {
  readonly pid: number
  readonly state: KeeperState
}

export function keeperFile(slot: Slot, id: string): string {
  return join(slot.directory, `nbd-${id}.keeper`)
}

/** The ids of the attachments that have been made in this directory; one of them is the slot's, unless that is lost. */
export async function idsOf(slot: Slot): Promise<string[]> {
  const names = await readdir(slot.directory).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return []
    throw error
  })
  const kept = names.flatMap(name => NAME.exec(name)?.[1] ?? [])
  return [...new Set([...kept, ...(slot.id === undefined ? [] : [slot.id])])]
}

export function makeKeeperFile(path: string): void {
  closeSync(openSync(path, constants.O_WRONLY | constants.O_CREAT, 0o600))
}

/** For the keeper itself: the lock, until its process ends. Undefined when it is not wanted, or there is one already. */
export async function takeKeeperFile(path: string): Promise<number | undefined> {
  const fd = openIfThere(path)
  if (fd === undefined) return undefined
  // Whoever asks for the status of a keeper holds the lock for a moment.
  for (let tries = LOCK_TRIES; tries > 0; tries--) {
    if (tryLockFile(fd)) {
      if (isFileAt(path, fd)) return fd
      break
    }
    await sleep(POLL_MS)
  }
  closeSync(fd)
  return undefined
}

export function writeStatus(fd: number, status: KeeperStatus): void {
  writeSync(fd, `${JSON.stringify(status).padEnd(LINE_BYTES - 1)}\n`, 0)
}

/** What the keeper that lives says of itself; undefined when none does. */
export function readStatus(path: string): KeeperStatus | undefined {
  const fd = openIfThere(path)
  if (fd === undefined) return undefined
  try {
    if (tryLockFile(fd)) return undefined
    return statusIn(fd) ?? {pid: 0, state: 'starting'}
  } finally {
    closeSync(fd)
  }
}

/**
 * Ends the keeper, whatever it is doing, and sees to it that none comes after it. With `hangUp` it first ends the connection, so that
 * the kernel does not wait for a server that reads nothing. Throws BUSY when its process does not end.
 */
export async function removeKeeper(path: string, {hangUp}: {readonly hangUp: boolean}): Promise<void> {
  const fd = openIfThere(path)
  if (fd === undefined) return
  try {
    const started = performance.now()
    for (let signal: NodeJS.Signals = hangUp ? HANG_UP : 'SIGKILL'; !tryLockFile(fd); await sleep(POLL_MS)) {
      const waitedMs = performance.now() - started
      const pid = statusIn(fd)?.pid
      if (waitedMs > KILL_TIMEOUT_MS) throw new LonghornError('BUSY', `the keeper of ${path} (process ${pid}) does not end`, {pid})
      if (waitedMs > KILL_TIMEOUT_MS / 2) signal = 'SIGKILL'
      // Locked, so this is the process that holds it, and not another one that has got its number.
      if (pid !== undefined) sendSignal(pid, signal)
    }
    if (isFileAt(path, fd)) rmSync(path)
  } finally {
    closeSync(fd)
  }
}

function statusIn(fd: number): KeeperStatus | undefined {
  const line = Buffer.alloc(LINE_BYTES)
  const length = readSync(fd, line, 0, LINE_BYTES, 0)
  if (length < LINE_BYTES) return undefined
  const value: unknown = JSON.parse(line.toString())
  return isObject(value) && typeof value.pid === 'number' ? (value as unknown as KeeperStatus) : undefined
}

function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if (errnoOf(error) !== 'ESRCH') throw error
  }
}

function openIfThere(path: string): number | undefined {
  try {
    return openSync(path, constants.O_RDWR)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}
