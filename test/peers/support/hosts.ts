// Hosts of a test: network namespaces, each with a cable to this one that can be pulled.
import {execFileSync, spawnSync} from 'node:child_process'
import type {Test} from 'tap'

/** Of one process. */
const MOST_HOSTS = 16

let made = 0

/** Why there are none here, or false. */
export function withoutHosts(): string | false {
  if (process.getuid?.() !== 0) return 'making network namespaces needs root'
  const name = `lh-probe-${process.pid}`
  const {status, stderr, error} = spawnSync('ip', ['netns', 'add', name])
  if (error !== undefined || status !== 0) return `no network namespaces here: ${error?.message ?? stderr.toString().trim()}`
  execFileSync('ip', ['netns', 'delete', name])
  return false
}

/** Why packets cannot be disturbed here, or false. */
export function withoutNetem(): string | false {
  const absent = withoutHosts()
  if (absent !== false) return absent
  const name = `lh-netem-${process.pid}`
  ip('netns', 'add', name)
  const {status, stderr, error} = spawnSync('tc', ['-n', name, 'qdisc', 'add', 'dev', 'lo', 'root', 'netem', 'delay', '1ms'])
  ip('netns', 'delete', name)
  return status === 0 ? false : `no netem here: ${error?.message ?? stderr.toString().trim().split('\n')[0]}`
}

/** A network namespace with an address of its own. It is removed after the test; what runs in it has to be ended before. */
export class Host {
  readonly name: string
  /** Its own address, and that of this side of the cable. */
  readonly address: string
  readonly gateway: string
  readonly #cable: string

  constructor(t: Test) {
    const number = made++
    this.name = `lh-${process.pid}-${number}`
    this.#cable = `lh${process.pid % 100_000}x${number}`
    // 198.18.0.0/15 is for measurements between networks (RFC 2544) and routed nowhere. Four addresses each, some hosts for every process.
    const first = ((process.pid * MOST_HOSTS + number) % 2 ** 15) * 4
    this.gateway = benchmarkAddress(first + 1)
    this.address = benchmarkAddress(first + 2)
    ip('netns', 'add', this.name)
    t.teardown(() => ip('netns', 'delete', this.name))
    ip('link', 'add', this.#cable, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', this.name)
    ip('address', 'add', `${this.gateway}/30`, 'dev', this.#cable)
    ip('link', 'set', this.#cable, 'up')
    this.#inside('address', 'add', `${this.address}/30`, 'dev', 'eth0')
    for (const device of ['lo', 'eth0']) this.#inside('link', 'set', device, 'up')
  }

  /** What runs a command there. Not by ip(8), which also gives it copies of all mounts: those of other tests could not be unmounted then. */
  get prefix(): readonly string[] {
    return ['nsenter', `--net=/var/run/netns/${this.name}`]
  }

  /** Nothing gets through from now on; neither side is told. */
  cut(): void {
    this.#inside('link', 'set', 'eth0', 'down')
  }

  mend(): void {
    this.#inside('link', 'set', 'eth0', 'up')
  }

  /** Has the cable work for a moment and not for the next, until the function that it gives is called. What is sent meanwhile is lost. */
  flicker(worksMs: number, failsMs: number): () => void {
    let timer: NodeJS.Timeout
    const step = (cut: boolean): void => {
      if (cut) this.cut()
      else this.mend()
      timer = setTimeout(step, cut ? failsMs : worksMs, !cut)
    }
    step(true)
    return () => {
      clearTimeout(timer)
      this.mend()
    }
  }

  /** Delays, reorders and loses packets from here to it, as tc-netem(8) is told. */
  disturb(...how: readonly string[]): void {
    execFileSync('tc', ['qdisc', 'replace', 'dev', this.#cable, 'root', 'netem', ...how], {stdio: ['ignore', 'ignore', 'pipe']})
  }

  #inside(...args: readonly string[]): void {
    ip('-n', this.name, ...args)
  }
}

function benchmarkAddress(index: number): string {
  return `198.${18 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`
}

function ip(...args: readonly string[]): void {
  execFileSync('ip', args, {stdio: ['ignore', 'ignore', 'pipe']})
}
