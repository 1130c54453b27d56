// What a HELLO frame says: one line of text.
//   engine SESSION    requests of the engine that has opened the replica in this session
//   layer KEY FILE    reads, block status and digests of one frozen layer alone, by its file name. KEY is that of the digests, 64 hexadecimal digits
//   view FILE         reads of the volume as it was when this layer was frozen
import {LonghornError} from '../lib/errors.js'

export type Hello =
  | {readonly kind: 'engine'; readonly session: string}
  | LayerHello
  | {readonly kind: 'view'; readonly layer: string}

/** What connections that read something else than the volume say. */
export type ExportHello = Exclude<Hello, {kind: 'engine'}>

export interface LayerHello {
  readonly kind: 'layer'
  readonly layer: string
  /** DIGEST_KEY_BYTES. */
  readonly digestKey: Buffer
}

export function formatHello(hello: Hello): string {
  switch (hello.kind) {
    case 'engine':
      return `engine ${hello.session}`
    case 'layer':
      return `layer ${hello.digestKey.toString('hex')} ${hello.layer}`
    case 'view':
      return `view ${hello.layer}`
  }
}

/** Throws PROTOCOL for a text that says nothing known. */
export function parseHello(text: string): Hello {
  const match = /^(?:(engine|view)|layer ([0-9a-f]{64})) ([^\0-\x1f/]+)$/.exec(text)
  if (match === null) throw new LonghornError('PROTOCOL', 'a greeting that says neither "engine SESSION" nor "layer KEY FILE" nor "view FILE"')
  const [, kind, key, name] = match as unknown as [string, 'engine' | 'view' | undefined, string | undefined, string]
  if (key !== undefined) return {kind: 'layer', layer: name, digestKey: Buffer.from(key, 'hex')}
  return kind === 'engine' ? {kind, session: name} : {kind: 'view', layer: name}
}
