import {LonghornError} from '../../lib/errors.js'

const VOLUME_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/
const MAX_LENGTH = 64

/** Throws USAGE unless this can be the name of a volume (upstream's rule). Such a name is safe as a file name. */
export function checkVolumeName(name: string): void {
  if (name.length <= MAX_LENGTH && VOLUME_NAME.test(name)) return
  throw new LonghornError(
    'USAGE',
    `invalid volume name ${JSON.stringify(name.slice(0, 100))}: 2 to ${MAX_LENGTH} letters, digits, "_", "." and "-", the first a letter or a digit`,
  )
}
