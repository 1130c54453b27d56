import {spawn} from 'node:child_process'
import {fileURLToPath} from 'node:url'

const LONGHORN = fileURLToPath(new URL('../../../bin/longhorn', import.meta.url))

/**
 * For an engine that ends without having removed its block device: a process of its own does that, when the lock of an
 * attach or detach that was under way is free, and unless another engine serves the device by then. Its number; undefined if it
 * could not be started.
 */
export function abandonDevice(volume: string): number | undefined {
  const child = spawn(process.execPath, [LONGHORN, 'volume', 'detach', volume, '--force', '--only-broken'], {
    detached: true,
    stdio: ['ignore', 'ignore', 'inherit'],
    cwd: '/',
  })
  child.once('error', () => undefined)
  child.unref()
  return child.pid
}
