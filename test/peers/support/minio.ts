import {execFile, spawn, type ChildProcess} from 'node:child_process'
import {existsSync} from 'node:fs'
import {mkdir, mkdtemp, rename, rm} from 'node:fs/promises'
import {homedir} from 'node:os'
import {join} from 'node:path'
import {promisify} from 'node:util'
import type {Test} from 'tap'
import {freePort} from '../../support/sockets.js'
import {until} from '../../support/until.js'

/** The version that is built; a Go module. */
const VERSION = 'v0.0.0-20260212201848-7aac2a2c5b7c'
/** Some four minutes on two cores. */
const BUILD_TIMEOUT_MS = 480_000

const run = promisify(execFile)

/** The MinIO server, built once from its Go module and kept in the user's cache. A text says why it cannot be had. */
export async function minioProgram(): Promise<{readonly path: string} | {readonly missing: string}> {
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'longhorn-tests', `minio-${VERSION}`)
  const path = join(cache, 'minio')
  if (existsSync(path)) return {path}
  try {
    await mkdir(cache, {recursive: true})
    const building = await mkdtemp(join(cache, 'build-'))
    try {
      const env = {...process.env, GOBIN: building, GOFLAGS: '-mod=mod', CGO_ENABLED: '0'}
      await run('go', ['install', `github.com/minio/minio@${VERSION}`], {env, timeout: BUILD_TIMEOUT_MS, cwd: building})
      await rename(join(building, 'minio'), path)
    } finally {
      await rm(building, {recursive: true, force: true})
    }
    return {path}
  } catch (error) {
    const [line = ''] = (error instanceof Error ? error.message : String(error)).split('\n')
    return {missing: `MinIO could not be built: ${line}`}
  }
}

/** A MinIO process with one bucket, `backups`, at a port that it keeps when it is started again. */
export class Minio {
  #child: ChildProcess | undefined
  #exited: Promise<void> = Promise.resolve()

  private constructor(
    readonly path: string,
    readonly directory: string,
    readonly port: number,
  ) {}

  /** Starts one that keeps its objects below `directory`, and waits until it serves. */
  static async start(path: string, directory: string): Promise<Minio> {
    // A folder there is a bucket.
    await mkdir(join(directory, 'data', 'backups'), {recursive: true})
    const minio = new Minio(path, directory, await freePort())
    await minio.start()
    return minio
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.port}`
  }

  /** What its clients have in their environment. */
  get env(): Record<string, string> {
    return {AWS_ENDPOINTS: this.endpoint, AWS_ACCESS_KEY_ID: 'longhorn-test', AWS_SECRET_ACCESS_KEY: 'longhorn-test-secret'}
  }

  async start(): Promise<void> {
    const env = {PATH: process.env.PATH, HOME: this.directory, MINIO_ROOT_USER: 'longhorn-test', MINIO_ROOT_PASSWORD: 'longhorn-test-secret', MINIO_BROWSER: 'off', MINIO_UPDATE: 'off', CI: 'true'}
    const child = spawn(this.path, ['server', '--quiet', '--address', `127.0.0.1:${this.port}`, join(this.directory, 'data')], {env, stdio: 'ignore'})
    this.#child = child
    this.#exited = new Promise<void>(resolve => child.once('exit', () => resolve()))
    await until(async () => (await fetch(`${this.endpoint}/minio/health/ready`).catch(() => undefined))?.status === 200, 'MinIO is ready', 60_000)
  }

  /** Ends it at once, as a crash does. Safe twice. */
  async kill(): Promise<void> {
    this.#child?.kill('SIGKILL')
    await this.#exited
  }
}

/** A server that ends with the test. Resolves to the environment of its clients. */
export async function startMinio(t: Test, path: string): Promise<Record<string, string>> {
  const minio = await Minio.start(path, t.testdir())
  t.teardown(() => minio.kill())
  return minio.env
}
