import type {DemoFile} from './demo-files.js'

/** One way to put files on the volume and to get them back: a file system, NBD tools, or the data protocol. */
export interface VolumeUser {
  /** What one waits for with each piece, for people: "written and synced". */
  readonly durably: string
  /** Appends a piece to file `index`, `at` bytes from its beginning. */
  append(index: number, at: number, piece: Buffer): Promise<void>
  /** All files are written. After this they survive a power cut. */
  finish(files: readonly DemoFile[], signal: AbortSignal): Promise<void>
  /** Lets go of the volume and takes it again, so that nothing is read from a cache of ours. */
  reopen(signal: AbortSignal): Promise<void>
  /** Reads every file back. Throws CORRUPT, naming the first that is not what was written. */
  verify(files: readonly DemoFile[], signal: AbortSignal): Promise<void>
  /** Lets go of the volume in good order. */
  leave(signal: AbortSignal): Promise<void>
  /** Gives up what this process holds of it, whatever it was doing. Safe at any time, and twice. */
  close(): Promise<void>
}
