import {Flags} from '@oclif/core'
import {parseAddress, type TcpAddress} from '../lib/address.js'
import {LonghornError} from '../lib/errors.js'
import {parseSize} from '../lib/sizes.js'

/** A size such as `512m` or `10g`, in bytes. */
export const sizeFlag = Flags.custom<number>({
  helpValue: 'SIZE',
  parse: async text => parseSize(text),
})

/** The HOST:PORT a service is to listen on. Throws USAGE, naming the flag. */
export function parseListen(text: string, flag: string): TcpAddress {
  const address = parseAddress(text)
  if (address.kind !== 'tcp') throw new LonghornError('USAGE', `${flag} "${text}": expected HOST:PORT`)
  return address
}

/** For daemons. Microseconds. */
export const busyPollFlag = {
  'busy-poll': Flags.integer({
    helpValue: 'MICROSECONDS',
    default: 200,
    min: 0,
    max: 1000,
    env: 'LONGHORN_BUSY_POLL',
    description: 'while requests follow each other this fast, look for the next one without sleeping; 0 saves processor time and costs latency',
  }),
}

/** For commands that talk to the engine of one volume and have another name as their argument. */
export const volumeFlag = {
  volume: Flags.string({helpValue: 'NAME', description: 'name of the volume; an engine of another volume is refused'}),
}

/** `KEY=VALUE`, of which only the first `=` counts. Throws USAGE, naming the flag. */
export function parseLabels(texts: readonly string[], flag: string): Map<string, string> {
  return new Map(
    texts.map(text => {
      const [key = '', ...value] = text.split('=')
      if (key === '' || value.length === 0) throw new LonghornError('USAGE', `${flag} "${text}": expected KEY=VALUE`)
      return [key, value.join('=')]
    }),
  )
}
