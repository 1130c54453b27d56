import type {Address} from '../lib/address.js'
import {Cleanup} from '../lib/cleanup.js'
import {isKind, LonghornError, messageOf} from '../lib/errors.js'
import type {Log} from '../lib/log.js'
import type {Frontend, FrontendKind, FrontendOptions} from '../engine/frontends/frontend.js'
import type {Attacher} from './attach/attacher.js'
import {adoptExport, checkExportFree, openExport, type ServedAs} from './blockdev-export.js'

/** How long making or removing a device may take. */
const ATTACH_TIMEOUT_MS = 120_000

/** Serves the volume as a block device of this host, /dev/longhorn/VOL: an export for this host alone, attached here. */
export function blockdevFrontend(attacher: Attacher, way: string): FrontendKind {
  return {
    name: 'blockdev',
    checkFree: async (volume, listen) => {
      checkNoAddress(listen)
      await checkExportFree(volume, await attacher.plan(volume, way))
    },
    open: options => openBlockdev(attacher, way, options),
    // The device stays, and so does what is between it and the export's socket.
    adopt: async (options, from) => {
      const {device, servedAs, served} = from.state as ParkedDevice
      const start = await adoptExport(servedAs, options, {state: served, fds: from.fds})
      return () => frontendOf(attacher, options, device, servedAs, start())
    },
  }
}

/** What is handed over beside the sockets of the export. */
interface ParkedDevice {
  readonly device: string
  readonly servedAs: ServedAs
  readonly served: unknown
}

async function openBlockdev(attacher: Attacher, wanted: string, options: FrontendOptions): Promise<Frontend> {
  const {volume, log} = options
  checkNoAddress(options.listen)
  const plan = await attacher.plan(volume, wanted)
  await using undo = new Cleanup()
  const {endpoint, trim, frontend} = await openExport(plan, options)
  undo.add(frontend)
  const attached = await attacher.attach({volume, endpoint, trim}, AbortSignal.timeout(ATTACH_TIMEOUT_MS), plan.way)
  log.info({device: attached.device, way: attached.way}, 'attached')
  undo.move()
  return frontendOf(attacher, options, attached.device, plan, frontend)
}

function frontendOf(attacher: Attacher, {volume, log}: FrontendOptions, device: string, {takes, zeroesByTrim}: ServedAs, served: Frontend): Frontend {
  let closed: Promise<void> | undefined
  return {
    endpoint: device,
    resize: async sizeBytes => {
      await attacher.resize(volume, sizeBytes, AbortSignal.timeout(ATTACH_TIMEOUT_MS))
    },
    freeze: async () => {
      const frozen = await attacher.freeze(volume, AbortSignal.timeout(ATTACH_TIMEOUT_MS))
      log.info({mountPoints: frozen.mountPoints}, frozen.mountPoints.length > 0 ? 'file systems frozen' : 'nothing is mounted from the device: its cache was written back')
      return frozen
    },
    park: async deadline => {
      const parked = await served.park!(deadline)
      const state: ParkedDevice = {device, servedAs: {takes, zeroesByTrim}, served: parked.state}
      return {...parked, state, resume: () => parked.resume()}
    },
    close: graceMs => (closed ??= closeBlockdev(attacher, volume, served, graceMs, log)),
  }
}

function checkNoAddress(listen: Address | undefined): void {
  if (listen !== undefined) throw new LonghornError('USAGE', 'frontend blockdev makes a device of this host and takes no address to listen on')
}

/** The device goes first: what it still has in memory is written through the export, which goes afterwards. */
async function closeBlockdev(attacher: Attacher, volume: string, served: Frontend, graceMs: number | undefined, log: Log): Promise<void> {
  try {
    await detach(attacher, volume, log)
  } finally {
    await served.close(graceMs)
  }
}

/** An engine that is told to stop does: who still uses the device loses it, after what it had to say was written. */
async function detach(attacher: Attacher, volume: string, log: Log): Promise<void> {
  const polite = await attacher.detach(volume, {force: false}, AbortSignal.timeout(ATTACH_TIMEOUT_MS)).catch((error: unknown) => {
    if (!isKind(error, 'BUSY')) throw error
    log.warn({reason: messageOf(error)}, 'the device is in use and is taken away from its users')
    return undefined
  })
  const report = polite ?? (await attacher.detach(volume, {force: true}, AbortSignal.timeout(ATTACH_TIMEOUT_MS)))
  for (const warning of report.warnings) log.warn({warning}, 'detached')
}
