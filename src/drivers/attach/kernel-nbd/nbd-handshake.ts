// Connects to an NBD export up to the point from which the kernel can go on.
import {performance} from 'node:perf_hooks'
import {closeFd, connectError, startConnect, tuneTcp, type IpEndpoint} from '../../../lib/net/socket-calls.js'
import {negotiate, type NbdExport} from '../nbd-negotiation.js'
import {receiveExactly, sendAll, waitWritable} from './socket-io.js'

const NOTHING = Buffer.alloc(0)

/** A connection that carries requests. */
export interface NbdConnection extends NbdExport {
  readonly fd: number
}

/** `to`: the path of a unix socket, or an IP address. Waits. Throws SystemError, TIMEOUT, NOT_FOUND (no such export) or PROTOCOL. */
export function connectExport(to: IpEndpoint | string, exportName: string, timeoutMs: number): NbdConnection {
  const deadline = performance.now() + timeoutMs
  const fd = startConnect(to)
  try {
    waitWritable(fd, deadline)
    const failure = connectError(fd)
    if (failure !== undefined) throw failure
    if (typeof to !== 'string') tuneTcp(fd)
    return {fd, ...go(fd, exportName, deadline)}
  } catch (error) {
    closeFd(fd)
    throw error
  }
}

function go(fd: number, exportName: string, deadline: number): NbdExport {
  const negotiation = negotiate('GO', exportName)
  for (let step = negotiation.next(); ; ) {
    if (step.done === true) return step.value
    if (typeof step.value === 'number') {
      step = negotiation.next(receiveExactly(fd, step.value, deadline))
    } else {
      sendAll(fd, step.value, deadline)
      step = negotiation.next(NOTHING)
    }
  }
}
