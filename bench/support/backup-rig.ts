import type {ChildProcess} from 'node:child_process'
import {once} from 'node:events'
import {readFileSync} from 'node:fs'
import {rm} from 'node:fs/promises'
import {join} from 'node:path'
import {createInterface} from 'node:readline'
import {fileURLToPath} from 'node:url'
import {execa} from 'execa'
import {startLonghorn} from './servers.js'

const LONGHORN = fileURLToPath(new URL('../../../bin/longhorn', import.meta.url))

/** What one backup took. */
export interface BackupTimes {
  /** The command, from its start to its end, in seconds. */
  readonly command: number
  /** What the replica did after the lock was held and the base was chosen. */
  readonly transfer: number
  /** The most memory that the replica has had since it was started, in MiB. */
  readonly peakMiB: number
  readonly backup: string
}

/** A replica and an engine with an NBD frontend, which can be started again; `longhorn backup` against them. */
export class BackupRig {
  #processes: ChildProcess[] = []
  #begun = NaN
  #complete = NaN
  #engine = ''
  uri = ''

  constructor(
    readonly directory: string,
    readonly sizeBytes: number,
    /** Credentials of the store. */
    readonly env: Record<string, string>,
    /** Flags of node for the replica. */
    readonly nodeFlags: readonly string[] = [],
  ) {}

  async start(): Promise<void> {
    const replica = await startLonghorn(['replica', join(this.directory, 'replica'), '--size', `${this.sizeBytes}`, '--listen', '127.0.0.1:0'], this.nodeFlags)
    createInterface({input: replica.child.stderr!}).on('line', line => {
      const {time, msg} = JSON.parse(line) as {time: string; msg: string}
      if (msg === 'backup begins') this.#begun = Date.parse(time)
      if (msg === 'backup complete') this.#complete = Date.parse(time)
    })
    const engine = await startLonghorn(['engine', 'bench', '--size', `${this.sizeBytes}`, '--listen', '127.0.0.1:0', '--replica', replica.ready.control!, '--frontend', 'nbd', '--frontend-listen', `unix:${join(this.directory, 'engine.sock')}`])
    this.#processes = [replica.child, engine.child]
    this.uri = engine.ready.endpoint!
    this.#engine = engine.ready.control!
  }

  /** Copies a file into the volume. */
  async fill(file: string): Promise<void> {
    await execa('nbdcopy', ['--flush', file, this.uri])
  }

  /** Copies the beginning of a file to the beginning of the volume. */
  async fillFirst(file: string, bytes: number): Promise<void> {
    const part = join(this.directory, 'part')
    await execa('head', ['--bytes', `${bytes}`, file], {stdout: {file: part}})
    await execa('nbdcopy', ['--flush', part, this.uri])
    await rm(part)
  }

  async backup(store: string, flags: readonly string[] = []): Promise<BackupTimes> {
    await execa('sync', ['--file-system', this.directory])
    this.#begun = this.#complete = NaN
    const before = performance.now()
    const {stdout} = await execa(LONGHORN, ['backup', 'create', 'bench', '--engine', this.#engine, '--dest', store, '--quiet', '--json', ...flags], {env: this.env})
    const command = (performance.now() - before) / 1000
    // The replica's last line comes on another pipe.
    while (Number.isNaN(this.#complete)) await new Promise(resolve => setTimeout(resolve, 5))
    return {command, transfer: (this.#complete - this.#begun) / 1000, peakMiB: this.peakMiB(), backup: (JSON.parse(stdout) as {backup: string}).backup}
  }

  /** Seconds that the restore of a backup to a file takes. */
  async restore(store: string, backup: string, file: string): Promise<number> {
    const before = performance.now()
    await execa(LONGHORN, ['backup', 'restore', `${store}?backup=${backup}&volume=bench`, '--to-file', file, '--quiet'], {env: this.env})
    return (performance.now() - before) / 1000
  }

  /** Ends the processes. Safe twice. */
  async stop(): Promise<void> {
    for (const child of this.#processes.splice(0).reverse()) {
      const exited = once(child, 'exit')
      child.kill('SIGTERM')
      await exited
    }
  }

  /** The most memory that the replica has had since it was started, in MiB. */
  peakMiB(): number {
    const status = readFileSync(`/proc/${this.#processes[0]!.pid}/status`, 'utf8')
    return Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1]) / 1024
  }
}
