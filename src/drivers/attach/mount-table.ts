// The kernel's table of mounts. Looking things up there is how we learn about a mount without touching it: stat(2) on a
// mount whose server hangs does not come back.
import {readFile} from 'node:fs/promises'

export interface Mount {
  readonly major: number
  readonly minor: number
  readonly mountPoint: string
  /** `ext4`, `fuse`, `fuse.sshfs`, … */
  readonly fileSystem: string
  /** What was mounted: a device, or whatever name the file system was given. */
  readonly source: string
}

/** The mounts in the mount namespace of a process, oldest first. Throws Node's error when it cannot be read. */
export async function readMounts(pid: number | 'self' = 'self'): Promise<Mount[]> {
  return parseMountInfo(await readFile(`/proc/${pid}/mountinfo`, 'utf8'))
}

/**
 * One line each, proc(5):
 *   36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
 *   id parent major:minor root mountPoint options [optional fields…] - fileSystem source superOptions
 */
export function parseMountInfo(text: string): Mount[] {
  const mounts: Mount[] = []
  for (const line of text.split('\n')) {
    const fields = line.split(' ')
    const separator = fields.indexOf('-', 6)
    if (separator === -1) continue
    const [major, minor] = (fields[2] ?? '').split(':').map(Number)
    mounts.push({
      major: major ?? NaN,
      minor: minor ?? NaN,
      mountPoint: unescape(fields[4] ?? ''),
      fileSystem: fields[separator + 1] ?? '',
      source: unescape(fields[separator + 2] ?? ''),
    })
  }
  return mounts
}

/** Space, tab, newline and backslash are written in octal: `\040`. */
function unescape(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)))
}
