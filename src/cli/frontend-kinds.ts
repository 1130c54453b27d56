import type {FrontendKind} from '../engine/frontends/frontend.js'
import {UPSTREAM_BLOCKDEV} from './device-frontends.js'

/**
 * The frontends of this program, each loaded when it is used: an engine has one, and their code takes more memory than its own.
 * Here and not in engine/, because blockdev is made of drivers, which lie above it.
 */
export function frontendKinds(attachWay = 'auto'): FrontendKind[] {
  const blockdev = async (): Promise<FrontendKind> => {
    const [{blockdevFrontend}, {hostAttacher}] = await Promise.all([import('../drivers/blockdev-frontend.js'), import('./host-attacher.js')])
    return blockdevFrontend(hostAttacher(), attachWay)
  }
  return [
    loadedWhenUsed('nbd', async () => (await import('../engine/frontends/nbd/nbd-frontend.js')).nbdFrontend),
    loadedWhenUsed('iscsi', async () => (await import('../engine/frontends/iscsi/iscsi-frontend.js')).iscsiFrontend),
    loadedWhenUsed('blockdev', blockdev),
    loadedWhenUsed('socket', async () => (await import('../engine/frontends/socket.js')).socketFrontend),
    loadedWhenUsed(UPSTREAM_BLOCKDEV, blockdev),
  ]
}

function loadedWhenUsed(name: string, load: () => Promise<FrontendKind>): FrontendKind {
  let loaded: Promise<FrontendKind> | undefined
  const kind = (): Promise<FrontendKind> => (loaded ??= load())
  return {
    name,
    checkFree: async (volume, listen) => (await kind()).checkFree?.(volume, listen),
    open: async options => (await kind()).open(options),
    adopt: async (options, from) => {
      const {adopt} = await kind()
      if (adopt === undefined) throw new Error(`the frontend ${name} cannot be taken over`)
      return adopt(options, from)
    },
  }
}
