/** Data in flight, and replies that clients have not taken, of all connections of one frontend together. */
const TOTAL_BYTES = 256 * 1024 * 1024
/** More than this gains nothing: it is several times what a fast network needs in flight. */
const MOST_BYTES = 16 * 1024 * 1024

/**
 * How much memory each connection of a frontend may use: the fewer there are, the more each gets. Nobody waits for
 * memory that another connection holds, so a client that hangs does not stop the others.
 */
export class Budget {
  /** A request larger than this is still taken when it is the only one of its connection. */
  bytesPerConnection = MOST_BYTES
  #connections = 0

  enter(): void {
    this.#change(1)
  }

  leave(): void {
    this.#change(-1)
  }

  #change(by: 1 | -1): void {
    this.#connections += by
    this.bytesPerConnection = Math.min(MOST_BYTES, Math.floor(TOTAL_BYTES / Math.max(1, this.#connections)))
  }
}
