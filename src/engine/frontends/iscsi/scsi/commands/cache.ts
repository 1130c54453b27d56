import {messageOf} from '../../../../../lib/errors.js'
import type {ScsiTask} from '../../scsi-task.js'
import {rangeOf, type Layout} from '../cdb.js'
import {CheckCondition} from '../check-condition.js'
import type {Disk} from '../disk.js'
import {CONDITION} from '../sense.js'

const IMMED = 0x02

/**
 * SYNCHRONIZE CACHE(10) and (16). Whatever range it names, all of the volume is flushed, which is how the device does it. With
 * IMMED, whose sense is to get an answer early, the flush goes on behind the answer; if it fails, the session's next command
 * fails for that reason.
 */
export async function synchronizeCache(disk: Disk, task: ScsiTask, layout: Layout): Promise<number> {
  rangeOf(task.cdb, layout, disk.blocks, Infinity)
  const flushed = disk.io.flush()
  if ((task.cdb[1]! & IMMED) === 0) {
    await flushed
    return 0
  }
  const {id, peer} = task.nexus
  flushed.catch((error: unknown) => {
    disk.log.error({err: error, initiator: peer}, `a flush without anybody waiting failed: ${messageOf(error)}`)
    const condition = error instanceof CheckCondition ? error.condition : CONDITION.INTERNAL_TARGET_FAILURE
    disk.nexuses.get(id)?.attentions.establish({...condition, deferred: true})
  })
  return 0
}

/** PRE-FETCH(10) and (16): there is no cache here to fetch into. GOOD rather than CONDITION MET says so. */
export function preFetch(disk: Disk, task: ScsiTask, layout: Layout): number {
  rangeOf(task.cdb, layout, disk.blocks, Infinity)
  return 0
}
