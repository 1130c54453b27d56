// The guest: a machine with a kernel of its own, whose initiators are what this is about. It reaches the loopback interface of
// this host at 10.0.2.2. Commands go in and results come out through a virtio port (guest/init.sh is the other end).
import {spawn, type ChildProcess} from 'node:child_process'
import {once} from 'node:events'
import {createWriteStream} from 'node:fs'
import {createServer, type Server, type Socket} from 'node:net'
import {join} from 'node:path'
import {createInterface} from 'node:readline'
import {setTimeout as sleep} from 'node:timers/promises'
import type {GuestImage} from './guest-image.js'

/** How the guest calls this host. */
export const HOST_IN_GUEST = '10.0.2.2'

const BOOT_TIMEOUT_MS = 240_000
const SHUTDOWN_TIMEOUT_MS = 30_000
/** Beyond the guest's own limit, for the way there and back. */
const ANSWER_GRACE_MS = 60_000
const MEMORY_MIB = 1024

export interface GuestOptions {
  readonly image: GuestImage
  /** A file system with init.sh in it, read-only in the guest, at /opt/e2e. */
  readonly programs: string
  readonly accelerator: 'kvm' | 'tcg'
  /** For its socket and its console. */
  readonly folder: string
}

export interface GuestResult {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

export class Guest {
  readonly #qemu: ChildProcess
  readonly #server: Server
  readonly #waiting = new Map<string, (answer: GuestResult) => void>()
  readonly #exited: Promise<unknown>
  #port: Socket | undefined
  #commands = 0
  #failure: Error | undefined

  private constructor(qemu: ChildProcess, server: Server) {
    this.#qemu = qemu
    this.#server = server
    this.#exited = once(qemu, 'close')
    qemu.once('close', () => this.#fail(new Error('the guest has ended')))
    const kill = (): void => void qemu.kill('SIGKILL')
    process.on('exit', kill)
    qemu.once('close', () => process.off('exit', kill))
  }

  /** Resolves when it takes commands. */
  static async boot({image, programs, accelerator, folder}: GuestOptions): Promise<Guest> {
    const socket = join(folder, 'guest.sock')
    const server = createServer()
    await new Promise<void>(resolve => server.listen(socket, resolve))
    const qemu = spawn('qemu-system-x86_64', argumentsOf(image, programs, accelerator, socket), {stdio: ['ignore', 'pipe', 'pipe']})
    const console = createWriteStream(join(folder, 'console.log'))
    qemu.stdout.pipe(console)
    qemu.stderr.pipe(console, {end: false})
    const guest = new Guest(qemu, server)
    try {
      await guest.#ready()
      return guest
    } catch (error) {
      await guest.close()
      throw error
    }
  }

  /** Runs a shell script in the guest, whatever comes of it. Throws when it does not end in time, or the guest has ended. */
  async attempt(script: string, timeoutMs = 120_000): Promise<GuestResult> {
    this.#throwIfEnded()
    const id = `${++this.#commands}`
    const answer = new Promise<GuestResult>(resolve => this.#waiting.set(id, resolve))
    this.#port?.write(`${id} ${Math.ceil(timeoutMs / 1000)} ${Buffer.from(script).toString('base64')}\n`)
    const done = new AbortController()
    const result = await Promise.race([answer, sleep(timeoutMs + ANSWER_GRACE_MS, undefined, {signal: done.signal}).catch(() => undefined)])
    done.abort()
    this.#waiting.delete(id)
    this.#throwIfEnded()
    if (result === undefined) throw new Error(`nothing came back from the guest within ${timeoutMs + ANSWER_GRACE_MS} ms: ${script}`)
    return result
  }

  /** As attempt(), and throws unless the script ends with 0. Gives its standard output. */
  async run(script: string, timeoutMs?: number): Promise<string> {
    const {status, stdout, stderr} = await this.attempt(script, timeoutMs)
    if (status === 0) return stdout.trim()
    const why = status === 124 || status === 137 ? 'did not end in time' : `ended with ${status}`
    throw new Error(`${script.trim()}\n${why}\n${[stdout, stderr].join('').trim().slice(-4000)}`)
  }

  /** Safe twice. */
  async close(): Promise<void> {
    this.#port?.write('END\n')
    await Promise.race([this.#exited, sleep(this.#port === undefined ? 0 : SHUTDOWN_TIMEOUT_MS, undefined, {ref: false})])
    this.#qemu.kill('SIGKILL')
    this.#port?.destroy()
    this.#server.close()
    if (this.#qemu.pid !== undefined) await this.#exited
  }

  async #ready(): Promise<void> {
    const [port] = (await this.#orFailure(once(this.#server, 'connection'))) as [Socket]
    this.#port = port.on('error', () => undefined)
    const ready = new Promise<GuestResult>(resolve => this.#waiting.set('READY', resolve))
    createInterface({input: port}).on('line', line => this.#take(line))
    await this.#orFailure(ready)
  }

  async #orFailure<T>(awaited: Promise<T>): Promise<T> {
    const done = new AbortController()
    const first = await Promise.race([
      awaited.then(value => ({value})),
      this.#exited.then(() => 'ended' as const),
      sleep(BOOT_TIMEOUT_MS, 'late' as const, {signal: done.signal}).catch(() => 'late' as const),
    ])
    done.abort()
    if (typeof first === 'object') return first.value
    throw new Error(first === 'ended' ? 'the guest ended while it was starting' : `the guest did not start within ${BOOT_TIMEOUT_MS} ms`)
  }

  #take(line: string): void {
    const [id = '', status, stdout = '-', stderr = '-'] = line.split(' ')
    const [out = '', err = ''] = [stdout, stderr].map(text => (text === '-' ? '' : Buffer.from(text, 'base64').toString()))
    this.#waiting.get(id)?.({status: Number(status), stdout: out, stderr: err})
  }

  #throwIfEnded(): void {
    if (this.#failure !== undefined) throw this.#failure
  }

  #fail(error: Error): void {
    this.#failure = error
    for (const answer of this.#waiting.values()) answer({status: -1, stdout: '', stderr: ''})
  }
}

/** Neither disk is changed: what the guest writes to the first one is forgotten. */
function argumentsOf({disk, kernel, initrd}: GuestImage, programs: string, accelerator: GuestOptions['accelerator'], socket: string): string[] {
  return [
    ...['-nodefaults', '-no-user-config', '-no-reboot', '-nographic'],
    ...(accelerator === 'kvm' ? ['-accel', 'kvm', '-cpu', 'host'] : ['-accel', 'tcg,thread=multi', '-cpu', 'max']),
    ...['-smp', '2', '-m', `${MEMORY_MIB}`],
    ...['-kernel', kernel, '-initrd', initrd, '-append', 'root=/dev/vda rw console=ttyS0 init=/e2e-init quiet panic=-1 mitigations=off'],
    ...['-drive', `file=${disk},if=virtio,format=raw,snapshot=on`],
    ...['-drive', `file=${programs},if=virtio,format=raw,read-only=on`],
    ...['-netdev', 'user,id=net', '-device', 'virtio-net-pci,netdev=net,romfile='],
    ...['-device', 'virtio-serial-pci', '-chardev', `socket,id=port,path=${socket}`, '-device', 'virtserialport,chardev=port,name=e2e'],
    ...['-serial', 'stdio'],
  ]
}

