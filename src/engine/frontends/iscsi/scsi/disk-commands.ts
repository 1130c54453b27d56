// All commands of the disk. This table is what carries them out, what refuses reserved bits, what reservations go by, and
// what REPORT SUPPORTED OPERATION CODES answers.
import type {ScsiTask} from '../scsi-task.js'
import {LAYOUT_10, LAYOUT_12, LAYOUT_16, LAYOUT_6, type Layout} from './cdb.js'
import {ACCESS, CommandSet, TRAIT, type CommandRow} from './command-set.js'
import {preFetch, synchronizeCache} from './commands/cache.js'
import {readCapacity10, readCapacity16} from './commands/capacity.js'
import {compareAndWrite, orWrite} from './commands/compare-and-write.js'
import {readDefectData10, readDefectData12, receiveDiagnostic, sendDiagnostic} from './commands/diagnostics.js'
import {extendedCopy} from './commands/extended-copy.js'
import {inquiry} from './commands/inquiry.js'
import {getLbaStatus} from './commands/lba-status.js'
import {modeSelect10, modeSelect6} from './commands/mode-select.js'
import {modeSense10, modeSense6} from './commands/mode-sense.js'
import {readFullStatus, readKeys, readReservation, reportCapabilities} from './commands/persistent-reserve-in.js'
import {persistentReserveOut} from './commands/persistent-reserve-out.js'
import {copyParameters, copyStatus} from './commands/receive-copy-results.js'
import {reportLuns} from './commands/report-luns.js'
import {reportOpcodes} from './commands/report-opcodes.js'
import {reportPortGroups, reportTaskManagement} from './commands/report-target.js'
import {requestSense} from './commands/request-sense.js'
import {release, reserve} from './commands/reserve-release.js'
import {blockErase, exitFailureMode} from './commands/sanitize.js'
import {preventAccess, preventRemoval, startStopAccess, startStopUnit} from './commands/start-stop.js'
import {unmap} from './commands/unmap.js'
import {verify, writeAndVerify} from './commands/verify.js'
import {writeAtomic} from './commands/write-atomic.js'
import {writeSame} from './commands/write-same.js'
import type {Disk} from './disk.js'
import {ACTION} from './reservations/reservation-plan.js'

type Run = NonNullable<CommandRow<Disk>['run']>

const {NONE, UNRESERVED} = ACCESS
const READ = ACCESS.UNRESERVED | ACCESS.READ
const WRITE = ACCESS.UNRESERVED | ACCESS.WRITE
const {ALWAYS, CHANGES_DATA, AFTER_FAILED_SANITIZE} = TRAIT
/** Long enough for every replica to write all of it. */
const SLOW_SECONDS = 300
const HOURS = 24 * 3600

// Ignored: RELADR, FUA_NV, RARC, SYNC_NV, PMI (obsolete), and GROUP NUMBER and DLD (hints).
const IGNORED_10 = '00 07 00000000 1f'
const IGNORED_12 = '00 07 00000000 00000000 1f'
const IGNORED_16 = '00 07 0000000000000000 00000000 ff'

const ROWS: readonly CommandRow<Disk>[] = [
  {name: 'TEST UNIT READY', usage: '00 00 00 00 00 00', access: UNRESERVED, run: () => 0},
  {name: 'REQUEST SENSE', usage: '03 01 00 00 ff 00', access: NONE, traits: ALWAYS, run: requestSense},
  {name: 'READ(6)', usage: '08 1f ff ff ff 00', access: READ, start: reading(LAYOUT_6)},
  {name: 'WRITE(6)', usage: '0a 1f ff ff ff 00', access: WRITE, traits: CHANGES_DATA, start: writing(LAYOUT_6)},
  {name: 'INQUIRY', usage: '12 01 ff ff ff 00', access: NONE, traits: ALWAYS, run: (disk, task) => inquiry(disk.inquiry, task)},
  {name: 'MODE SELECT(6)', usage: '15 11 00 00 ff 00', access: WRITE, run: modeSelect6},
  {name: 'RESERVE(6)', usage: '16 00 00 00 00 00', access: UNRESERVED, run: reserve},
  {name: 'RELEASE(6)', usage: '17 00 00 00 00 00', access: NONE, run: release},
  {name: 'MODE SENSE(6)', usage: '1a 08 ff ff ff 00', access: READ, run: modeSense6},
  {name: 'START STOP UNIT', usage: '1b 01 00 0f f7 00', access: startStopAccess, run: startStopUnit},
  {name: 'RECEIVE DIAGNOSTIC RESULTS', usage: '1c 01 ff ff ff 00', access: READ, run: alone(receiveDiagnostic)},
  {name: 'SEND DIAGNOSTIC', usage: '1d f7 00 ff ff 00', access: WRITE, run: alone(sendDiagnostic)},
  {name: 'PREVENT ALLOW MEDIUM REMOVAL', usage: '1e 00 00 00 03 00', access: preventAccess, run: preventRemoval},
  {name: 'READ CAPACITY(10)', usage: '25 00 00000000 00 00 00 00', ignored: '00 01 ffffffff 00 00 01', access: NONE, run: readCapacity10},
  {name: 'READ(10)', usage: '28 f8 ffffffff 00 ffff 00', ignored: IGNORED_10, access: READ, start: reading(LAYOUT_10)},
  {name: 'WRITE(10)', usage: '2a f8 ffffffff 00 ffff 00', ignored: IGNORED_10, access: WRITE, traits: CHANGES_DATA, start: writing(LAYOUT_10)},
  {
    name: 'WRITE AND VERIFY(10)', usage: '2e f6 ffffffff 00 ffff 00', ignored: IGNORED_10,
    access: WRITE, traits: CHANGES_DATA, run: by(writeAndVerify, LAYOUT_10),
  },
  {name: 'VERIFY(10)', usage: '2f f6 ffffffff 00 ffff 00', ignored: IGNORED_10, access: READ, run: by(verify, LAYOUT_10)},
  {name: 'PRE-FETCH(10)', usage: '34 02 ffffffff 00 ffff 00', ignored: IGNORED_10, access: READ, run: by(preFetch, LAYOUT_10)},
  {
    name: 'SYNCHRONIZE CACHE(10)', usage: '35 02 ffffffff 00 ffff 00', ignored: IGNORED_10,
    access: WRITE, timeoutSeconds: SLOW_SECONDS, run: by(synchronizeCache, LAYOUT_10),
  },
  {name: 'READ DEFECT DATA(10)', usage: '37 00 1f 00000000 ffff 00', access: READ, run: alone(readDefectData10)},
  {
    name: 'WRITE SAME(10)', usage: '41 e0 ffffffff 00 ffff 00', ignored: '00 00 00000000 1f',
    access: WRITE, traits: CHANGES_DATA, timeoutSeconds: SLOW_SECONDS, run: by(writeSame, LAYOUT_10),
  },
  {
    name: 'UNMAP', usage: '42 01 00000000 00 ffff 00', ignored: '00 00 00000000 1f',
    access: WRITE, traits: CHANGES_DATA, timeoutSeconds: SLOW_SECONDS, run: unmap,
  },
  {
    action: 0x02, name: 'SANITIZE, BLOCK ERASE', usage: '48 a2 00 00 00 00 00 ffff 00',
    access: WRITE, traits: CHANGES_DATA | AFTER_FAILED_SANITIZE, timeoutSeconds: HOURS, run: blockErase,
  },
  {
    action: 0x1f, name: 'SANITIZE, EXIT FAILURE MODE', usage: '48 1f 00 00 00 00 00 ffff 00',
    access: WRITE, traits: AFTER_FAILED_SANITIZE, run: exitFailureMode,
  },
  {name: 'MODE SELECT(10)', usage: '55 11 00 00 00 00 00 ffff 00', access: WRITE, run: modeSelect10},
  {name: 'RESERVE(10)', usage: '56 12 00 00 00 00 00 0000 00', access: UNRESERVED, run: reserve},
  {name: 'RELEASE(10)', usage: '57 12 00 00 00 00 00 0000 00', access: NONE, run: release},
  {name: 'MODE SENSE(10)', usage: '5a 18 ff ff 00 00 00 ffff 00', access: READ, run: modeSense10},
  {action: 0x00, name: 'PERSISTENT RESERVE IN, READ KEYS', usage: '5e 00 00 00 00 00 00 ffff 00', access: UNRESERVED, run: readKeys},
  {action: 0x01, name: 'PERSISTENT RESERVE IN, READ RESERVATION', usage: '5e 01 00 00 00 00 00 ffff 00', access: UNRESERVED, run: readReservation},
  {
    action: 0x02, name: 'PERSISTENT RESERVE IN, REPORT CAPABILITIES', usage: '5e 02 00 00 00 00 00 ffff 00',
    access: UNRESERVED, run: reportCapabilities,
  },
  {action: 0x03, name: 'PERSISTENT RESERVE IN, READ FULL STATUS', usage: '5e 03 00 00 00 00 00 ffff 00', access: UNRESERVED, run: readFullStatus},
  ...Object.entries(ACTION).map(([name, action]) => reserveOut(name.replaceAll('_', ' '), action)),
  {
    action: 0x00, name: 'EXTENDED COPY(LID1)', usage: '83 00 0000000000000000 ffffffff 00 00',
    access: WRITE, traits: CHANGES_DATA, timeoutSeconds: SLOW_SECONDS, run: extendedCopy,
  },
  {action: 0x00, name: 'RECEIVE COPY STATUS(LID1)', usage: '84 00 ff 00000000000000 ffffffff 00 00', access: WRITE, run: copyStatus},
  {
    action: 0x03, name: 'RECEIVE COPY OPERATING PARAMETERS', usage: '84 03 00 00000000000000 ffffffff 00 00', ignored: '00 00 ff',
    access: WRITE, run: alone(copyParameters),
  },
  {name: 'READ(16)', usage: '88 f8 ffffffffffffffff ffffffff 00 00', ignored: IGNORED_16, access: READ, start: reading(LAYOUT_16)},
  {
    name: 'COMPARE AND WRITE', usage: '89 f8 ffffffffffffffff 000000 ff 00 00', ignored: '00 02 0000000000000000 000000 00 1f',
    access: WRITE, traits: CHANGES_DATA, run: compareAndWrite,
  },
  {
    name: 'WRITE(16)', usage: '8a f8 ffffffffffffffff ffffffff 00 00', ignored: IGNORED_16,
    access: WRITE, traits: CHANGES_DATA, start: writing(LAYOUT_16),
  },
  {
    name: 'ORWRITE(16)', usage: '8b f8 ffffffffffffffff ffffffff 00 00', ignored: IGNORED_16,
    access: WRITE, traits: CHANGES_DATA, run: by(orWrite, LAYOUT_16),
  },
  {
    name: 'WRITE AND VERIFY(16)', usage: '8e f6 ffffffffffffffff ffffffff 00 00', ignored: IGNORED_16,
    access: WRITE, traits: CHANGES_DATA, run: by(writeAndVerify, LAYOUT_16),
  },
  {name: 'VERIFY(16)', usage: '8f f6 ffffffffffffffff ffffffff 00 00', ignored: IGNORED_16, access: READ, run: by(verify, LAYOUT_16)},
  {name: 'PRE-FETCH(16)', usage: '90 02 ffffffffffffffff ffffffff 00 00', ignored: IGNORED_16, access: READ, run: by(preFetch, LAYOUT_16)},
  {
    name: 'SYNCHRONIZE CACHE(16)', usage: '91 02 ffffffffffffffff ffffffff 00 00', ignored: IGNORED_16,
    access: WRITE, timeoutSeconds: SLOW_SECONDS, run: by(synchronizeCache, LAYOUT_16),
  },
  {
    name: 'WRITE SAME(16)', usage: '93 f9 ffffffffffffffff ffffffff 00 00', ignored: '00 00 0000000000000000 00000000 3f',
    access: WRITE, traits: CHANGES_DATA, timeoutSeconds: SLOW_SECONDS, run: by(writeSame, LAYOUT_16),
  },
  {
    name: 'WRITE ATOMIC(16)', usage: '9c f8 ffffffffffffffff 0000 ffff 00 00', ignored: '00 00 0000000000000000 0000 0000 3f',
    access: WRITE, traits: CHANGES_DATA, run: writeAtomic,
  },
  {
    action: 0x10, name: 'READ CAPACITY(16)', usage: '9e 10 0000000000000000 ffffffff 00 00', ignored: '00 00 ffffffffffffffff 00000000 01',
    access: NONE, run: readCapacity16,
  },
  {action: 0x12, name: 'GET LBA STATUS', usage: '9e 12 ffffffffffffffff ffffffff 00 00', access: READ, run: getLbaStatus},
  {name: 'REPORT LUNS', usage: 'a0 00 ff 000000 ffffffff 00 00', access: NONE, traits: ALWAYS, run: alone(reportLuns)},
  {action: 0x0a, name: 'REPORT TARGET PORT GROUPS', usage: 'a3 ea 00000000 ffffffff 00 00', access: UNRESERVED, run: alone(reportPortGroups)},
  {
    action: 0x0c, name: 'REPORT SUPPORTED OPERATION CODES', usage: 'a3 0c 87 ff ffff ffffffff 00 00',
    access: READ, run: (_, task) => reportOpcodes(DISK_COMMANDS, task),
  },
  {
    action: 0x0d, name: 'REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS', usage: 'a3 0d 80 00 0000 ffffffff 00 00',
    access: READ, run: alone(reportTaskManagement),
  },
  {name: 'READ(12)', usage: 'a8 f8 ffffffff ffffffff 00 00', ignored: IGNORED_12, access: READ, start: reading(LAYOUT_12)},
  {name: 'WRITE(12)', usage: 'aa f8 ffffffff ffffffff 00 00', ignored: IGNORED_12, access: WRITE, traits: CHANGES_DATA, start: writing(LAYOUT_12)},
  {
    name: 'WRITE AND VERIFY(12)', usage: 'ae f6 ffffffff ffffffff 00 00', ignored: IGNORED_12,
    access: WRITE, traits: CHANGES_DATA, run: by(writeAndVerify, LAYOUT_12),
  },
  {name: 'VERIFY(12)', usage: 'af f6 ffffffff ffffffff 00 00', ignored: IGNORED_12, access: READ, run: by(verify, LAYOUT_12)},
  {name: 'READ DEFECT DATA(12)', usage: 'b7 1f ffffffff ffffffff 00 00', access: READ, run: alone(readDefectData12)},
]

export const DISK_COMMANDS: CommandSet<Disk> = new CommandSet(ROWS)

function reading(layout: Layout): NonNullable<CommandRow<Disk>['start']> {
  return ({data}, task) => data.read(task, layout, flagsOf(task, layout))
}

function writing(layout: Layout): NonNullable<CommandRow<Disk>['start']> {
  return ({data}, task) => data.write(task, layout, flagsOf(task, layout))
}

/** Those with 6 bytes have no flags: a part of the address is there. */
function flagsOf({cdb}: ScsiTask, layout: Layout): number {
  return layout === LAYOUT_6 ? 0 : cdb[1]!
}

/** What has several lengths, with one of them. */
function by(run: (disk: Disk, task: ScsiTask, layout: Layout) => number | Promise<number>, layout: Layout): Run {
  return (disk, task) => run(disk, task, layout)
}

/** What does not depend on the disk. */
function alone(run: (task: ScsiTask) => number): Run {
  return (_disk, task) => run(task)
}

function reserveOut(name: string, action: number): CommandRow<Disk> {
  const usage = `5f ${action.toString(16).padStart(2, '0')} ff 00 00 ffffffff 00`
  return {action, name: `PERSISTENT RESERVE OUT, ${name}`, usage, access: UNRESERVED, run: persistentReserveOut}
}
