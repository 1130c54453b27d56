// nbdkit as the other side: a foreign NBD server that can log, die and hang.
import {spawn, type ChildProcess} from 'node:child_process'
import {once} from 'node:events'
import {openSync, closeSync, existsSync, ftruncateSync, readFileSync, rmSync} from 'node:fs'
import {join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import type {NbdEndpoint} from '../../../../src/drivers/attach/attach-way.js'

const START_TIMEOUT_MS = 60_000

export interface NbdkitOptions {
  readonly sizeBytes: number
  readonly readOnly?: boolean
  /** Arguments instead of serving the file: a plugin and its parameters. */
  readonly plugin?: readonly string[]
}

/** Serves `folder/NAME.img`, which it makes, on `folder/NAME.sock`, and logs all requests. */
export class Nbdkit {
  readonly endpoint: NbdEndpoint
  readonly image: string
  readonly #name: string
  readonly #folder: string
  readonly #options: NbdkitOptions
  #child: ChildProcess | undefined

  private constructor(folder: string, name: string, options: NbdkitOptions) {
    this.#folder = folder
    this.#name = name
    this.#options = options
    this.image = join(folder, `${name}.img`)
    this.endpoint = {kind: 'nbd', address: {kind: 'unix', path: join(folder, `${name}.sock`)}, exportName: ''}
  }

  static async start(folder: string, name: string, options: NbdkitOptions): Promise<Nbdkit> {
    const server = new Nbdkit(folder, name, options)
    const image = openSync(server.image, 'w')
    ftruncateSync(image, options.sizeBytes)
    closeSync(image)
    await server.start()
    return server
  }

  /** Also starts it again, on the same data. */
  async start(): Promise<void> {
    const {path} = this.endpoint.address as {path: string}
    const pidFile = join(this.#folder, `${this.#name}.pid`)
    for (const old of [path, pidFile, this.#log]) rmSync(old, {force: true})
    const options = ['--foreground', '--exit-with-parent', '--unix', path, '--pidfile', pidFile, '--filter=log']
    if (this.#options.readOnly === true) options.push('--readonly')
    const plugin = this.#options.plugin ?? ['file', this.image]
    const child = spawn('nbdkit', [...options, ...plugin, `logfile=${this.#log}`], {stdio: ['ignore', 'ignore', 'inherit']})
    this.#child = child
    for (const deadline = performance.now() + START_TIMEOUT_MS; !existsSync(pidFile); await sleep(10)) {
      if (child.exitCode !== null || performance.now() > deadline) throw new Error(`nbdkit did not start (exit code ${child.exitCode})`)
    }
  }

  /** What has been asked of it so far, apart from reads: `Write`, `Flush`, `Trim`, `Zero`, in order. */
  requests(): string[] {
    const text = existsSync(this.#log) ? readFileSync(this.#log, 'utf8') : ''
    return [...text.matchAll(/connection=\d+ (Write|Flush|Trim|Zero) /g)].map(([, kind = '']) => kind)
  }

  count(kind: 'Write' | 'Flush' | 'Trim' | 'Zero'): number {
    return this.requests().filter(request => request === kind).length
  }

  /** Clients connected now, as the log tells. */
  connections(): number {
    const text = existsSync(this.#log) ? readFileSync(this.#log, 'utf8') : ''
    return [...text.matchAll(/ Connect /g)].length - [...text.matchAll(/ Disconnect /g)].length
  }

  suspend(): void {
    this.#child?.kill('SIGSTOP')
  }

  resume(): void {
    this.#child?.kill('SIGCONT')
  }

  /** Kills it as a power cut would. Safe twice. */
  async kill(): Promise<void> {
    const child = this.#child
    this.#child = undefined
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGKILL')
    await once(child, 'exit')
  }

  get #log(): string {
    return join(this.#folder, `${this.#name}.log`)
  }
}
