// Runs where the kernel has the module nbd; `npm run e2e:initiator -- contract` runs it in a guest that has.
import t from 'tap'
import {KernelNbdWay} from '../../../src/drivers/attach/kernel-nbd/kernel-nbd-way.js'
import {attachFaultContract} from './attach-contract.js'
import {missing} from './support/attach-host.js'

const reason = await missing(new KernelNbdWay(), 'mkfs.ext4')

if (reason === undefined) attachFaultContract(t, () => new KernelNbdWay({probeTimeoutMs: 2000}))
else t.plan(0, reason)
