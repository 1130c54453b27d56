// Where the host's open-iscsi is. Its daemon, iscsid, belongs to the host; in a container we have to go where it lives: into its
// mount namespace, for its programs and files, and its network namespace, where it listens.
import {constants, existsSync, readdirSync, readFileSync, readlinkSync} from 'node:fs'
import {access, readFile} from 'node:fs/promises'
import {join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {LonghornError} from '../../../lib/errors.js'
import type {Availability} from '../attach-way.js'
import {isInstalled, searchPath, tryCommand, type CommandLimits, type CommandResult} from '../run-command.js'

/** Ours, and the host's where a container has it mounted. */
const PROC_FOLDERS = ['/proc', '/host/proc']
const SHORT_TIMEOUT_MS = 20_000
const START_TIMEOUT_MS = 10_000
const POLL_MS = 50
/** Debian keeps its records in the first, Red Hat and SUSE in the second. */
const RECORD_FOLDERS = ['/etc/iscsi/nodes', '/var/lib/iscsi/nodes']
const NAMESPACES = ['mnt', 'net'] as const

export class IscsiHost {
  /** `/proc/PID` of a process that lives where iscsid does; undefined when that is where we are. */
  readonly #guide: string | undefined

  private constructor(guide: string | undefined) {
    this.#guide = guide
  }

  static find(): IscsiHost {
    // The first process is the host's, or in a container that shares nothing with the host our own. Namespaces that we may
    // not see we cannot enter either.
    const guide = findDaemon() ?? ['/host/proc/1', '/proc/1'].find(process => linkOf(join(process, 'ns/mnt')) !== '')
    return new IscsiHost(guide === undefined || livesHere(guide) ? undefined : guide)
  }

  /** True when its initiator reaches what we listen on at our loopback interface. */
  get sharesNetwork(): boolean {
    return this.#guide === undefined || hasNamespace(this.#guide, 'net')
  }

  /** What is missing, in the order in which one would install it. Changes nothing. */
  async available(): Promise<Availability> {
    if (this.#guide !== undefined && !(await isInstalled('nsenter'))) {
      return {ok: false, reason: 'open-iscsi lives outside of this container, and nsenter is not installed: install the package util-linux'}
    }
    const missing = await this.#missing('iscsiadm', 'iscsid')
    if (missing !== undefined) return {ok: false, reason: `${missing} is not installed: install the package open-iscsi (Fedora: iscsi-initiator-utils) on the host`}
    const name = await readFile(this.path('/etc/iscsi/initiatorname.iscsi'), 'utf8').catch(() => '')
    if (!/^InitiatorName=\S/m.test(name)) {
      return {ok: false, reason: 'this host has no initiator name: write InitiatorName=… into /etc/iscsi/initiatorname.iscsi (iscsi-iname makes one up)'}
    }
    if (existsSync('/sys/module/iscsi_tcp')) return {ok: true}
    const {ok} = await this.run('modprobe', ['--dry-run', '--quiet', 'iscsi_tcp'], {timeoutMs: SHORT_TIMEOUT_MS})
    return ok ? {ok} : {ok, reason: 'the kernel has no module iscsi_tcp (on some systems it is in the package linux-modules-extra)'}
  }

  /** Sees to it that iscsid runs. Throws UNSUPPORTED when it cannot be started. */
  async startDaemon(signal: AbortSignal | undefined): Promise<void> {
    if (findDaemon() !== undefined) return
    const limits = {timeoutMs: SHORT_TIMEOUT_MS, ...(signal === undefined ? {} : {signal})}
    const systemd = existsSync(this.path('/run/systemd/system'))
    const {ok, stderr} = systemd ? await this.run('systemctl', ['start', 'iscsid'], limits) : await this.run('iscsid', [], limits)
    for (const deadline = performance.now() + START_TIMEOUT_MS; ok && performance.now() < deadline; await sleep(POLL_MS)) {
      if (findDaemon() !== undefined) return
    }
    throw new LonghornError('UNSUPPORTED', `iscsid does not run and cannot be started${stderr === '' ? '' : `: ${stderr}`}`)
  }

  /** Runs a program there. */
  async run(program: string, args: readonly string[], limits: CommandLimits): Promise<CommandResult> {
    if (this.#guide === undefined) return tryCommand(program, args, limits)
    const namespaces = [`--mount=${this.#guide}/ns/mnt`, `--net=${this.#guide}/ns/net`]
    // Its file system is another one, so programs are looked for by its own rules; env finds them.
    return tryCommand('nsenter', [...namespaces, '--', 'env', `PATH=${searchPath()}`, program, ...args], limits)
  }

  /** Where one of its files is for us. */
  path(file: string): string {
    return this.#guide === undefined ? file : join(this.#guide, 'root', file)
  }

  /** The folder in which iscsiadm keeps what it knows about this target; undefined when there is none. */
  recordFolder(iqn: string): string | undefined {
    return RECORD_FOLDERS.map(folder => this.path(join(folder, iqn))).find(existsSync)
  }

  async #missing(...programs: string[]): Promise<string | undefined> {
    for (const program of programs) if (!(await this.#has(program))) return program
    return undefined
  }

  async #has(program: string): Promise<boolean> {
    for (const folder of searchPath().split(':')) {
      const found = await access(this.path(join(folder, program)), constants.X_OK).then(() => true, () => false)
      if (found) return true
    }
    return false
  }
}

/** `/proc/PID` of iscsid; undefined when it does not run, as far as can be seen. */
function findDaemon(): string | undefined {
  for (const folder of PROC_FOLDERS) {
    for (const name of namesIn(folder)) {
      if (/^\d+$/.test(name) && textOf(join(folder, name, 'comm')).trim() === 'iscsid') return join(folder, name)
    }
  }
  return undefined
}

function livesHere(guide: string): boolean {
  return NAMESPACES.every(kind => hasNamespace(guide, kind))
}

function hasNamespace(guide: string, kind: (typeof NAMESPACES)[number]): boolean {
  return linkOf(join(guide, 'ns', kind)) === linkOf(`/proc/self/ns/${kind}`)
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    // It has ended meanwhile.
    return ''
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path)
  } catch {
    return ''
  }
}
