// `npm run e2e:initiator`, after compiling. What it needs and what it does is said in scripts/e2e-initiator.mjs.
import {mkdtempSync, rmSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {Cleanup} from '../../src/lib/cleanup.js'
import {missing} from '../peers/support/tool.js'
import {findAccelerator} from './accelerator.js'
import {blockdev} from './blockdev-scenario.js'
import {contract} from './contract-scenario.js'
import {guestImage} from './guest-image.js'
import {Guest} from './guest.js'
import {iscsiadm, kernelIscsiWay, writeChapFile} from './iscsi-scenarios.js'
import {kernelNbdWay, nbdClient} from './nbd-scenarios.js'
import {buildProgramImage} from './program-image.js'
import {Report} from './report.js'
import {ServedVolume, type FrontendName} from './served-volume.js'

/** Each step has its limit; this is for all of them. */
const RUN_TIMEOUT_MS = 90 * 60_000
const RUN_WITH_CONTRACT_TIMEOUT_MS = 4 * RUN_TIMEOUT_MS

const MIB = 1024 * 1024
const SIZE = 1024 * MIB

export interface E2eOptions {
  /** Leave the console of the guest and what else explains a failure, and say where. */
  readonly keep: boolean
  /** Run only the scenarios of these names; all if empty. */
  readonly only: readonly string[]
}

type Scenario = (report: Report, guest: Guest, volume: ServedVolume) => Promise<void>

/** With a volume that is served on this host, by an engine with these flags. */
interface Stage {
  readonly frontend: FrontendName
  readonly flags: (folder: string) => readonly string[]
  readonly scenario: Scenario
}

const STAGES: Readonly<Record<string, Stage>> = {
  'nbd-client': {frontend: 'nbd', flags: () => [], scenario: nbdClient},
  'kernel-nbd': {frontend: 'nbd', flags: () => [], scenario: kernelNbdWay},
  iscsiadm: {frontend: 'iscsi', flags: iscsiState, scenario: iscsiadm},
  'kernel-iscsi': {frontend: 'iscsi', flags: folder => [...iscsiState(folder), '--iscsi-chap-file', writeChapFile(folder)], scenario: kernelIscsiWay},
}

function iscsiState(folder: string): string[] {
  return ['--iscsi-state-dir', join(folder, 'iscsi')]
}

/** Gives the exit code. */
export async function runE2e({keep, only}: E2eOptions): Promise<number> {
  const absent = process.geteuid?.() === 0 ? await missing('qemu-system-x86_64', 'debootstrap', 'mke2fs') : 'this needs root'
  if (absent !== false) {
    console.error(`Error: ${absent}`)
    return 2
  }
  const folder = mkdtempSync(join(tmpdir(), 'longhorn-e2e-'))
  process.on('exit', () => (keep ? console.log(`\nleft in ${folder}`) : rmSync(folder, {recursive: true, force: true})))
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => process.exit(130))
  await using cleanup = new Cleanup()
  const report = new Report()
  const image = await guestImage(text => report.say(text))
  const accelerator = await findAccelerator(image.kernel)
  // Many starts of Node.js: where the processor is emulated it takes an hour, so that it has to be asked for.
  const isWanted = (name: string): boolean => (only.length === 0 ? name !== 'contract' || accelerator === 'kvm' : only.includes(name))
  const limitMs = isWanted('contract') ? RUN_WITH_CONTRACT_TIMEOUT_MS : RUN_TIMEOUT_MS
  setTimeout(() => {
    console.error(`not finished after ${limitMs / 60_000} minutes`)
    process.exit(1)
  }, limitMs).unref()
  const programs = await buildProgramImage(folder, {withTests: isWanted('contract')})
  let guest: Guest | undefined
  report.section('The guest')
  await report.check(`boot (${accelerator === 'kvm' ? 'KVM' : 'emulated: KVM does not work here'})`, async () => {
    guest = cleanup.add(await Guest.boot({image, programs, accelerator, folder}))
    return guest.run('uname -sr')
  })
  if (guest === undefined) return report.end()
  for (const [name, stage] of Object.entries(STAGES)) if (isWanted(name)) await runStage(report, guest, folder, name, stage)
  if (isWanted('blockdev')) await blockdev(report, guest)
  if (isWanted('contract')) await contract(report, guest)
  return report.end()
}

async function runStage(report: Report, guest: Guest, folder: string, name: string, {frontend, flags, scenario}: Stage): Promise<void> {
  // One with an underscore, which the name of a target cannot have.
  const volume = await ServedVolume.start(folder, `e2e_${name}`, frontend, SIZE, flags(folder))
  try {
    await scenario(report, guest, volume)
    await report.check('the engine and the replicas stop in an orderly way', () => volume.stop())
  } finally {
    // What a failure has left: the next stage begins with nothing.
    await guest.attempt(CLEAN_UP, 120_000).catch(() => undefined)
    await volume.kill()
  }
}

const CLEAN_UP = `
  rm -f /tmp/wanted
  umount -l /mnt/v
  pkill -KILL -f keeper-main
  pkill -KILL nbd-client
  for device in /sys/block/nbd*/pid; do [ -e $device ] && nbd-client -d /dev/$(basename $(dirname $device)); done
  for state in /sys/class/iscsi_session/*/device/target*/*/state; do [ -e $state ] && echo offline >$state; done
  iscsiadm -m session --logout
  iscsiadm -m node -o delete
  rm -rf /run/longhorn/attach /dev/longhorn`
