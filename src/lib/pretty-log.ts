import {inspect} from 'node:util'
import type {DestinationStream} from 'pino'

/** Turns the JSON lines of a log into lines for people: `10:20:30.123 INFO  engine: replica added replica=10.0.0.3:9502`. */
export function prettyLines(write: (line: string) => void): DestinationStream {
  return {write: json => write(prettyLine(json))}
}

function prettyLine(json: string): string {
  const {time, level, component, msg, err, ...fields} = JSON.parse(json) as Record<string, unknown>
  const clock = String(time).slice(11, 23)
  const from = component === undefined ? '' : `${plain(component)}: `
  const rest = Object.entries(fields).map(([key, value]) => ` ${key}=${plain(value)}`)
  return `${clock} ${plain(level).toUpperCase().padEnd(5)} ${from}${plain(msg ?? '')}${rest.join('')}${stackOf(err)}\n`
}

function plain(value: unknown): string {
  return typeof value === 'string' ? value : inspect(value, {breakLength: Infinity, depth: 4})
}

function stackOf(err: unknown): string {
  if (typeof err !== 'object' || err === null) return ''
  return `\n${'stack' in err ? plain(err.stack) : plain(err)}`
}
