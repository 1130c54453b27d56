import {spawn, type ChildProcess} from 'node:child_process'
import {existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs'
import {createConnection} from 'node:net'
import {networkInterfaces, tmpdir} from 'node:os'
import {join} from 'node:path'
import type {Test} from 'tap'
import {loadLibnfs} from '../../../src/lib/nfs/libnfs.js'
import {freePort} from '../../support/sockets.js'
import {until} from '../../support/until.js'
import {missing} from './tool.js'

const PLUGINS = ['/usr/lib/x86_64-linux-gnu/ganesha', '/usr/lib/aarch64-linux-gnu/ganesha', '/usr/lib/ganesha', '/usr/lib64/ganesha']
/** The server forgets clients that are silent for so long. Short, so that tests can see it. */
const LEASE_S = 20

/** Why the tests with an NFS server cannot run here, else false. */
export async function ganeshaMissing(): Promise<string | false> {
  if (process.getuid?.() !== 0) return 'not root: nfs-ganesha needs it to open files by their handles'
  const interfaces = Object.values(networkInterfaces()).flat()
  // It looks its own address up with AI_ADDRCONFIG, which knows no loopback.
  if (!interfaces.some(one => one?.internal === false)) return 'no network but loopback: nfs-ganesha finds no address then'
  const absent = await missing('ganesha.nfsd')
  if (absent !== false) return absent
  if (!PLUGINS.some(path => existsSync(join(path, 'libfsalvfs.so')))) return 'not installed: nfs-ganesha-vfs'
  try {
    loadLibnfs()
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
  return false
}

/** A real NFS server: nfs-ganesha, version 4 alone, on loopback and a free port, which needs no rpcbind. Gone with the test. */
export class Ganesha {
  #child: ChildProcess | undefined
  #exited: Promise<void> = Promise.resolve()

  private constructor(
    readonly port: number,
    readonly folder: string,
  ) {}

  /** Exports a directory as /export. */
  static async start(t: Test, exported: string): Promise<Ganesha> {
    const folder = mkdtempSync(join(tmpdir(), 'longhorn-ganesha-'))
    mkdirSync(join(folder, 'recovery'))
    const server = new Ganesha(await freePort(), folder)
    t.teardown(async () => {
      await server.kill()
      rmSync(folder, {recursive: true, force: true})
    })
    writeFileSync(server.#file('conf'), configuration(server.port, exported, folder))
    await server.run()
    return server
  }

  /** Starts it, again with the state that it had. */
  async run(): Promise<void> {
    const child = spawn('ganesha.nfsd', ['-F', '-f', this.#file('conf'), '-L', this.#file('log'), '-p', this.#file('pid')], {stdio: 'ignore'})
    this.#child = child
    this.#exited = new Promise(resolve => child.once('exit', () => resolve()))
    await until(
      async () => {
        if (child.exitCode !== null) throw new Error(`nfs-ganesha ended with ${child.exitCode}:\n${readFileSync(this.#file('log'), 'utf8').slice(-3000)}`)
        return await accepts(this.port)
      },
      'nfs-ganesha serves',
      60_000,
    )
  }

  async kill(): Promise<void> {
    this.#child?.kill('SIGKILL')
    await this.#exited
  }

  /** Lets it stand still: it is there and answers nothing. */
  async suspend(): Promise<void> {
    this.#child?.kill('SIGSTOP')
    const tasks = `/proc/${this.#child?.pid}/task`
    // A signal stops one thread after the other.
    await until(() => readdirSync(tasks).every(task => isStopped(join(tasks, task, 'stat'))), 'nfs-ganesha stands still', 60_000)
  }

  resume(): void {
    this.#child?.kill('SIGCONT')
  }

  url(path: string, options = ''): string {
    return `nfs://127.0.0.1:/export${path}?nfsOptions=port=${this.port}${options}`
  }

  #file(name: string): string {
    return join(this.folder, name)
  }
}

function configuration(port: number, exported: string, folder: string): string {
  return `
    NFS_CORE_PARAM { Protocols = 4; NFS_Port = ${port}; Bind_addr = 127.0.0.1; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }
    NFSV4 { Graceless = true; Lease_Lifetime = ${LEASE_S}; RecoveryBackend = fs; RecoveryRoot = "${folder}/recovery"; }
    EXPORT { Export_Id = 1; Path = "${exported}"; Pseudo = /export; Access_Type = RW; Squash = None; SecType = sys; Protocols = 4; Transports = TCP; FSAL { Name = VFS; } }
  `
}

function isStopped(stat: string): boolean {
  try {
    // TID (NAME) STATE …; a name may contain anything.
    return readFileSync(stat, 'utf8').split(') ').at(-1)!.startsWith('T')
  } catch {
    // A thread that has just ended.
    return false
  }
}

async function accepts(port: number): Promise<boolean> {
  const socket = createConnection(port, '127.0.0.1')
  const connected = await new Promise<boolean>(resolve => {
    socket.once('connect', () => resolve(true))
    socket.once('error', () => resolve(false))
  })
  socket.destroy()
  return connected
}
