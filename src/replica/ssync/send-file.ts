import {webcrypto} from 'node:crypto'
import type {TcpAddress} from '../../lib/address.js'
import {asError} from '../../lib/errors.js'
import {DIRECT_BYTES, PIECE_BYTES, type Interval} from './exchange.js'
import {ExchangeClient, type Patience} from './exchange-client.js'
import {toRecorded, type RecordedChecksum} from './recorded-checksum.js'
import type {SendSource, SourceInterval} from './send-source.js'

/** As many as upstream's. */
const WORKERS = 4

/** Syncing a large file on a slow disk takes longer than any other request. */
const CLOSE_MS = 300_000

export interface SendOptions {
  readonly to: TcpAddress
  /** For each request, in milliseconds. */
  readonly timeoutMs: number
  /** Upstream's peers then read and write past the page cache. Only where the size allows it. */
  readonly directIo: boolean
  /** What is recorded of the source, if that is current: a receiver that has recorded the same already has the file. */
  readonly recorded?: RecordedChecksum | undefined
  readonly patience?: Patience
  readonly signal?: AbortSignal
}

/**
 * Sends one file to a receiver, which ends with it, whatever comes of it. Where the receiver has the file already, only what differs is sent.
 * Rejects as ExchangeClient does, or with what reading failed with.
 */
export async function sendFile(source: SendSource, options: SendOptions): Promise<void> {
  const abort = new AbortController()
  const signal = options.signal === undefined ? abort.signal : AbortSignal.any([abort.signal, options.signal])
  const client = new ExchangeClient({...options, signal})
  try {
    if (options.recorded === undefined || !(await isIdentical(client, options.recorded))) {
      const existed = await client.open(source.sizeBytes, options.directIo && source.sizeBytes % DIRECT_BYTES === 0)
      await sendAll(source, client, existed, abort)
    }
    await client.close(options.recorded, Math.max(options.timeoutMs, CLOSE_MS))
  } catch (error) {
    // Without the checksum: upstream's receivers would record it for what is not the file. The failure is what is reported.
    await client.close(undefined, options.timeoutMs).catch(() => undefined)
    throw error
  } finally {
    client.destroy()
  }
}

async function isIdentical(client: ExchangeClient, recorded: RecordedChecksum): Promise<boolean> {
  const text = await client.recordedMetadata().catch(() => undefined)
  if (text === undefined) return false
  try {
    const there = toRecorded(text, 'the answer of the receiver')
    return there.method === recorded.method && there.checksum === recorded.checksum
  } catch {
    // Whatever that is, it is not the same checksum.
    return false
  }
}

async function sendAll(source: SendSource, client: ExchangeClient, existed: boolean, abort: AbortController): Promise<void> {
  const pieces = cut(source.intervals(), existed)
  const work = async (): Promise<void> => {
    for (let piece = await pieces.next(); piece.done !== true; piece = await pieces.next()) await sendPiece(source, client, existed, piece.value)
  }
  let failure: Error | undefined
  const fail = (error: unknown): void => {
    failure ??= asError(error)
    abort.abort(failure)
  }
  await Promise.all(Array.from({length: WORKERS}, () => work().catch(fail)))
  if (failure !== undefined) throw failure
}

async function sendPiece(source: SendSource, client: ExchangeClient, existed: boolean, piece: SourceInterval): Promise<void> {
  if (!piece.data) return client.sendHole(piece)
  const data = Buffer.allocUnsafeSlow(piece.end - piece.begin)
  if (!existed) {
    await source.read(data, piece.begin)
    return client.writeData(piece, data)
  }
  const [there] = await Promise.all([client.checksum(piece), source.read(data, piece.begin)])
  if (there !== undefined && there.equals(Buffer.from(await webcrypto.subtle.digest('SHA-512', data)))) return
  await client.writeData(piece, data)
}

/** Data in pieces; holes whole, and not at all for a receiver whose file is new and one hole. */
async function* cut(intervals: AsyncIterable<SourceInterval>, existed: boolean): AsyncGenerator<SourceInterval> {
  for await (const interval of intervals) {
    if (!interval.data) {
      if (existed) yield interval
      continue
    }
    for (const {begin, end} of piecesOf(interval)) yield {begin, end, data: true}
  }
}

function* piecesOf({begin, end}: Interval): Generator<Interval> {
  for (let at = begin; at < end; at += PIECE_BYTES) yield {begin: at, end: Math.min(end, at + PIECE_BYTES)}
}
