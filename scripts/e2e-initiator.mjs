// `npm run e2e:initiator`: volumes under a real kernel's initiators, those that this machine's own kernel may not have.
// A small Debian guest is booted in QEMU. In it the kernel's NBD client and iSCSI initiator, controlled by nbd-client, by
// open-iscsi and by this program's own ways to attach, use volumes that engines on this host serve: file systems with
// checksums, discards, CHAP, digests, engines that are stopped and killed in between.
//
// Needs: x86-64, root (for debootstrap), qemu-system-x86, debootstrap, e2fsprogs, 6 GB of disk, and the Debian mirror that
// this host uses, the first time. KVM makes it fast; without it the guest is emulated and it takes some half an hour.
// The guest's image is kept in $XDG_CACHE_HOME/longhorn-e2e (~/.cache/longhorn-e2e). Everything else is removed at the end,
// also after Ctrl-C. It is not part of `npm test`.
import {spawnSync} from 'node:child_process'
import {fileURLToPath} from 'node:url'
import {parseArgs} from 'node:util'

const root = fileURLToPath(new URL('..', import.meta.url))

const HELP = `npm run e2e:initiator -- [OPTION]... [SCENARIO]...

Volumes under the kernel's own NBD client and iSCSI initiator, in a guest. Scenarios: nbd-client, kernel-nbd, iscsiadm,
kernel-iscsi, blockdev, contract; all when none is named, but contract only where there is KVM: without, it takes an hour.
Exits with 0 when nothing failed.

  --keep       leave the guest's console and the replicas, and say where
  --no-build   use what is compiled already
  --help       show this`

const {values, positionals} = parseArgs({
  allowPositionals: true,
  options: {keep: {type: 'boolean', default: false}, 'no-build': {type: 'boolean', default: false}, help: {type: 'boolean', short: 'h', default: false}},
})
if (values.help) {
  console.log(HELP)
  process.exit(0)
}
if (!values['no-build']) {
  const {status} = spawnSync('npm', ['run', '--silent', 'build'], {cwd: root, stdio: 'inherit'})
  if (status !== 0) process.exit(status ?? 1)
}
const {runE2e} = await import(new URL('../dist/test/e2e/main.js', import.meta.url).href)
process.exit(await runE2e({keep: values.keep, only: positionals}))
