// Run with a low limit of descriptors: connections come in when there is none left. Prints what happened as JSON.
import {closeSync, openSync} from 'node:fs'
import {setTimeout as delay} from 'node:timers/promises'
import {Listener} from '../../../../src/lib/net/listener.js'
import {closeFd, startConnect} from '../../../../src/lib/net/socket-calls.js'

const [path = ''] = process.argv.slice(2)
let accepted = 0
const listener = await Listener.open({kind: 'unix', path}, fd => {
  accepted++
  closeFd(fd)
})
const clients = [startConnect(path), startConnect(path), startConnect(path)]
const files: number[] = []
try {
  for (;;) files.push(openSync('/dev/null', 'r'))
} catch (error) {
  if ((error as NodeJS.ErrnoException).code !== 'EMFILE') throw error
}
const before = process.cpuUsage()
await delay(500)
const {user, system} = process.cpuUsage(before)
const acceptedWhileFull = accepted
for (const file of files) closeSync(file)
const deadline = performance.now() + 60_000
while (accepted < clients.length && performance.now() < deadline) await delay(5)
for (const fd of clients) closeFd(fd)
await listener.close()
process.stdout.write(JSON.stringify({acceptedWhileFull, accepted, cpuMs: (user + system) / 1000}))
