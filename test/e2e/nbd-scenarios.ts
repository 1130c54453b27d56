import {parseNbdUri} from '../../src/drivers/attach/nbd-uri.js'
import {attach, detach, expectNothingLeft, failToAttach, leftovers} from './attached.js'
import {checkDevice, checkRestarts} from './device-checks.js'
import {HOST_IN_GUEST, type Guest} from './guest.js'
import type {Report} from './report.js'
import type {ServedVolume} from './served-volume.js'
import {killAtEachStep} from './steps-scenario.js'

const DEVICE = '/dev/nbd0'
const SYSFS = '/sys/block/nbd0'
const CONNECTED = `for i in $(seq 300); do [ -e ${SYSFS}/pid ] && [ $(cat ${SYSFS}/size) -gt 0 ] && break; sleep 0.2; done; [ -e ${SYSFS}/pid ]`
const DISCONNECTED = `for i in $(seq 300); do [ -e ${SYSFS}/pid ] || break; sleep 0.2; done; [ ! -e ${SYSFS}/pid ]`
const DISCONNECT = `nbd-client -d ${DEVICE}; ${DISCONNECTED}`

/** Our NBD server under the client that everybody has. */
export async function nbdClient(report: Report, guest: Guest, volume: ServedVolume): Promise<void> {
  report.section('NBD: nbd-client over TCP')
  // A function of the shell, so that the one which starts it anew can call it as well.
  const connect = (flags: string): string =>
    `modprobe nbd; connect() { nbd-client ${HOST_IN_GUEST} ${volume.port} ${DEVICE} -name ${volume.name} -block-size 512 ${flags}; }; export -f connect`
  if (!(await report.check('nbd-client connects', async () => void (await guest.run(`${connect('-timeout 30')}; connect`))))) return
  await checkDevice(report, guest, volume, DEVICE)
  await report.check('nbd-client disconnects', async () => void (await guest.run(DISCONNECT)))
  await report.check('nbd-client under a service manager: the device comes back after the engine has been killed, with its data', async () => {
    // By itself it ends, also with -persist, as Linux 6.1 tells it nothing of an error; and what is asked meanwhile fails.
    await guest.run(`touch /tmp/wanted; ${connect('-timeout 30 -nonetlink -nofork')}; setsid bash -c 'while [ -e /tmp/wanted ]; do connect; sleep 0.5; done' >/tmp/nbd-client.log 2>&1 &`)
    await guest.run(`set -e; ${CONNECTED}; head -c 4M /dev/urandom >/tmp/data; dd if=/tmp/data of=${DEVICE} bs=1M oflag=direct status=none`)
    await volume.killEngine()
    await guest.run(DISCONNECTED)
    await volume.startEngine()
    await guest.run(`set -e -o pipefail; ${CONNECTED}; dd if=${DEVICE} bs=1M count=4 iflag=direct status=none | cmp - /tmp/data`)
    await guest.run(`rm /tmp/wanted; ${DISCONNECT}`)
  })
}

/** Our way to attach, which is the kernel's client without nbd-client. */
export async function kernelNbdWay(report: Report, guest: Guest, volume: ServedVolume): Promise<void> {
  report.section('NBD: longhorn volume attach --attach kernel-nbd')
  const endpoint = `nbd://${HOST_IN_GUEST}:${volume.port}/${volume.name}`
  const flags = '--attach kernel-nbd'
  let device = ''
  const attached = await report.check('attach', async () => {
    const made = await attach(guest, volume.name, endpoint, flags)
    device = made.device
    return `${made.device} is ${made.node.name}`
  })
  if (!attached) return
  await checkDevice(report, guest, volume, device)
  await checkRestarts(report, guest, volume, device)
  await report.check('attaching again finds it, also when its keeper was killed', async () => {
    await guest.run('pkill -KILL -f keeper-main')
    const {way} = await attach(guest, volume.name, endpoint)
    if (way !== 'kernel-nbd') throw new Error(`by way of ${way}`)
    await guest.run('pgrep -f keeper-main')
  })
  await report.check('another endpoint is a conflict', async () => {
    const code = await failToAttach(guest, volume.name, `nbd://${HOST_IN_GUEST}:${volume.port}/other`, flags)
    if (code !== 'LH_CONFLICT') throw new Error(code)
  })
  await report.check('detach, and nothing is left', async () => {
    await detach(guest, volume.name)
    await expectNothingLeft(guest)
  })
  await report.check('killed after each step of an attach and of a detach: the next one cleans up', () =>
    killAtEachStep(guest, 'kernel-nbd', volume.name, parseNbdUri(endpoint), () => leftovers(guest)),
  )
  await report.check('an engine that is gone for good under a mounted file system: detach --force, and nothing is left', async () => {
    await attach(guest, volume.name, endpoint, flags)
    await guest.run(`mkfs.ext4 -q -F ${device} && mkdir -p /mnt/v && mount ${device} /mnt/v && head -c 8M /dev/urandom >/mnt/v/dirty`, 240_000)
    await volume.killEngine()
    await detach(guest, volume.name, '--force')
    await expectNothingLeft(guest)
    await volume.startEngine()
  })
}
