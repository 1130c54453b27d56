import {Attacher} from '../drivers/attach/attacher.js'
import {FuseWay} from '../drivers/attach/fuse/fuse-way.js'
import {KernelIscsiWay} from '../drivers/attach/kernel-iscsi/kernel-iscsi-way.js'
import {KernelNbdWay} from '../drivers/attach/kernel-nbd/kernel-nbd-way.js'
import {createLog} from '../lib/log.js'

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
