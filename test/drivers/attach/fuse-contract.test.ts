import t from 'tap'
import {FuseWay} from '../../../src/drivers/attach/fuse/fuse-way.js'
import {attachContract} from './attach-contract.js'
import {missing} from './support/attach-host.js'

const reason = await missing(new FuseWay(), 'mkfs.ext4')

if (reason === undefined) attachContract(t, () => new FuseWay())
else t.test('the way of nbdfuse and a loop device', {skip: reason}, async () => undefined)
