import {ToolProcess, type Argv} from './tool-process.js'

/** nbdcopy writes a stream to the volume from its beginning. */
export class NbdcopyWriter {
  readonly #tool: ToolProcess

  constructor(uri: string) {
    this.#tool = new ToolProcess(NbdcopyWriter.command(uri))
  }

  static command(uri: string): Argv {
    return ['nbdcopy', '--flush', '-', uri]
  }

  /** Resolves when nbdcopy has taken it out of the pipe. */
  write(piece: Buffer): Promise<void> {
    const written = new Promise<void>((resolve, reject) => {
      this.#tool.child.stdin.write(piece, error => (error ? reject(error) : resolve()))
    })
    return this.#tool.while(written)
  }

  end(): Promise<void> {
    return this.#tool.end()
  }

  kill(): void {
    this.#tool.kill()
  }
}
