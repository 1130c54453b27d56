import {Attacher} from '../drivers/attach/attacher.js'
import {FuseWay} from '../drivers/attach/fuse/fuse-way.js'
import {KernelIscsiWay} from '../drivers/attach/kernel-iscsi/kernel-iscsi-way.js'
import {KernelNbdWay} from '../drivers/attach/kernel-nbd/kernel-nbd-way.js'
import {blockdevFrontend} from '../drivers/blockdev-frontend.js'
import type {FrontendKind} from '../engine/frontends/frontend.js'
import {iscsiFrontend} from '../engine/frontends/iscsi/iscsi-frontend.js'
import {nbdFrontend} from '../engine/frontends/nbd/nbd-frontend.js'
import {socketFrontend} from '../engine/frontends/socket.js'
import {createLog} from '../lib/log.js'
import {UPSTREAM_BLOCKDEV} from './device-frontends.js'

/** The frontends of this program. Here and not in engine/, because blockdev is made of drivers, which lie above it. */
export function frontendKinds(attachWay = 'auto'): FrontendKind[] {
  const blockdev = blockdevFrontend(hostAttacher(), attachWay)
  return [nbdFrontend, iscsiFrontend, blockdev, socketFrontend, {...blockdev, name: UPSTREAM_BLOCKDEV}]
}

/**
 * What makes block devices on this host, the preferred way first. Those of the kernel outlive their engine; of these, NBD
 * needs no daemon of the host, and nothing on the host takes its devices for others, as multipathd does with SCSI disks.
 */
export function hostAttacher(): Attacher {
  const ways = [new KernelNbdWay(), new KernelIscsiWay(), new FuseWay()]
  return new Attacher(ways, {
    onChoice: (volume, way, passedOver) => createLog('attach').debug({volume, way, passedOver}, 'way to attach chosen'),
  })
}
