import {fileURLToPath} from 'node:url'
import type {EngineRequest, ReplicaRequest} from './daemon-requests.js'
import {replaceProcess} from '../lib/sys/exec.js'

/** What a daemon is to do, as its command understood it. */
export type DaemonRequest = (({readonly role: 'replica'} & ReplicaRequest) | ({readonly role: 'engine'} & EngineRequest)) & {
  /** How long a wait for sockets may look without sleeping, in microseconds. */
  readonly busyPollUs: number
  /** Announce and report errors as JSON. */
  readonly json: boolean
  readonly debug: boolean
}

/** The environment variable that carries the request; taken out of the environment at once. */
export const DAEMON_VARIABLE = 'LONGHORN_DAEMON_REQUEST'

/**
 * Flags of the process that serves. Its objects live long or for one turn, so a small young generation costs nothing
 * and saves some 25 MB after bursts of gRPC calls.
 */
const NODE_FLAGS = ['--max-semi-space-size=2']

const MAIN = fileURLToPath(new URL('daemon-main.js', import.meta.url))

/**
 * Turns this process into the daemon: the same process id, without the command line, which would occupy 10 MB for as
 * long as the volume is served. Does not return.
 */
export function becomeDaemon(request: DaemonRequest): never {
  replaceProcess(process.execPath, [...process.execArgv, ...NODE_FLAGS, MAIN, request.role, nameOf(request)], {
    ...process.env,
    [DAEMON_VARIABLE]: JSON.stringify(request),
  })
}

function nameOf(request: DaemonRequest): string {
  return request.role === 'engine' ? request.volume : request.directory
}
