import type {Test} from 'tap'
import type {LoginRules} from '../../../../../../src/engine/frontends/iscsi/transport/login.js'
import {IscsiServer, type ServerOptions} from '../../../../../../src/engine/frontends/iscsi/transport/server.js'
import {openLog, type Log} from '../../../../../../src/lib/log.js'
import {FakeDeviceServer} from './fake-device-server.js'
import {TARGET} from './initiator.js'

/** A log whose entries are kept. */
export function recordedLog(): {log: Log; entries: Record<string, unknown>[]} {
  const entries: Record<string, unknown>[] = []
  const log = openLog({write: line => void entries.push(JSON.parse(line) as Record<string, unknown>)}, {LONGHORN_LOG_LEVEL: 'debug'})
  return {log, entries}
}

export interface Served {
  readonly server: IscsiServer
  readonly device: FakeDeviceServer
  readonly port: number
  readonly entries: Record<string, unknown>[]
  /** Why connections ended that did not end in order. */
  reasons(): string[]
}

export const RULES: LoginRules = {targetName: TARGET, portalGroup: 1, allowedInitiators: undefined, chap: undefined, discoveryChap: undefined}

/** A target on a free port of the loopback interface, closed after the test. */
export async function serve(t: Test, options: Partial<Omit<ServerOptions, 'rules'>> & {rules?: Partial<LoginRules>; device?: FakeDeviceServer} = {}): Promise<Served> {
  const {device = new FakeDeviceServer(), rules = {}, ...others} = options
  const {log, entries} = recordedLog()
  const server = await IscsiServer.open({
    deviceServer: device,
    listen: {kind: 'tcp', host: '127.0.0.1', port: 0},
    log,
    ...others,
    rules: {...RULES, ...rules},
  })
  t.teardown(() => server.close(0))
  const {address} = server
  if (address.kind !== 'tcp') throw new Error('no TCP port')
  const reasons = (): string[] => entries.filter(entry => entry.msg === 'iscsi: connection ended').map(entry => `${entry.reason}`)
  return {server, device, port: address.port, entries, reasons}
}

/** Resolves once `condition` holds; fails after a minute. */
export async function eventually(condition: () => boolean, what: string): Promise<void> {
  for (const deadline = performance.now() + 60_000; !condition(); ) {
    if (performance.now() > deadline) throw new Error(`never happened: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 2))
  }
}
