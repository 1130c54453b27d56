// The contract between the attacher and the ways of making a block device. A way knows one mechanism (FUSE and a loop
// device, kernel NBD, iSCSI); everything that all of them need (locks, the record, the node in /dev/longhorn, what is
// still mounted) is the attacher's. test/drivers/attach/attach-contract.ts holds what every way must keep.
import type {Address, TcpAddress} from '../../lib/address.js'

/** An NBD export, as the engine's NBD frontend offers it. */
export interface NbdEndpoint {
  readonly kind: 'nbd'
  readonly address: Address
  /** The export's name; empty for the default one. */
  readonly exportName: string
}

/** A logical unit of an iSCSI target, as the engine's iSCSI frontend offers it. */
export interface IscsiEndpoint {
  readonly kind: 'iscsi'
  /** The portal. */
  readonly address: TcpAddress
  readonly iqn: string
  readonly lun: number
  /** Absolute path of a file, or folder, with the secrets, in the form that the frontend reads as well. No CHAP if not given. */
  readonly chapFile?: string
}

/** Where a volume is served. */
export type Endpoint = NbdEndpoint | IscsiEndpoint

export interface AttachRequest<E extends Endpoint = Endpoint> {
  readonly volume: string
  readonly endpoint: E
  /**
   * Size of the device in bytes, a multiple of 512; all of the export if not given. An export may be larger than the
   * volume: a way that cannot see its export grow can then still resize the device, up to the size of the export.
   */
  readonly sizeBytes?: number
  readonly readOnly?: boolean
  /**
   * What a range reads after TRIM. Some ways have only TRIM to say "make this zero" (the fuse way: a loop device turns
   * write-zeroes into a hole), and with `may-keep-data` file systems would read old data where they wrote zeros.
   * Such a way refuses an export that offers TRIM without this promise.
   */
  readonly trim: 'reads-zeros' | 'may-keep-data'
}

/** A block device of the kernel, by the name that the kernel gave it. */
export interface BlockNode {
  /** `loop3`, `nbd0`, `sdb`: the name below /sys/block. */
  readonly name: string
  readonly major: number
  readonly minor: number
}

export type Availability = {readonly ok: true} | {readonly ok: false; /** One line: what is missing and how to get it. */ readonly reason: string}

/** What a way finds of one attachment. */
export type Condition =
  /** Nothing of it exists. */
  | {readonly state: 'gone'}
  /** All of it is there; with `probe`, a read came back. */
  | {readonly state: 'up'; readonly node: BlockNode}
  /** Something is there, but not a working device. `node` if a device exists. */
  | {readonly state: 'down'; readonly reason: string; readonly node?: BlockNode}

/** Small facts in JSON that a way wants to find again after a crash. */
export type Notes = Readonly<Record<string, unknown>>

/** The place of one attachment, as a way sees it. */
export interface Slot {
  readonly volume: string
  /**
   * Random, another one for each attachment: what bears it (a file name, the source of a mount) is provably part of this
   * one, also among other containers' on this host. Undefined when the record is lost.
   */
  readonly id: string | undefined
  /** A directory of its own, below which the way may keep files and mount points; absent when there is nothing. */
  readonly directory: string
  /** What was last noted; undefined when nothing was, when it is unreadable, or when the machine was rebooted since. */
  readonly notes: Notes | undefined
  /** Adds to the notes. When this resolves they outlive this process. */
  note(more: Notes): Promise<void>
  /** To be called after every change to the system: tests end the process here. */
  step(name: string): void
}

/**
 * One way to make a block device of an endpoint. The attacher calls one method at a time per volume, holding its lock.
 * This process may be killed between any two system calls: `inspect` and `disconnect` must find what `connect` had made
 * from the notes and from the system itself, and must take nothing for their own that is not provably so.
 * Nothing here may wait without a limit, whatever has died or hangs.
 */
export interface AttachWay {
  readonly name: string
  /** The kind of endpoint that it can use; it is not asked to connect others. */
  readonly takes: Endpoint['kind']
  /** True when TRIM is its only word for "make this zero", so that it needs an export that promises zeros (AttachRequest.trim). */
  readonly zeroesByTrim: boolean
  /** Whether this host can do it. Changes nothing. */
  available(): Promise<Availability>
  /**
   * Makes the block device, with logical blocks of 512 bytes and a volatile write cache, so that a flush reaches the
   * endpoint. Called when nothing of the attachment exists. Whatever it leaves behind when it throws, `disconnect` removes.
   * Throws UNREACHABLE, TIMEOUT, PROTOCOL, UNSUPPORTED, IO, or the reason of `signal`.
   */
  connect(request: AttachRequest, slot: Slot, signal: AbortSignal): Promise<BlockNode>
  /** What is there. With `probe` it also reads from the device, which takes a few seconds if nobody answers. */
  inspect(slot: Slot, options: {readonly probe: boolean}): Promise<Condition>
  /**
   * Removes the device and everything under it, in whatever condition it is; nothing there is fine. Nobody uses it, as far
   * as the attacher could see. Throws BUSY when the kernel says otherwise, unless `force`: then users get errors.
   * Returns what the person who asked should know, one line each.
   */
  disconnect(slot: Slot, options: {readonly force: boolean}): Promise<readonly string[]>
  /** Makes a connected device larger; the endpoint already is. Throws UNSUPPORTED if this way or this attachment cannot. */
  resize(slot: Slot, sizeBytes: number, signal: AbortSignal): Promise<void>
}
