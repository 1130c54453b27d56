// Replicas, engine and device all in the guest: the frontend that makes its device by itself, with the kernel's NBD client, which
// is what it takes when it may choose, and with its iSCSI initiator.
import {setTimeout as sleep} from 'node:timers/promises'
import {expectNothingLeft} from './attached.js'
import type {Guest} from './guest.js'
import {LONGHORN_IN_GUEST} from './program-image.js'
import type {Report} from './report.js'

const VOLUME = 'inside'
const DEVICE = `/dev/longhorn/${VOLUME}`
const SIZE = 256 * 1024 * 1024
const REPLICA = '127.0.0.1:10000'
const FOLDER = '/tmp/inside'
const START_MS = 300_000
const FIO = `fio --name=e2e --filename=${DEVICE} --ioengine=libaio --direct=1 --rw=randwrite --bs=4k --size=32m --io_size=8m --iodepth=8 --rate_iops=100 --verify=crc32c --verify_fatal=1`

export async function blockdev(report: Report, guest: Guest): Promise<void> {
  await withWay(report, guest, 'kernel-nbd', 'auto')
  await withWay(report, guest, 'kernel-iscsi', 'kernel-iscsi')
}

async function withWay(report: Report, guest: Guest, way: string, asked: string): Promise<void> {
  report.section(`All in the guest: longhorn engine --frontend blockdev --attach ${asked}`)
  const startEngine = daemon('engine', `engine ${VOLUME} --size ${SIZE} --replica ${REPLICA} --listen 127.0.0.1:9501 --frontend blockdev --attach ${asked}`)
  const up = await report.check(`replica, engine and device, by ${way}`, async () => {
    await guest.run(`mkdir -p ${FOLDER}; ${daemon('replica', `replica ${FOLDER}/data --size ${SIZE} --listen ${REPLICA}`)}`, START_MS)
    await guest.run(startEngine, START_MS)
    await guest.run(`grep '"way":"${way}"' ${FOLDER}/engine.log`)
    return guest.run(`echo $(lsblk --nodeps --noheadings --output KNAME,SIZE ${DEVICE})`)
  })
  if (up) {
    await report.check('the engine is killed under fio; the next one finds the device, and nobody has noticed', async () => {
      const fio = guest.run(`${FIO} >/tmp/fio.log 2>&1`, START_MS)
      fio.catch(() => undefined)
      await sleep(5000)
      await guest.run(`kill -KILL $(cat ${FOLDER}/engine.pid)`)
      await guest.run(startEngine, START_MS)
      await fio
    })
    await report.check('a file system over it', () =>
      guest.run(
        `set -e; mkfs.ext4 -q -F ${DEVICE}; mkdir -p /mnt/v; mount ${DEVICE} /mnt/v; head -c 32M /dev/urandom >/mnt/v/a; sum=$(md5sum </mnt/v/a)
        umount /mnt/v; e2fsck -fn ${DEVICE} >/tmp/check.log 2>&1; mount ${DEVICE} /mnt/v; [ "$sum" = "$(md5sum </mnt/v/a)" ]; umount /mnt/v`,
        START_MS,
      ),
    )
    await report.check('an engine that is stopped takes its device with it', async () => {
      await guest.run(`kill -TERM $(cat ${FOLDER}/engine.pid); for i in $(seq 300); do kill -0 $(cat ${FOLDER}/engine.pid) 2>/dev/null || exit 0; sleep 0.2; done; exit 1`)
      await expectNothingLeft(guest)
    })
  }
  await guest.attempt(`kill -KILL $(cat ${FOLDER}/*.pid); rm -rf ${FOLDER}`)
}

/** A script that starts a daemon and waits until it is ready. */
function daemon(name: string, args: string): string {
  const file = `${FOLDER}/${name}`
  return `
    rm -f ${file}.out
    setsid ${LONGHORN_IN_GUEST} ${args} --json >${file}.out 2>${file}.log & echo $! >${file}.pid
    for i in $(seq 1000); do grep -q ready ${file}.out && exit 0; kill -0 $! 2>/dev/null || break; sleep 0.2; done
    cat ${file}.out ${file}.log; exit 1`
}
