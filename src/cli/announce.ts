import {formatAddress, type Address} from '../lib/address.js'

/**
 * Says on stdout that a daemon is ready and where, in one line: scripts that start it with port 0 read the port from it.
 * The JSON of a command that returns comes at its end; a daemon's users cannot wait for that.
 */
export function announce(asJson: boolean, what: string, addresses: Readonly<Record<string, Address | string | undefined>>): void {
  const texts = Object.entries(addresses).flatMap(([name, address]) => {
    if (address === undefined) return []
    return [[name, typeof address === 'string' ? address : formatAddress(address)] as const]
  })
  const line = asJson ? JSON.stringify({ready: what, ...Object.fromEntries(texts)}) : `${what} ready: ${texts.map(pair => pair.join(' ')).join(', ')}`
  process.stdout.write(`${line}\n`)
}
