import type {IncomingMessage, ServerResponse} from 'node:http'
import {asError, LonghornError, type ErrorKind} from '../../lib/errors.js'

/** An answer with this status. Senders try again after 5xx and 429, and give up after other 3xx and 4xx. */
export class Refusal extends Error {
  override readonly name: string = 'Refusal'

  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message)
  }
}

const STATUS_OF: Partial<Record<ErrorKind, number>> = {USAGE: 400, PROTOCOL: 400, NOT_FOUND: 404, CONFLICT: 409, CORRUPT: 422, NO_SPACE: 507}

export function answerJson(response: ServerResponse, text: string): void {
  response.setHeader('Content-Type', 'application/json')
  response.end(text)
}

/** Answers with the status of the error's kind; what cannot be told apart is 500. Whatever is left of the request is not read. */
export function answerFailure(response: ServerResponse, error: Error): void {
  if (response.headersSent) {
    response.destroy()
    return
  }
  const status = error instanceof Refusal ? error.status : error instanceof LonghornError ? (STATUS_OF[error.code.slice('LH_'.length) as ErrorKind] ?? 500) : 500
  response.statusCode = status
  response.setHeader('Content-Type', 'text/plain; charset=utf-8')
  if (!response.req.complete) response.setHeader('Connection', 'close')
  response.end(`${error.message}\n`)
}

/**
 * Hands the body of a request, of at most `limit` bytes, to `take`, piece by piece with its place in it; the next one is read when the one
 * before is done. Resolves to its length. Refusal 413 for a longer one. When `take` fails the rest is read and thrown away first:
 * a sender that is still sending might not see the answer.
 */
export async function receiveBody(request: IncomingMessage, limit: number, take: (data: Buffer, at: number) => Promise<void>): Promise<number> {
  const tooLong = (): Refusal => new Refusal(413, `the body is longer than the ${limit} bytes that it is for`)
  if (Number(request.headers['content-length'] ?? 0) > limit) throw tooLong()
  let received = 0
  let failure: Error | undefined
  for await (const chunk of request.iterator({destroyOnReturn: false}) as AsyncIterable<Buffer>) {
    if (received + chunk.length > limit) throw tooLong()
    if (failure === undefined) await take(chunk, received).catch((error: unknown) => (failure = asError(error)))
    received += chunk.length
  }
  if (failure !== undefined) throw failure
  return received
}
