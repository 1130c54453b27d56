import {spawn, type ChildProcess} from 'node:child_process'
import {once} from 'node:events'
import {readFileSync} from 'node:fs'
import {createInterface} from 'node:readline'
import {setTimeout as delay} from 'node:timers/promises'
import {fileURLToPath} from 'node:url'

const LONGHORN = fileURLToPath(new URL('../../../bin/longhorn', import.meta.url))
const CLOCK_TICKS_PER_SECOND = 100

/** Processes that serve one volume, and how a client reaches it. */
export class Served {
  constructor(
    readonly uri: string,
    readonly processes: readonly ChildProcess[],
    readonly endSignal: NodeJS.Signals = 'SIGTERM',
  ) {}

  /** Processor seconds, user and system, that all processes have used so far. */
  cpuSeconds(): number {
    return this.processes.reduce((sum, {pid}) => sum + cpuSeconds(pid), 0)
  }

  /** Ends the processes, the last started first, and waits for them. */
  async close(): Promise<void> {
    for (const child of [...this.processes].reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue
      const exited = once(child, 'exit')
      child.kill(this.endSignal)
      await exited
    }
  }
}

/** Resident memory in MiB. */
export function residentMiB(pid: number | undefined): number {
  const line = readFileSync(`/proc/${pid}/status`, 'utf8').match(/^VmRSS:\s+(\d+) kB/m)
  return Number(line?.[1] ?? 0) / 1024
}

/** A longhorn daemon; resolves with what it announced once it is ready. */
export async function startLonghorn(args: readonly string[], nodeFlags: readonly string[] = []): Promise<{child: ChildProcess; ready: Record<string, string>}> {
  const child = spawn(process.execPath, [...nodeFlags, LONGHORN, ...args, '--json'], {stdio: ['ignore', 'pipe', 'pipe']})
  let errors = ''
  child.stderr.on('data', (chunk: Buffer) => {
    errors = (errors + chunk.toString()).slice(-4000)
  })
  for await (const line of createInterface({input: child.stdout})) {
    return {child, ready: JSON.parse(line) as Record<string, string>}
  }
  throw new Error(`longhorn ${args[0]} did not start: ${errors}`)
}

/** An engine with a frontend (NBD unless said otherwise) over `replicas` replica processes, all in `directory`. */
export async function serveLonghorn(
  directory: string,
  sizeBytes: number,
  replicas: number,
  engineFlags: readonly string[] = [],
  [frontend, listen] = ['nbd', `unix:${directory}/engine.sock`],
): Promise<Served> {
  const processes: ChildProcess[] = []
  const addresses: string[] = []
  for (let index = 0; index < replicas; index++) {
    const {child, ready} = await startLonghorn(['replica', `${directory}/replica-${index}`, '--size', `${sizeBytes}`, '--listen', '127.0.0.1:0'])
    processes.push(child)
    addresses.push(ready.control!)
  }
  const {child, ready} = await startLonghorn([
    'engine',
    'bench',
    '--size',
    `${sizeBytes}`,
    '--listen',
    '127.0.0.1:0',
    ...addresses.flatMap(address => ['--replica', address]),
    '--frontend',
    frontend,
    '--frontend-listen',
    listen,
    ...engineFlags,
  ])
  processes.push(child)
  return new Served(ready.endpoint!, processes)
}

/** The yardstick: nbdkit's file plugin on one sparse file, in C, unreplicated, buffered. */
export async function serveNbdkit(directory: string, sizeBytes: number): Promise<Served> {
  const {truncate, writeFile} = await import('node:fs/promises')
  const file = `${directory}/nbdkit.img`
  await writeFile(file, '')
  await truncate(file, sizeBytes)
  const socket = `${directory}/nbdkit.sock`
  const child = spawn('nbdkit', ['-f', '-U', socket, 'file', file], {stdio: 'ignore'})
  for (let waited = 0; waited < 5000; waited += 20) {
    if (await answers(socket)) return new Served(`nbd+unix:///?socket=${socket}`, [child])
    await delay(20)
  }
  throw new Error('nbdkit did not start')
}

async function answers(socket: string): Promise<boolean> {
  const {connect} = await import('node:net')
  const connection = connect(socket)
  try {
    await once(connection, 'connect')
    return true
  } catch {
    return false
  } finally {
    connection.destroy()
  }
}

function cpuSeconds(pid: number | undefined): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /, '').split(' ')
  // After the name: state is field 0, utime 11, stime 12.
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS_PER_SECOND
}
