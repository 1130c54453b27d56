// What is done with a block device of the guest, whatever made it.
import {setTimeout as sleep} from 'node:timers/promises'
import type {Guest} from './guest.js'
import type {Report} from './report.js'
import type {ServedVolume} from './served-volume.js'

const MIB = 1024 * 1024

const FILE_SYSTEMS = {
  ext4: {make: 'mkfs.ext4 -q -F', check: 'e2fsck -fn'},
  xfs: {make: 'mkfs.xfs -q -f', check: 'xfs_repair -n'},
}
type FileSystem = keyof typeof FILE_SYSTEMS

const FIO = 'fio --name=e2e --ioengine=libaio --direct=1 --verify=crc32c --verify_fatal=1 --output-format=terse'
/** Of a file system, or of a run of fio, in an emulated machine. */
const LONG_MS = 400_000

/** All of it: what the kernel makes of the device, file systems, space given back, engines that come and go. */
export async function checkDevice(report: Report, guest: Guest, volume: ServedVolume, device: string): Promise<void> {
  await report.check('the device is what was promised', () => looksRight(guest, volume, device))
  await report.check('ext4: make, mount, fio with checksums, files, fstrim, unmount, check', () => keepsFiles(guest, volume, device, 'ext4'))
  await report.check('xfs: the same', () => keepsFiles(guest, volume, device, 'xfs'))
  await report.check('blkdiscard, and zeros by blkdiscard --zeroout', () => discards(guest, volume, device))
}

export async function checkRestarts(report: Report, guest: Guest, volume: ServedVolume, device: string): Promise<void> {
  await report.check('the engine is stopped and started again under fio: no error, no wrong byte', () => ridesOut(guest, volume, device, 'SIGTERM'))
  await report.check('the engine is killed and started again under fio: no error, no wrong byte', () => ridesOut(guest, volume, device, 'SIGKILL'))
}

async function looksRight(guest: Guest, volume: ServedVolume, device: string): Promise<string> {
  const script = `
    name=$(lsblk --nodeps --noheadings --output KNAME ${device} | tr -d ' ')
    cd /sys/block/$name
    echo $name $(blockdev --getsize64 ${device}) $(blockdev --getss ${device}) $(cat queue/write_cache | tr ' ' -) $(cat ro) $(cat queue/discard_max_bytes) $(cat queue/discard_granularity)`
  const [name, size, sector, cache, readOnly, discard, granularity] = (await guest.run(script)).split(' ')
  const found = JSON.stringify({size, sector, cache, readOnly})
  const wanted = JSON.stringify({size: `${volume.sizeBytes}`, sector: '512', cache: 'write-back', readOnly: '0'})
  if (found !== wanted) throw new Error(`${name}: found ${found}, expected ${wanted}`)
  if (!(Number(discard) > 0 && Number(granularity) >= 512)) throw new Error(`${name}: discards of ${discard} bytes, in steps of ${granularity}`)
  return `${name}, discards of up to ${Number(discard) / MIB} MiB`
}

async function keepsFiles(guest: Guest, volume: ServedVolume, device: string, kind: FileSystem): Promise<string> {
  const {make, check} = FILE_SYSTEMS[kind]
  await guest.run(
    `set -e
    ${make} ${device}
    mkdir -p /mnt/v && mount ${device} /mnt/v
    ${FIO} --directory=/mnt/v --size=16m --rw=randrw --bsrange=4k-64k --iodepth=16 --fsync=32 >/tmp/fio.log
    rm -f /mnt/v/e2e*
    mkdir /mnt/v/files && for i in $(seq 20); do head -c $((i * 50000)) /dev/urandom >/mnt/v/files/$i; done
    head -c 64M /dev/urandom >/mnt/v/large
    (cd /mnt/v && md5sum files/* large >/tmp/sums)
    umount /mnt/v
    ${check} ${device} >/tmp/check.log 2>&1
    mount ${device} /mnt/v
    (cd /mnt/v && md5sum --quiet -c /tmp/sums)
    rm /mnt/v/large && sync`,
    LONG_MS,
  )
  const before = await volume.allocatedBytes()
  await guest.run(
    `set -e
    fstrim /mnt/v
    echo 3 >/proc/sys/vm/drop_caches
    (cd /mnt/v && sed -i /large/d /tmp/sums && md5sum --quiet -c /tmp/sums)
    umount /mnt/v
    ${check} ${device} >/tmp/check.log 2>&1`,
    LONG_MS,
  )
  const after = await volume.allocatedBytes()
  const back = before.map((bytes, index) => Math.round((bytes - after[index]!) / MIB))
  // The file system may have used some of it for itself meanwhile.
  if (back.some(mib => mib < 48)) throw new Error(`fstrim gave back ${back.join(' and ')} MiB on the replicas, 64 were expected`)
  return `fstrim gave back ${back.join(' and ')} MiB`
}

async function discards(guest: Guest, volume: ServedVolume, device: string): Promise<string> {
  await guest.run(`set -e; head -c 32M /dev/urandom | dd of=${device} bs=1M oflag=direct iflag=fullblock status=none`, LONG_MS)
  const before = await volume.allocatedBytes()
  await guest.run(`blkdiscard --length 16M ${device}`)
  const after = await volume.allocatedBytes()
  const back = before.map((bytes, index) => Math.round((bytes - after[index]!) / MIB))
  if (back.some(mib => mib < 16)) throw new Error(`16 MiB were discarded, ${back.join(' and ')} MiB were given back`)
  await guest.run(
    `set -e
    blkdiscard --zeroout --offset 16M --length 16M ${device}
    dd if=${device} bs=1M skip=16 count=16 iflag=direct status=none | cmp - <(head -c 16M /dev/zero)`,
    LONG_MS,
  )
  return `${back.join(' and ')} MiB given back`
}

async function ridesOut(guest: Guest, volume: ServedVolume, device: string, how: 'SIGTERM' | 'SIGKILL'): Promise<string> {
  const mark = `e2e ${how} ${volume.name}`
  await guest.run(`echo '<4>${mark}' >/dev/kmsg`)
  // Some 15 seconds of writing, which then is read back and compared.
  const fio = guest.run(`${FIO} --filename=${device} --size=64m --io_size=12m --rw=randwrite --bs=4k --iodepth=8 --rate_iops=200 >/tmp/fio.log; exit $?`, LONG_MS)
  fio.catch(() => undefined)
  await sleep(6000)
  const started = performance.now()
  await volume.restartEngine(how, 2000)
  const downMs = performance.now() - started
  await fio
  const errors = await guest.run(`dmesg | sed -n '/${mark}/,$p' | grep -c 'I/O error' || true`)
  if (errors !== '0') throw new Error(`${errors} I/O errors in the kernel's log`)
  return `no engine for ${(downMs / 1000).toFixed(1)} s`
}
