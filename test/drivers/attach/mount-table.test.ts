import t from 'tap'
import {parseMountInfo, readMounts} from '../../../src/drivers/attach/mount-table.js'

t.test('lines as the kernel writes them', async t => {
  const text = `24 27 0:6 / /dev rw,relatime shared:2 master:1 - devtmpfs devtmpfs rw,size=10k
42 27 0:39 / /run/longhorn/attach/volumes/v-1/mount rw,nosuid,nodev,relatime - fuse longhorn:v-1:0123 rw,user_id=0
61 27 7:12 /sub /mnt/a\\040b\\011\\134c rw - ext4 /dev/longhorn/v rw
`
  t.same(parseMountInfo(text), [
    {major: 0, minor: 6, mountPoint: '/dev', fileSystem: 'devtmpfs', source: 'devtmpfs'},
    {major: 0, minor: 39, mountPoint: '/run/longhorn/attach/volumes/v-1/mount', fileSystem: 'fuse', source: 'longhorn:v-1:0123'},
    {major: 7, minor: 12, mountPoint: '/mnt/a b\t\\c', fileSystem: 'ext4', source: '/dev/longhorn/v'},
  ])
})

t.test('nothing, and less than a line', async t => {
  t.same(parseMountInfo(''), [])
  t.same(parseMountInfo('24 27 0:6 / /dev rw,relatime'), [])
})

t.test('the table of this machine', async t => {
  t.ok((await readMounts()).some(({mountPoint}) => mountPoint === '/proc'))
})
