import type {Hook} from '@oclif/core'
import {LonghornError} from '../../lib/errors.js'

/** Called by oclif; without it the error would name the command with colons, which nobody has typed. */
const commandNotFound: Hook.CommandNotFound = async ({id, config}) => {
  const typed = id.replaceAll(':', ' ')
  throw new LonghornError('USAGE', `there is no command "${typed}"; ${config.bin} --help lists them`)
}

export default commandNotFound
