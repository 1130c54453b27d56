import {once} from 'node:events'
import {rm} from 'node:fs/promises'
import {connect, type Server} from 'node:net'
import {formatAddress, type Address} from '../../lib/address.js'
import {errnoOf, LonghornError, messageOf} from '../../lib/errors.js'

/**
 * Binds `server` and returns the address with the port that it got. Without a host it listens on every interface.
 * Throws CONFLICT when somebody else has the address; the socket file of a process that died is taken over.
 */
export async function listen(server: Server, address: Address): Promise<Address> {
  try {
    await bind(server, address)
  } catch (error) {
    if (errnoOf(error) !== 'EADDRINUSE') {
      throw new LonghornError('IO', `cannot listen on ${formatAddress(address)}: ${messageOf(error)}`, {address}, {cause: error})
    }
    if (address.kind === 'tcp') throw new LonghornError('CONFLICT', `port ${address.port} is in use`, {address}, {cause: error})
    if (await answers(address.path)) throw new LonghornError('CONFLICT', `socket ${address.path} is in use`, {address}, {cause: error})
    await rm(address.path, {force: true})
    await bind(server, address)
  }
  const bound = server.address()
  return address.kind === 'tcp' && typeof bound === 'object' && bound !== null ? {...address, port: bound.port} : address
}

async function bind(server: Server, address: Address): Promise<void> {
  if (address.kind === 'unix') server.listen({path: address.path})
  else if (address.host === '') server.listen({port: address.port})
  else server.listen({port: address.port, host: address.host})
  // Rejects when 'error' comes first.
  await once(server, 'listening')
}

/** Whether a process is behind this socket file. */
async function answers(path: string): Promise<boolean> {
  const socket = connect({path})
  try {
    await once(socket, 'connect')
    return true
  } catch (error) {
    if (errnoOf(error) === 'ECONNREFUSED' || errnoOf(error) === 'ENOENT') return false
    throw error
  } finally {
    socket.destroy()
  }
}
