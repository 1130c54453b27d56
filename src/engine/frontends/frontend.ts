import type {Address} from '../../lib/address.js'
import type {Log} from '../../lib/log.js'
import type {BlockDevice} from '../../protocol/block-device.js'

/** What a frontend needs to serve one volume. */
export interface FrontendOptions {
  /** The volume's name, already checked. */
  readonly volume: string
  readonly device: BlockDevice
  /** Where to listen, if the user said so; else the frontend's own default. */
  readonly listen: Address | undefined
  readonly log: Log
  /** Of the frontends that serve iSCSI. */
  readonly iscsi?: IscsiSettings | undefined
}

/** Who may use an iSCSI target. Secrets are in a file, so that they are neither among the arguments nor in the environment of a process. */
export interface IscsiSettings {
  /**
   * A file with lines of open-iscsi's iscsid.conf (`node.session.auth.username = …`), or a folder with a file per key, as
   * Kubernetes mounts a secret. Undefined: initiators need not authenticate.
   */
  readonly chapFile?: string | undefined
  /** The names of the initiators that may log in. Undefined: all. */
  readonly allowedInitiators?: readonly string[] | undefined
  /** Folder of the files that keep persistent reservations over a restart. Undefined: they end with the engine. */
  readonly stateDirectory?: string | undefined
}

/** A volume being served to its initiators. */
export interface Frontend {
  /** How an initiator reaches it: `nbd+unix:///VOL?socket=…`, `/dev/longhorn/VOL`, a socket path. */
  readonly endpoint: string
  /** The volume has become larger: what does not notice by itself is told. Throws when it cannot be told; the volume stays usable as it was. */
  resize?(sizeBytes: number): Promise<void>
  /**
   * Has those file systems written out and unchanged that are mounted from the volume, until thaw() or, at the latest, after some
   * seconds: thaw() then throws TIMEOUT. Absent where the file systems are not on this host.
   */
  freeze?(): Promise<{thaw(): Promise<void>}>
  /**
   * Lets its initiators wait, answers what they have asked for, and says what another process needs to go on with them. Rejects with
   * TIMEOUT, and goes on by itself, when something is not answered before `deadline` (performance.now()). Absent when nobody can go on.
   */
  park?(deadline: number): Promise<ParkedFrontend>
  /**
   * Stops: takes no new connections, lets requests in flight finish (bounded by `graceMs`), closes. Leaves nothing
   * behind: no socket file, device node or process. Safe twice.
   */
  close(graceMs?: number): Promise<void>
}

/** What one process gives to another, to serve the same initiators. */
export interface FrontendHandover {
  /** Plain JSON. */
  readonly state: unknown
  /** Descriptors of sockets; `state` names them by their index here. */
  readonly fds: readonly number[]
}

/** A frontend whose initiators wait. Nothing is under way, and nothing is read or sent. */
export interface ParkedFrontend extends FrontendHandover {
  /** Goes on in this process, as if nothing had been. */
  resume(): void
}

/** One way to serve a volume; the engine chooses by name. Every kind passes test/engine/frontends/frontend-contract.ts. */
export interface FrontendKind {
  readonly name: string
  /**
   * Throws CONFLICT when the volume is being served already where open() would serve it, USAGE when it cannot be served there.
   * Changes nothing: it is asked before the replicas are taken over from an engine that may be running.
   */
  checkFree?(volume: string, listen: Address | undefined): Promise<void>
  /**
   * Prepares to go on with what a parked frontend of another process serves. What this resolves to starts it, at once, and nothing is
   * read, sent or accepted before the end of that turn. Throws PROTOCOL for a handover that it does not understand.
   */
  adopt?(options: FrontendOptions, from: FrontendHandover): Promise<() => Frontend>
  /** Starts to serve. Throws LonghornError (CONFLICT: the address is in use; UNSUPPORTED: this host lacks something). */
  open(options: FrontendOptions): Promise<Frontend>
}
