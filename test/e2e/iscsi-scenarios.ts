import {writeFileSync} from 'node:fs'
import {join} from 'node:path'
import {parseIscsiUri} from '../../src/drivers/attach/kernel-iscsi/iscsi-uri.js'
import {attach, detach, expectNothingLeft, failToAttach, leftovers} from './attached.js'
import {checkDevice, checkRestarts} from './device-checks.js'
import {HOST_IN_GUEST, type Guest} from './guest.js'
import {LONGHORN_IN_GUEST} from './program-image.js'
import type {Report} from './report.js'
import type {ServedVolume} from './served-volume.js'
import {killAtEachStep} from './steps-scenario.js'

/** iscsiadm and the kernel wait, and are emulated. */
const LOGIN_MS = 180_000
const CHAP_FILE = '/tmp/chap'
const SECRETS = {
  'node.session.auth.username': 'e2e-initiator',
  'node.session.auth.password': 'correct horse battery',
  'node.session.auth.username_in': 'e2e-target',
  'node.session.auth.password_in': 'staple of another kind',
}

/** Secrets for both directions, in a file for the engine. */
export function writeChapFile(folder: string): string {
  const path = join(folder, 'chap')
  writeFileSync(path, linesOf(SECRETS), {mode: 0o600})
  return path
}

/** Our target under the initiator that everybody has, controlled by hand. */
export async function iscsiadm(report: Report, guest: Guest, volume: ServedVolume): Promise<void> {
  report.section('iSCSI: open-iscsi, with header and data digests')
  const record = `iscsiadm -m node -T ${iqnOf(volume)} -p ${HOST_IN_GUEST}:${volume.port}`
  let device = ''
  const loggedIn = await report.check('log in', async () => {
    const digests = ['Header', 'Data'].map(what => `${record} -o update -n 'node.conn[0].iscsi.${what}Digest' -v CRC32C`)
    await guest.run([`modprobe iscsi_tcp; pgrep iscsid >/dev/null || iscsid; set -e; ${record} -o new`, ...digests, `${record} --login`].join('\n'), LOGIN_MS)
    device = `/dev/${await deviceOf(guest)}`
    const used = await guest.run('cat /sys/class/iscsi_connection/*/header_digest /sys/class/iscsi_connection/*/data_digest | tr "\\n" " "')
    if (used !== '1 1') throw new Error(`digests in use: ${used}`)
    return device
  })
  if (!loggedIn) return
  await report.check('the target says of its disk what is so', async () => describes(guest, device))
  await checkDevice(report, guest, volume, device)
  await checkRestarts(report, guest, volume, device)
  await report.check('the device grows with the volume, and the file system on it after that', async () => grows(guest, volume, device, `${record} --rescan`))
  await report.check('log out', async () => {
    await guest.run(`set -e; ${record} --logout; ${record} -o delete`, LOGIN_MS)
    await expectNothingLeft(guest)
  })
}

/** Our way to attach, which controls open-iscsi. The volume is served with CHAP in both directions. */
export async function kernelIscsiWay(report: Report, guest: Guest, volume: ServedVolume): Promise<void> {
  report.section('iSCSI: longhorn volume attach, with mutual CHAP')
  const endpoint = `iscsi://${HOST_IN_GUEST}:${volume.port}/${iqnOf(volume)}/1`
  const flags = `--chap-file ${CHAP_FILE}`
  await report.check('without CHAP, or with a wrong secret, nobody gets in and nothing is left', async () => {
    await guest.run(`umask 077; echo '${linesOf({...SECRETS, 'node.session.auth.password': 'incorrect horse'})}' >${CHAP_FILE}`)
    const codes = [await failToAttach(guest, volume.name, endpoint), await failToAttach(guest, volume.name, endpoint, flags)]
    if (codes.some(code => code !== 'LH_USAGE')) throw new Error(codes.join(', '))
    await expectNothingLeft(guest)
  })
  let device = ''
  const attached = await report.check('attach', async () => {
    await guest.run(`umask 077; echo '${linesOf(SECRETS)}' >${CHAP_FILE}`)
    const made = await attach(guest, volume.name, endpoint, flags)
    device = made.device
    const timeout = await guest.run(`cat /sys/block/${made.node.name}/device/timeout`)
    if (timeout !== '60') throw new Error(`requests have ${timeout} s`)
    return `${made.device} is ${made.node.name}`
  })
  if (!attached) return
  await checkDevice(report, guest, volume, device)
  await checkRestarts(report, guest, volume, device)
  await report.check('attaching again finds it', async () => {
    const {way} = await attach(guest, volume.name, endpoint, flags)
    if (way !== 'kernel-iscsi') throw new Error(`by way of ${way}`)
  })
  await report.check('detach, and nothing is left', async () => {
    await detach(guest, volume.name)
    await expectNothingLeft(guest)
  })
  await report.check('a session of which no record is left is taken over by the next attach', async () => {
    await attach(guest, volume.name, endpoint, flags)
    await guest.run(`rm -r /run/longhorn/attach ${device}`)
    await attach(guest, volume.name, endpoint, flags)
    await detach(guest, volume.name)
    await expectNothingLeft(guest)
  })
  await report.check('from a container, which has a network of its own and no open-iscsi', async () => {
    await inContainer(guest, `volume attach ${volume.name} --endpoint '${endpoint}' ${flags}`)
    await guest.run(`dd if=${device} of=/dev/null bs=1M count=4 iflag=direct status=none`)
    await inContainer(guest, `volume detach ${volume.name}`)
    await expectNothingLeft(guest)
  })
  await report.check('killed after each step of an attach and of a detach: the next one cleans up', () => {
    const {address, iqn, lun} = parseIscsiUri(endpoint)
    const target = {kind: 'iscsi', address, iqn, lun, chapFile: CHAP_FILE} as const
    return killAtEachStep(guest, 'kernel-iscsi', volume.name, target, () => leftovers(guest))
  })
  await report.check('an engine that is gone for good under a mounted file system: detach --force, and nothing is left', async () => {
    await attach(guest, volume.name, endpoint, flags)
    await guest.run(`mkfs.ext4 -q -F ${device} && mkdir -p /mnt/v && mount ${device} /mnt/v && head -c 8M /dev/urandom >/mnt/v/dirty`, 240_000)
    await volume.killEngine()
    await detach(guest, volume.name, '--force')
    await expectNothingLeft(guest)
    await volume.startEngine()
  })
}

/** It shares with the host what a container of ours does: processes, /dev and /run. */
async function inContainer(guest: Guest, command: string): Promise<void> {
  const hide = 'mount --bind /bin/false /usr/sbin/iscsiadm && mount --bind /bin/false /usr/sbin/iscsid && mount -t tmpfs none /etc/iscsi'
  await guest.run(`unshare --mount --net bash -c "${hide} && ${LONGHORN_IN_GUEST} ${command}"`, LOGIN_MS)
}

async function describes(guest: Guest, device: string): Promise<string> {
  const inquiry = await guest.run(`sg_inq ${device}; sg_vpd --page=lbpv ${device}; sg_vpd --page=bl ${device}; sg_readcap --16 ${device}; sg_luns ${device}`)
  const wanted: Record<string, RegExp> = {
    vendor: /Vendor identification: LONGHORN/,
    'thin provisioning': /Provisioning type: 2/,
    UNMAP: /Unmap command supported \(LBPU\): 1/,
    'a limit of UNMAP': /Maximum unmap LBA count: [1-9]/,
    'physical blocks of 4096 bytes': /Logical blocks per physical block exponent=3/,
  }
  const missing = Object.entries(wanted).filter(([, pattern]) => !pattern.test(inquiry))
  if (missing.length > 0) throw new Error(`not said: ${missing.map(([what]) => what).join(', ')}\n${inquiry}`)
  return Object.keys(wanted).join(', ')
}

async function deviceOf(guest: Guest): Promise<string> {
  return guest.run('for i in $(seq 100); do for found in /sys/class/iscsi_session/*/device/target*/*:1/block/*; do [ -e $found ] && basename $found && exit 0; done; sleep 0.2; done; exit 1')
}

/** As upstream names the target of a volume. */
function iqnOf({name}: ServedVolume): string {
  return `iqn.2019-10.io.longhorn:${name.replaceAll('_', ':')}`
}

function linesOf(settings: Readonly<Record<string, string>>): string {
  return Object.entries(settings)
    .map(([name, value]) => `${name} = ${value}`)
    .join('\n')
}

/** While a file system on it is mounted. The kernel learns of it by a unit attention, and asks for the new size when it is told to. */
async function grows(guest: Guest, volume: ServedVolume, device: string, rescan: string): Promise<string> {
  await guest.run(`set -e; mkfs.ext4 -q -F ${device}; mount ${device} /mnt; head -c 8M /dev/urandom >/mnt/data; sync; sha256sum /mnt/data >/tmp/sum`, LOGIN_MS)
  const wanted = volume.sizeBytes + 512 * 1024 * 1024
  await volume.expand(wanted)
  const found = await guest.run(`set -e; ${rescan} >/dev/null; blockdev --getsize64 ${device}`, LOGIN_MS)
  if (Number(found) !== wanted) throw new Error(`the device has ${found} bytes and not ${wanted}`)
  const after = await guest.run(`set -e; resize2fs ${device} >/dev/null 2>&1; sha256sum -c /tmp/sum >/dev/null; df -B1 --output=size /mnt | tail -1; umount /mnt; e2fsck -fn ${device} >/dev/null 2>&1`, LOGIN_MS)
  if (Number(after) < wanted * 0.9) throw new Error(`the file system has ${after} bytes`)
  const told = await guest.run('dmesg | grep -c "apacity data has changed" || true')
  if (Number(told) < 1) throw new Error('the kernel was not told')
  return `${wanted} bytes`
}
