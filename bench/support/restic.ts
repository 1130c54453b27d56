import {execa} from 'execa'

/** restic with one repository: what backups are measured beside. */
export class Restic {
  readonly #env: Record<string, string>

  /** `env` has the credentials of the place. */
  constructor(repository: string, cacheDirectory: string, env: Record<string, string>) {
    this.#env = {
      RESTIC_REPOSITORY: repository,
      RESTIC_PASSWORD: 'bench',
      RESTIC_CACHE_DIR: cacheDirectory,
      AWS_ACCESS_KEY_ID: env.AWS_ACCESS_KEY_ID ?? '',
      AWS_SECRET_ACCESS_KEY: env.AWS_SECRET_ACCESS_KEY ?? '',
    }
  }

  /** Why it cannot be used; undefined when it can. */
  static async missing(): Promise<string | undefined> {
    const {failed} = await execa('restic', ['version'], {reject: false})
    return failed ? 'restic is not there: apt-get install restic' : undefined
  }

  async init(): Promise<void> {
    await this.#run('init')
  }

  async backup(file: string): Promise<void> {
    await this.#run('backup', '--quiet', file)
  }

  async restore(directory: string): Promise<void> {
    await this.#run('restore', 'latest', '--target', directory)
  }

  async #run(...args: string[]): Promise<void> {
    await execa('restic', args, {env: this.#env})
  }
}
