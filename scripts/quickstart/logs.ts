import {readdirSync, readFileSync} from 'node:fs'
import {join} from 'node:path'
import {prettyLines} from '../../src/lib/pretty-log.js'
import type {Screen} from './screen.js'

const MOST_LINES = 10

/** Where the logs are, and what the processes complained about. */
export function showLogs(screen: Screen, directory: string): void {
  const files = readdirSync(directory).filter(name => name.endsWith('.log'))
  screen.say(`The logs of this run are in ${directory}: ${files.join(', ') || 'none yet'}`)
  const complaints: string[] = []
  const readable = prettyLines(line => complaints.push(line.trimEnd()))
  for (const file of files) {
    for (const line of readFileSync(join(directory, file), 'utf8').split('\n')) {
      if (/^\{"level":"(warn|error|fatal)".*\}$/.test(line)) readable.write(line)
    }
  }
  screen.output(complaints.sort().slice(-MOST_LINES).join('\n'))
}
