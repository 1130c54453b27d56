// Where the engine of a volume listens on this host, for one that is to take its place and was not told: /run/longhorn/engines/VOL
// holds HOST:PORT. A hint and no more: it may be of an engine that was killed, and an engine refuses calls that mean another volume.
import {mkdir, readFile, rename, rm, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {formatHostPort, parseAddress, type Address, type TcpAddress} from '../lib/address.js'
import {errnoOf, messageOf} from '../lib/errors.js'
import type {Log} from '../lib/log.js'

const FOLDER = '/run/longhorn/engines'

/** `first`, then where the last engine of the volume listened. */
export async function engineAddresses(volume: string, first: TcpAddress): Promise<TcpAddress[]> {
  const recorded = await readRecord(volume)
  return recorded === undefined || recorded === formatHostPort(first) ? [first] : [first, parseAddress(recorded) as TcpAddress]
}

/** Writes down where this process's engine listens; what this gives removes it again, unless another engine has written its own. */
export async function recordEngine(volume: string, address: Address, log: Log): Promise<AsyncDisposable> {
  if (address.kind !== 'tcp') throw new Error('an engine listens on a TCP port')
  const text = formatHostPort({...address, host: address.host === '' ? 'localhost' : address.host})
  const path = join(FOLDER, volume)
  try {
    await mkdir(FOLDER, {recursive: true, mode: 0o755})
    await writeFile(`${path}.${process.pid}.tmp`, `${text}\n`)
    await rename(`${path}.${process.pid}.tmp`, path)
  } catch (error) {
    log.debug({reason: messageOf(error)}, 'not recorded where this engine listens; an upgrade has to be told')
  }
  return {
    [Symbol.asyncDispose]: async () => {
      if ((await readRecord(volume)) === text) await rm(path, {force: true})
    },
  }
}

async function readRecord(volume: string): Promise<string | undefined> {
  try {
    const text = (await readFile(join(FOLDER, volume), 'utf8')).trim()
    return /^[^\s/]+:\d{1,5}$/.test(text) ? text : undefined
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}
