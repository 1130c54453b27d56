import {join} from 'node:path'
import type {Test} from 'tap'
import {NbdServer, type ServerOptions} from '../../../../../src/engine/frontends/nbd/server.js'
import {openLog, type Log} from '../../../../../src/lib/log.js'
import {shortDir} from '../../../../support/short-dir.js'
import {MemoryDevice} from '../../../support/memory-device.js'

/** A log whose entries are kept. */
export function recordedLog(): {log: Log; entries: Record<string, unknown>[]} {
  const entries: Record<string, unknown>[] = []
  const log = openLog({write: line => void entries.push(JSON.parse(line) as Record<string, unknown>)}, {LONGHORN_LOG_LEVEL: 'debug'})
  return {log, entries}
}

export interface Served {
  readonly server: NbdServer
  readonly device: MemoryDevice
  readonly path: string
  /** Why connections ended that did not end in order. */
  reasons(): string[]
}

/** A server on a unix socket, closed after the test. Its volume is called `vol`. */
export async function serve(t: Test, options: Partial<ServerOptions> & {sizeBytes?: number; device?: MemoryDevice} = {}): Promise<Served> {
  const {sizeBytes = 8 * 1024 * 1024, device = new MemoryDevice(sizeBytes), ...others} = options
  const path = join(shortDir(t), 's')
  const {log, entries} = recordedLog()
  const server = await NbdServer.open({volume: 'vol', listen: {kind: 'unix', path}, log, ...others, device})
  t.teardown(() => server.close(0))
  return {server, device, path, reasons: () => entries.filter(entry => entry.level === 'warn').map(entry => `${entry.reason ?? entry.msg}`)}
}
