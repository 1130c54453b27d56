// The first disk of the guest: a small Debian with a kernel, made by debootstrap and kept for the next run. It knows nothing of
// this project, so it is made anew only when what goes into it changes.
import {createHash} from 'node:crypto'
import {chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync} from 'node:fs'
import {homedir} from 'node:os'
import {join} from 'node:path'
import {attempt, tool} from '../peers/support/tool.js'

const SUITE = 'bookworm'
const PACKAGES = [
  'linux-image-amd64',
  'initramfs-tools',
  'systemd-sysv',
  'udev',
  'kmod',
  'iproute2',
  'util-linux',
  'procps',
  'open-iscsi',
  'nbd-client',
  'nbdkit',
  'fio',
  'e2fsprogs',
  'xfsprogs',
  'sg3-utils',
]
const SIZE = '3G'
const DEBOOTSTRAP_TIMEOUT_MS = 30 * 60_000

/** The first process: mounts the second disk and goes on from there (guest/init.sh). */
const INIT = `#!/bin/bash
mkdir -p /opt/e2e
mount -o ro /dev/vdb /opt/e2e && exec /bin/bash /opt/e2e/init.sh
echo "the second disk cannot be mounted"
echo o >/proc/sysrq-trigger
sleep 60
`

export interface GuestImage {
  readonly disk: string
  readonly kernel: string
  readonly initrd: string
}

/** The image of this recipe, from the cache if it is there. `say` is told when that takes minutes. */
export async function guestImage(say: (what: string) => void): Promise<GuestImage> {
  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'longhorn-e2e')
  const key = createHash('sha256').update(JSON.stringify([SUITE, PACKAGES, SIZE, INIT])).digest('hex').slice(0, 16)
  const folder = join(cache, key)
  const image = {disk: join(folder, 'disk.img'), kernel: join(folder, 'vmlinuz'), initrd: join(folder, 'initrd.img')}
  if (existsSync(folder)) return image
  mkdirSync(cache, {recursive: true})
  removeOld(cache)
  say('making the image of the guest with debootstrap; this takes some minutes, once')
  const work = mkdtempSync(join(cache, 'making-'))
  try {
    await makeImage(work)
    // Only what is whole gets the name that is looked for.
    renameSync(work, folder)
  } finally {
    rmSync(work, {recursive: true, force: true})
  }
  return image
}

async function makeImage(work: string): Promise<void> {
  const tree = join(work, 'tree')
  const mirror = await debianMirror()
  const source = mirror === undefined ? [] : [mirror]
  await tool(['debootstrap', '--variant=minbase', `--include=${PACKAGES.join(',')}`, SUITE, tree, ...source], {timeoutMs: DEBOOTSTRAP_TIMEOUT_MS})
  writeFileSync(join(tree, 'e2e-init'), INIT)
  chmodSync(join(tree, 'e2e-init'), 0o755)
  for (const folder of ['var/cache/apt', 'var/lib/apt/lists', 'usr/share/doc', 'usr/share/man', 'usr/share/locale']) {
    rmSync(join(tree, folder), {recursive: true, force: true})
  }
  await tool(['cp', '--dereference', join(tree, 'vmlinuz'), join(tree, 'initrd.img'), work])
  await tool(['mke2fs', '-q', '-t', 'ext4', '-d', tree, '-E', 'root_owner=0:0', join(work, 'disk.img'), SIZE], {timeoutMs: 300_000})
  rmSync(tree, {recursive: true})
}

/** Where this machine gets its packages from, if it is a Debian; else debootstrap has its own idea. */
async function debianMirror(): Promise<string | undefined> {
  try {
    const {stdout} = await attempt(['apt-get', 'indextargets', '--format', '$(RELEASE) $(REPO_URI)', 'Created-By: Packages'])
    const lines = stdout.split('\n').map(line => line.split(' '))
    return lines.find(([release]) => release === SUITE)?.[1]
  } catch {
    return undefined
  }
}

/** Images of other recipes, and what a run that was killed has begun. */
function removeOld(cache: string): void {
  for (const name of readdirSync(cache)) rmSync(join(cache, name), {recursive: true, force: true})
}
