import type {Interval} from './exchange.js'

/** What receives one file. Ranges have been checked against the size. Errors are LonghornErrors of what the disk says. */
export interface Sink {
  /** The largest file that it takes, in bytes. */
  readonly maxBytes: number
  /** Begins; the file then has this size. Resolves to whether there was such a file, whose content the sender may compare. */
  open(sizeBytes: number): Promise<boolean>
  /** `data` belongs to the write until it is done. */
  write(data: Buffer, offset: number): Promise<void>
  /** The range becomes a hole. */
  punch(range: Interval): Promise<void>
  /** SHA-512 of a range; undefined unless all of it is data. */
  checksum(range: Interval): Promise<Buffer | undefined>
  /** The text of the recorded checksum, if it is current; see currentChecksumText(). */
  recorded(): Promise<string>
  /** Makes all of it durable; nothing comes after that. Not called when open() was not. */
  finish(): Promise<void>
  /** Lets go of it as it is. Safe after finish(), and twice. */
  abandon(): Promise<void>
}
