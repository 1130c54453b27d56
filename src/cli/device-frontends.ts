/** What upstream's manager calls a block device of the host; it finds it at the same path. */
export const UPSTREAM_BLOCKDEV = 'tgt-blockdev'

/** True for the frontends whose device stays on this host when nobody closes them. */
export function makesDevice(frontend: string | undefined): boolean {
  return frontend === 'blockdev' || frontend === UPSTREAM_BLOCKDEV
}
