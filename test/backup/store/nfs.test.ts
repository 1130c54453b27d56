import {join} from 'node:path'
import t from 'tap'
import {mountNfs} from '../../../src/backup/store/nfs-mount.js'
import {mountOptions, nfsClient, nfsLocation, nfsTarget} from '../../../src/backup/store/nfs-options.js'
import {openStore} from '../../../src/backup/store/open-store.js'
import {backupUrl, parseTargetUrl} from '../../../src/backup/target-url.js'
import {openLibrary} from '../../../src/lib/nfs/libnfs.js'

// What a server has a part in is in test/peers/nfs.test.ts.

t.test("upstream's URLs", async t => {
  const url = parseTargetUrl('nfs://server.example:/export/path/?nfsOptions=soft,timeo=330,retrans=3&backup=b1&volume=vv')
  t.equal(url.target, 'nfs://server.example:/export/path/?nfsOptions=soft,timeo=330,retrans=3')
  t.equal(backupUrl(url.target, 'vv', 'b1'), 'nfs://server.example:/export/path/?backup=b1&nfsOptions=soft,timeo=330,retrans=3&volume=vv')
  t.same(nfsTarget(url), {host: 'server.example', path: '/export/path', version: 4, port: undefined, mountPort: undefined, timeoutMs: 33_000})
  t.same(mountOptions(parseTargetUrl('nfs://s:/x?nfsOptions=soft&nfsOptions=vers=3,proto=tcp')), ['soft', 'vers=3', 'proto=tcp'])
  t.equal(parseTargetUrl(backupUrl(url.target, 'vv', 'b1')).target, url.target, 'options survive')
})

t.test('options', async t => {
  const target = (query: string) => nfsTarget(parseTargetUrl(`nfs://s:/x?nfsOptions=${query}`))
  t.match(target('nfsvers=3,port=1234,mountport=1235'), {version: 3, port: 1234, mountPort: 1235})
  for (const version of ['4', '4.0', '4.1', '4.2']) t.match(target(`vers=${version}`), {version: 4}, version)
  t.match(target('port=0,actimeo=1,hard,rsize=1048576'), {port: undefined, timeoutMs: 30_000})
  for (const wrong of ['vers=2', 'vers=5', 'port=x', 'port=70000', 'timeo=0', 'timeo=x', 'timeo=99999', 'nonsense', 'ro']) t.throws(() => target(wrong), {code: 'LH_USAGE', message: /nfsOptions/}, wrong)
  for (const kernel of ['sec=krb5p', 'proto=rdma', 'proto=udp', 'xprtsec=mtls']) t.throws(() => target(kernel), {code: 'LH_UNSUPPORTED', message: /nfsClient=kernel/}, kernel)
})

t.test('servers and paths', async t => {
  t.same(nfsLocation(parseTargetUrl('nfs://[fe80::1]:/a//b/')), {host: 'fe80::1', path: '/a/b'})
  t.same(nfsLocation(parseTargetUrl('nfs://10.0.0.1/a')), {host: '10.0.0.1', path: '/a'})
  for (const url of ['nfs://s', 'nfs://s:/', 'nfs:///x', 'nfs://u@s:/x', 'nfs://s:2049/x']) t.throws(() => nfsLocation(parseTargetUrl(url)), {code: 'LH_USAGE'}, url)
})

t.test('which client', async t => {
  const client = (query: string, env = {}) => nfsClient(parseTargetUrl(`nfs://s:/x?${query}`), env)
  t.equal(client(''), 'user')
  t.equal(client('nfsClient=kernel'), 'kernel')
  t.equal(client('', {LONGHORN_NFS_CLIENT: 'kernel'}), 'kernel')
  t.equal(client('nfsClient=user', {LONGHORN_NFS_CLIENT: 'kernel'}), 'user')
  t.throws(() => client('nfsClient=x'), {code: 'LH_USAGE'})
})

t.test('a missing library is named, and what can be done', async t => {
  t.throws(() => openLibrary(['libnfs.so.999']), {code: 'LH_UNSUPPORTED', message: /libnfs13 .*libnfs14 .*vfs:\/\//})
})

t.test('a mount that cannot be is refused, and says why', async t => {
  const folder = t.testdir({file: 'no directory'})
  const url = parseTargetUrl('nfs://127.0.0.1:/x?nfsClient=kernel&nfsOptions=port=1,retry=0,soft,timeo=10,retrans=1')
  await t.rejects(mountNfs(url, folder), {code: /LH_UNSUPPORTED|LH_UNREACHABLE|LH_TIMEOUT/})
  await t.rejects(mountNfs(url, join(folder, 'file')), {code: 'LH_UNSUPPORTED', message: /mounting needs root/})
})

t.test('a server that is not there', async t => {
  let library = true
  try {
    openLibrary(['libnfs.so.14', 'libnfs.so.13'])
  } catch {
    library = false
  }
  if (!library) t.pass('no libnfs', {skip: 'libnfs is not installed'})
  else await t.rejects(openStore(parseTargetUrl('nfs://127.0.0.1:/x?nfsOptions=port=1'), {env: {}}), {code: 'LH_UNREACHABLE', message: /127\.0\.0\.1/})
})
