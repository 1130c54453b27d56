// A volume that grows while a file system on its block device is mounted: the device grows with it, or it is said why not.
import {join} from 'node:path'
import t from 'tap'
import {blockVolume, mount, tracesOf, unmount, withoutBlockDevices} from './support/block-device-host.js'
import {fill, sumsNow} from './support/file-system.js'
import {longhorn} from './support/live-volume.js'
import {attempt, tool} from './support/tool.js'

const MIB = 1024 * 1024
const SIZE = 64 * MIB

t.test('a mounted device, and after it was made anew', {skip: await withoutBlockDevices('mkfs.ext4', 'e2fsck', 'resize2fs', 'blockdev')}, async t => {
  const volume = await blockVolume(t, SIZE)
  let device = await volume.start({frontend: 'blockdev'})
  const sizeOf = async (): Promise<number> => Number(await tool(['blockdev', '--getsize64', device]))
  await tool(['mkfs.ext4', '-q', '-F', device])
  const mountPoint = await mount(volume, device)
  const files = await fill(mountPoint, 8 * MIB)
  const expand = ['volume', 'expand', `${2 * SIZE}`, '--engine', volume.control] as const
  const {size, deviceNotice} = JSON.parse(await longhorn(...expand)) as {size: number; deviceNotice: string}
  t.equal(size, 2 * SIZE, 'the volume has grown')
  const fuse = volume.engine.log.some(({msg, way}) => msg === 'attached' && way === 'fuse')
  if (fuse) {
    t.equal(await sizeOf(), SIZE)
    t.match(deviceNotice, `${device} still has its old size`)
    t.match(deviceNotice, /detach it and attach it again/)
    t.match((await attempt([process.execPath, 'bin/longhorn', ...expand])).stderr, /longhorn frontend shutdown, then longhorn frontend start blockdev/, 'a person is told what to do')
    t.same(await sumsNow(mountPoint, files), files, 'it is used as before')
    await unmount(mountPoint)
    await longhorn('frontend', 'shutdown', '--engine', volume.control)
    device = (JSON.parse(await longhorn('frontend', 'start', 'blockdev', '--engine', volume.control)) as {endpoint: string}).endpoint
  } else {
    t.equal(deviceNotice, '')
    await unmount(mountPoint)
  }
  t.equal(await sizeOf(), 2 * SIZE)
  // Online it takes a privilege that containers lack.
  await tool(['sh', '-c', 'e2fsck -fy "$1" || [ $? -eq 1 ]', 'sh', device])
  await tool(['resize2fs', device])
  await tool(['mount', device, mountPoint])
  t.same(await sumsNow(mountPoint, files), files)
  await tool(['dd', 'if=/dev/urandom', `of=${join(mountPoint, 'more')}`, 'bs=1M', `count=${Math.ceil((SIZE / MIB) * 1.2)}`, 'conv=fsync', 'status=none'])
  await unmount(mountPoint)
  await tool(['e2fsck', '-f', '-n', device])
  await volume.stop()
  t.same(tracesOf(volume.name), [])
})
