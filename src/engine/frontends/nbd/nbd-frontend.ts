import {chmod, mkdir} from 'node:fs/promises'
import {messageOf, LonghornError} from '../../../lib/errors.js'
import {checkFree} from '../../../lib/net/check-free.js'
import type {Frontend, FrontendKind, FrontendOptions} from '../frontend.js'
import {defaultAddress, endpointOf, SOCKET_FOLDER} from './endpoint.js'
import {NbdServer} from './server.js'

/**
 * Serves the volume as an NBD export: to Linux (`nbd-client`), QEMU, libnbd and its tools, fio. Without an address it
 * listens on a unix socket in /var/run/longhorn; only root reaches a unix socket, and whoever reaches a TCP port reaches
 * the volume, as the protocol is used without TLS here.
 */
export const nbdFrontend: FrontendKind = {
  name: 'nbd',

  checkFree: (volume, listen) => checkFree(listen ?? defaultAddress(volume)),

  async open({volume, device, listen, log}: FrontendOptions): Promise<Frontend> {
    const wanted = listen ?? defaultAddress(volume)
    if (listen === undefined) await makeFolder(SOCKET_FOLDER)
    const server = await NbdServer.open({volume, device, listen: wanted, log})
    try {
      if (server.address.kind === 'unix') await chmod(server.address.path, 0o600)
    } catch (error) {
      await server.close(0)
      throw new LonghornError('IO', `cannot protect the socket of volume ${volume}: ${messageOf(error)}`, {}, {cause: error})
    }
    return frontendOf(server, volume)
  },

  async adopt({volume, device, log}, from) {
    return () => frontendOf(NbdServer.adopt({volume, device, log}, from), volume)
  },
}

function frontendOf(server: NbdServer, volume: string): Frontend {
  return {
    endpoint: endpointOf(server.address, volume),
    park: deadline => server.park(deadline),
    close: graceMs => server.close(graceMs),
  }
}

async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, {recursive: true, mode: 0o755})
  } catch (error) {
    throw new LonghornError('IO', `cannot make the folder ${path} for the socket: ${messageOf(error)}`, {}, {cause: error})
  }
}
