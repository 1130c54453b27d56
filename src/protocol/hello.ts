// What a HELLO frame says: one line of text.
//   engine SESSION    requests of the engine that has opened the replica in this session
//   layer FILE        reads, block status and digests of one frozen layer alone, by its file name
//   view FILE         reads of the volume as it was when this layer was frozen
import {LonghornError} from '../lib/errors.js'

export type Hello =
  | {readonly kind: 'engine'; readonly session: string}
  | {readonly kind: 'layer' | 'view'; readonly layer: string}

export function formatHello(hello: Hello): string {
  return hello.kind === 'engine' ? `engine ${hello.session}` : `${hello.kind} ${hello.layer}`
}

/** Throws PROTOCOL for a text that says nothing known. */
export function parseHello(text: string): Hello {
  const match = /^(engine|layer|view) ([^\0-\x1f/]+)$/.exec(text)
  if (match === null) throw new LonghornError('PROTOCOL', 'a greeting that says neither "engine SESSION" nor "layer FILE" nor "view FILE"')
  const [, kind, name] = match as unknown as [string, Hello['kind'], string]
  return kind === 'engine' ? {kind, session: name} : {kind, layer: name}
}
