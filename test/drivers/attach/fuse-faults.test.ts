import t from 'tap'
import {FuseWay} from '../../../src/drivers/attach/fuse/fuse-way.js'
import {attachFaultContract} from './attach-contract.js'
import {missing} from './support/attach-host.js'

const reason = await missing(new FuseWay(), 'mkfs.ext4')

if (reason === undefined) attachFaultContract(t, () => new FuseWay({probeTimeoutMs: 2000}))
else t.test('the way of nbdfuse and a loop device', {skip: reason}, async () => undefined)
