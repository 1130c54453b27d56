/** How far something is, on stderr. Disposing it without `succeed` or `fail` just takes it off the screen. */
export interface Progress extends Disposable {
  /** Replaces the text. May be called as often as there is news. */
  update(text: string): void
  succeed(text: string): void
  fail(text: string): void
}

/** A log file needs a sign of life and not every percent. */
const PLAIN_INTERVAL_MS = 10_000

/** A spinner on a terminal, plain lines in a log file or under cron. */
export async function startProgress(text: string, stream: NodeJS.WriteStream = process.stderr): Promise<Progress> {
  return canSpin(stream) ? spinner(text, stream) : plainLines(text, stream)
}

/** A terminal without a size, as `docker exec -t` or expect may give, makes ora clear lines for ever: it divides by the width. */
function canSpin(stream: NodeJS.WriteStream): boolean {
  return stream.isTTY && stream.columns > 0 && process.env.TERM !== 'dumb'
}

async function spinner(text: string, stream: NodeJS.WriteStream): Promise<Progress> {
  const {default: ora} = await import('ora')
  // ora would otherwise take over stdin, and with it Ctrl-C.
  const spinner = ora({text, stream, discardStdin: false}).start()
  return {
    update(text) {
      spinner.text = text
    },
    succeed: text => void spinner.succeed(text),
    fail: text => void spinner.fail(text),
    [Symbol.dispose]: () => void spinner.stop(),
  }
}

function plainLines(text: string, stream: NodeJS.WritableStream): Progress {
  let last = text
  let printedAt = performance.now()
  const print = (text: string): void => {
    last = text
    printedAt = performance.now()
    stream.write(`${text}\n`)
  }
  print(text)
  return {
    update(text) {
      if (text !== last && performance.now() - printedAt >= PLAIN_INTERVAL_MS) print(text)
    },
    succeed: print,
    fail: print,
    [Symbol.dispose]() {},
  }
}
