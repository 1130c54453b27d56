// Whether two replicas hold the same: an engine over each of them alone, and the two volumes compared.
import {createHash} from 'node:crypto'
import {pipeline} from 'node:stream/promises'
import {isInstalled} from '../../src/drivers/attach/run-command.js'
import {LonghornError} from '../../src/lib/errors.js'
import type {Daemon} from './daemon.js'
import type {Frontend} from './frontend-choice.js'
import type {Screen} from './screen.js'
import {Shell} from './shell.js'
import {ToolProcess} from './tool-process.js'
import {VOLUME_BYTES, type VolumeStage} from './volume-stage.js'
import {VolumeSocket} from './volume-socket.js'

/** Throws CORRUPT when they differ. `allowed`: the user wants to see this frontend and nothing better. */
export async function compareReplicas(stage: VolumeStage, survivors: readonly Daemon[], allowed: Frontend, screen: Screen, signal: AbortSignal): Promise<void> {
  const tool = allowed === 'socket' ? undefined : (await isInstalled('qemu-img')) ? 'qemu-img' : (await isInstalled('nbdcopy')) ? 'nbdcopy' : undefined
  const engines: Daemon[] = []
  for (const replica of survivors) {
    engines.push(await stage.startEngine(`engine-${replica.name}`, [replica], tool === undefined ? 'socket' : 'nbd', signal))
  }
  const endpoints = engines.map(({ready}) => ready.endpoint ?? '')
  if (tool === 'qemu-img') {
    await new Shell(screen).run(['qemu-img', 'compare', '-f', 'raw', '-F', 'raw', ...endpoints], signal)
  } else {
    const hashes: string[] = []
    for (const endpoint of endpoints) {
      hashes.push(tool === 'nbdcopy' ? await hashByNbdcopy(endpoint, screen) : await hashBySocket(endpoint, screen, signal))
    }
    if (new Set(hashes).size !== 1) throw new LonghornError('CORRUPT', `the replicas differ: ${hashes.join(', ')}`)
  }
  for (const engine of engines) await stage.stop(engine, signal)
}

async function hashByNbdcopy(uri: string, screen: Screen): Promise<string> {
  screen.command(['nbdcopy', uri, '-'], ' | sha256sum')
  const tool = new ToolProcess(['nbdcopy', uri, '-'])
  try {
    const hash = createHash('sha256')
    await pipeline(tool.child.stdout, hash)
    // Only now is it known that what came out of the pipe was all.
    await tool.end()
    const digest = hash.digest('hex')
    screen.output(`${digest}  -`)
    return digest
  } catch (error) {
    tool.kill()
    throw error
  }
}

async function hashBySocket(path: string, screen: Screen, signal: AbortSignal): Promise<string> {
  const socket = await VolumeSocket.connect(path, signal)
  using progress = await screen.progress(`reading ${path}`)
  try {
    const digest = await socket.hash(VOLUME_BYTES, signal, bytes => {
      progress.update(`reading ${path}: ${((bytes / VOLUME_BYTES) * 100).toFixed(0)} %`)
    })
    progress.succeed(`${path}: sha256 ${digest}`)
    return digest
  } finally {
    socket.close()
  }
}
