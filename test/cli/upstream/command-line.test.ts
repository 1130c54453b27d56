import t from 'tap'
import {readCommandLine} from '../../../src/cli/upstream/command-line.js'

function read(line: string): string {
  const {argv, upstream} = readCommandLine(line.split(' ').filter(word => word !== ''))
  return `${upstream ? 'upstream' : 'ours'}: ${argv.join(' ')}`
}

t.test('what only upstream has, by name and short name', async t => {
  t.equal(read('info'), 'upstream: upstream info')
  t.equal(read('--url http://h:1 info'), 'upstream: upstream info --url http://h:1')
  t.equal(read('--url=http://h:1 --volume-name v --engine-instance-name=e ls'), 'upstream: upstream ls-replica --url=http://h:1 --volume-name v --engine-instance-name=e')
  t.equal(read('-url h:1 rm tcp://a:1'), 'upstream: upstream rm-replica tcp://a:1 --url h:1')
  t.equal(read('update-replica -mode ERR tcp://a:1 --url h:1'), 'upstream: upstream update-replica --mode ERR tcp://a:1 --url h:1')
  t.equal(read('hash-status s'), 'upstream: upstream snapshots hash-status s')
  t.equal(read('unmap-mark-snap --enable=true --disable=false'), 'upstream: upstream unmap-mark-snap-chain-removed --enable')
})

t.test('snapshots, alone and with a verb', async t => {
  t.equal(read('snapshots'), 'upstream: upstream snapshots ls')
  t.equal(read('snapshots --url h:1'), 'upstream: upstream snapshots ls --url h:1')
  t.equal(read('snapshots --help'), 'upstream: upstream snapshots --help')
  t.equal(read('snapshots create -label a=b -freeze-fs=false x'), 'upstream: upstream snapshots create --label a=b x')
})

t.test('a name that both have', async t => {
  t.equal(read('snapshot ls'), 'ours: snapshot ls')
  t.equal(read('snapshot ls --volume v --engine h:1'), 'ours: snapshot ls --volume v --engine h:1')
  t.equal(read('--debug snapshot ls'), 'ours: snapshot ls --debug')
  t.equal(read('--url h:1 snapshot ls'), 'upstream: upstream snapshots ls --url h:1')
  t.equal(read('snapshot ls --url h:1'), 'upstream: upstream snapshots ls --url h:1')
  t.equal(read('--volume-name v snapshot'), 'upstream: upstream snapshots ls --volume-name v')
  t.equal(read('--url h:1 frontend start nbd'), 'upstream: upstream frontend start nbd --url h:1')
  t.equal(read('frontend start nbd'), 'ours: frontend start nbd')
})

t.test('backups: what is about a store has no --url', async t => {
  t.equal(read('backup ls vfs:///s'), 'ours: backup ls vfs:///s')
  t.equal(read('backup ls --volume-only vfs:///s'), 'upstream: upstream backup ls --volume-only vfs:///s')
  t.equal(read('backup ls -volume v vfs:///s'), 'upstream: upstream backup ls --volume v vfs:///s')
  t.equal(read('backups list vfs:///s'), 'upstream: upstream backup ls vfs:///s')
  t.equal(read('backup head vfs:///s'), 'upstream: upstream backup head vfs:///s')
  t.equal(read('backup rm vfs:///s'), 'ours: backup rm vfs:///s')
  t.equal(read('backup delete vfs:///s'), 'upstream: upstream backup rm vfs:///s')
  t.equal(read('backup create vol --dest vfs:///s'), 'ours: backup create vol --dest vfs:///s')
  t.equal(read('--url h:1 backup create snap --dest vfs:///s'), 'upstream: upstream backup create snap --dest vfs:///s --url h:1')
  t.equal(read('--url h:1 backup status id'), 'upstream: upstream backup status id --url h:1')
  t.equal(read('backup verify vfs:///s'), 'ours: backup verify vfs:///s')
  t.equal(read('backup restore vfs:///s?backup=b --to-file f'), 'ours: backup restore vfs:///s?backup=b --to-file f')
  t.equal(read('backup restore-status'), 'ours: backup restore-status')
  t.equal(read('--url h:1 backup restore vfs:///s?backup=b'), 'upstream: upstream backup restore vfs:///s?backup=b --url h:1')
  t.equal(read('backup restore -concurrent-limit 2 vfs:///s?backup=b'), 'upstream: upstream backup restore --concurrent-limit 2 vfs:///s?backup=b')
  t.equal(read('backup restore-to-file vfs:///s?backup=b'), 'upstream: upstream backup restore-to-file vfs:///s?backup=b')
  t.equal(read('--url=h:1 backups restore-status'), 'upstream: upstream backup restore-status --url=h:1')
})

t.test('in full', async t => {
  t.equal(read('upstream snapshots ls'), 'upstream: upstream snapshots ls')
  t.equal(read('--url h:1 upstream info'), 'upstream: upstream info --url h:1')
})

t.test('what belongs to neither form is left alone', async t => {
  t.equal(read(''), 'ours: ')
  t.equal(read('--help'), 'ours: --help')
  t.equal(read('volume info v'), 'ours: volume info v')
  t.equal(read('snapshot create -- --url'), 'ours: snapshot create -- --url')
  t.equal(read('constructor'), 'ours: constructor')
  t.equal(read('nosuch --enable=true'), 'ours: nosuch --enable=true')
})

t.test('global flags stand before what ends the flags', async t => {
  t.equal(read('--url h:1 snapshots rm -- -odd-name'), 'upstream: upstream snapshots rm --url h:1 -- -odd-name')
  t.equal(read('--url'), 'upstream: --url')
})

t.test('the command lines of upstream\'s manager', async t => {
  t.equal(
    read('--engine-instance-name e controller v --frontend tgt-blockdev --salvageRequested=false --disableRevCounter --replica tcp://a:1 --listen :1'),
    'ours: controller v --frontend tgt-blockdev --disableRevCounter --replica tcp://a:1 --listen :1 --engine-instance-name e',
  )
  t.equal(
    read('--volume-name v replica /host/x --size 1 --sync-agent=false --encrypted=0 --listen :1'),
    'ours: replica /host/x --size 1 --no-sync-agent --listen :1 --volume-name v',
  )
  t.equal(read('replica d --sync-agent=true'), 'ours: replica d --sync-agent')
  t.equal(read('version --client-only'), 'ours: version --client-only')
  t.equal(read('--url h:1 version'), 'upstream: version --url h:1')
})
