// A process that attaches or detaches and dies on the way: `node attach-child.js JSON`.
import type {AttachRequest} from '../../../../src/drivers/attach/attach-way.js'
import {Attacher} from '../../../../src/drivers/attach/attacher.js'
import {FuseWay} from '../../../../src/drivers/attach/fuse/fuse-way.js'
import {KernelIscsiWay} from '../../../../src/drivers/attach/kernel-iscsi/kernel-iscsi-way.js'
import {KernelNbdWay} from '../../../../src/drivers/attach/kernel-nbd/kernel-nbd-way.js'

type Verb = 'attach' | 'detach'

export interface ChildOrder {
  /** Done before, all of it. */
  readonly first?: Verb
  readonly verb: Verb
  readonly way: string
  readonly request: AttachRequest
  readonly stateDirectory: string
  readonly deviceDirectory: string
  /** Number of the step of `verb` at which it kills itself, from 0; none if not given. */
  readonly dieAt?: number
}

/** Later ways add themselves here. */
const WAYS = [new FuseWay(), new KernelNbdWay(), new KernelIscsiWay()]

const {first, verb, way, request, stateDirectory, deviceDirectory, dieAt} = JSON.parse(process.argv[2] ?? '{}') as ChildOrder
/** Of `verb`; undefined as long as it has not begun. */
let steps: number | undefined
const attacher = new Attacher(WAYS, {
  stateDirectory,
  deviceDirectory,
  onStep(_volume, step) {
    if (steps === undefined) return
    if (steps === dieAt) process.kill(process.pid, 'SIGKILL')
    steps++
    console.log(step)
  },
})
const signal = AbortSignal.timeout(60_000)
if (first !== undefined) await perform(first)
steps = 0
await perform(verb)

async function perform(what: Verb): Promise<void> {
  if (what === 'attach') await attacher.attach(request, signal, way)
  else await attacher.detach(request.volume, {}, signal)
}
