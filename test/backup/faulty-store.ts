import type {BackupStore, Folder, StoredObject} from '../../src/backup/store/backup-store.js'

export type StoreCall = 'list' | 'children' | 'head' | 'get' | 'put' | 'remove'

/** Around a store: `before` is called before every call and may wait, or throw what the call is to fail with. */
export class FaultyStore implements BackupStore {
  /** Calls by kind. */
  readonly calls: Record<StoreCall, number> = {list: 0, children: 0, head: 0, get: 0, put: 0, remove: 0}

  constructor(
    readonly real: BackupStore,
    public before: (call: StoreCall, key: string) => void | Promise<void> = () => undefined,
  ) {}

  get url(): string {
    return this.real.url
  }

  async *list(folder: string, signal?: AbortSignal): AsyncIterable<StoredObject> {
    await this.#call('list', folder)
    yield* this.real.list(folder, signal)
  }

  async children(folder: string, signal?: AbortSignal): Promise<Folder> {
    await this.#call('children', folder)
    return this.real.children(folder, signal)
  }

  async head(key: string, signal?: AbortSignal): Promise<StoredObject | undefined> {
    await this.#call('head', key)
    return this.real.head(key, signal)
  }

  async get(key: string, maxBytes: number, signal?: AbortSignal): Promise<Buffer> {
    await this.#call('get', key)
    return this.real.get(key, maxBytes, signal)
  }

  async put(key: string, data: Uint8Array, signal?: AbortSignal): Promise<void> {
    await this.#call('put', key)
    await this.real.put(key, data, signal)
  }

  async remove(key: string, signal?: AbortSignal): Promise<void> {
    await this.#call('remove', key)
    await this.real.remove(key, signal)
  }

  close(): Promise<void> {
    return this.real.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #call(call: StoreCall, key: string): Promise<void> {
    this.calls[call]++
    await this.before(call, key)
  }
}

/** All objects of a folder. */
export async function listed(store: BackupStore, folder: string): Promise<StoredObject[]> {
  const found: StoredObject[] = []
  for await (const object of store.list(folder)) found.push(object)
  return found
}
