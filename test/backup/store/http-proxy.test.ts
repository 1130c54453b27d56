import {execFileSync, spawnSync} from 'node:child_process'
import {readFileSync} from 'node:fs'
import {createServer} from 'node:http'
import {connect, type AddressInfo} from 'node:net'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {proxyOf} from '../../../src/backup/store/http-proxy.js'
import type {BackupStore} from '../../../src/backup/store/backup-store.js'
import {openStore} from '../../../src/backup/store/open-store.js'
import {parseTargetUrl} from '../../../src/backup/target-url.js'
import {S3Server} from '../../support/s3-server.js'

const URL_TEXT = 's3://backups@eu-test-1/path/'

async function use(t: Test, env: Record<string, string>): Promise<void> {
  const store: BackupStore = await openStore(parseTargetUrl(URL_TEXT), {env})
  t.teardown(() => store.close())
  for (const name of ['one', 'two words & more']) {
    await store.put(`backupstore/${name}`, Buffer.alloc(100_000, name))
    t.ok((await store.get(`backupstore/${name}`, 1e6)).equals(Buffer.alloc(100_000, name)))
  }
  t.equal((await store.children('backupstore/')).objects.length, 2)
}

t.test('which proxy for which host', async t => {
  const env = {HTTP_PROXY: 'http://web:3128', https_proxy: 'tls:8080', NO_PROXY: 'inside.test, .below.test,10.0.0.0/8,192.168.1.5,other.test:81, 2001:db8::/32'}
  const of = (scheme: 'http' | 'https', host: string, port = 80): string | undefined => proxyOf(env, scheme, host, port)?.host
  t.equal(of('http', 's3.test'), 'web:3128')
  t.equal(of('https', 's3.test'), 'tls:8080')
  for (const host of ['localhost', '127.0.0.1', '127.1.2.3', '::1', 'inside.test', 'INSIDE.test', 's3.inside.test', 'a.below.test', '10.9.8.7', '192.168.1.5', '2001:db8::7']) t.equal(of('http', host), undefined, host)
  for (const host of ['notinside.test', 'below.test', '11.0.0.1', '192.168.1.50', '2001:db9::7', 'other.test']) t.equal(of('http', host), 'web:3128', host)
  t.equal(of('http', 'other.test', 81), undefined)
  t.equal(proxyOf({HTTP_PROXY: 'http://web:3128', NO_PROXY: '*'}, 'http', 's3.test', 80), undefined)
  t.equal(proxyOf({}, 'http', 's3.test', 80), undefined)
  t.throws(() => proxyOf({HTTP_PROXY: 'http://'}, 'http', 's3.test', 80), {code: 'LH_USAGE'})
  t.throws(() => proxyOf({HTTP_PROXY: 'https://web:1'}, 'http', 's3.test', 80), {code: 'LH_UNSUPPORTED', message: /through a proxy over https/})
  t.equal(proxyOf({HTTPS_PROXY: 'https://web:1'}, 'https', 's3.test', 443)?.host, 'web:1')
  t.throws(() => proxyOf({HTTP_PROXY: 'socks5://web:1'}, 'http', 's3.test', 80), {code: 'LH_UNSUPPORTED'})
})

t.test('over http the proxy gets the whole URL, in both styles of addressing', async t => {
  // The server takes whole URLs, so it is its own proxy. Nobody could find s3.test without one.
  for (const [style, host] of [['', 's3.test:9000'], ['true', 'backups.s3.test:9000'], ['false', 's3.test:9000']] as const) {
    const server = await new S3Server().start(t)
    const proxy = server.endpoint.replace('http://', 'http://user:p%40ss@')
    await use(t, {...server.env, AWS_ENDPOINTS: 'http://s3.test:9000', VIRTUAL_HOSTED_STYLE: style, HTTP_PROXY: proxy})
    t.ok(server.targets.length > 3)
    t.same(server.targets.filter(target => !target.startsWith(`${host} http://${host}/`)), [], host)
  }
})

t.test('a proxy that is not there', async t => {
  const env = {AWS_ENDPOINTS: 'https://s3.test', AWS_ACCESS_KEY_ID: 'key', AWS_SECRET_ACCESS_KEY: 'secret', HTTPS_PROXY: 'http://user:sEcret@127.0.0.1:9'}
  const error: unknown = await openStore(parseTargetUrl(URL_TEXT), {env}).catch((error: unknown) => error)
  t.match(error, {code: 'LH_UNREACHABLE', message: /the proxy 127\.0\.0\.1:9 cannot be used/})
  t.notMatch(String(error), /sEcret/)
  const six: unknown = await openStore(parseTargetUrl(URL_TEXT), {env: {...env, HTTPS_PROXY: 'http://[::1]:9'}}).catch((error: unknown) => error)
  t.match(six, {code: 'LH_UNREACHABLE', message: /the proxy \[::1\]:9 cannot be used/})
  t.notMatch(String(six), /ENOTFOUND/, 'it is an address')
})

const openssl = spawnSync('openssl', ['version']).status === 0

t.test('over https through a tunnel, with a certificate of its own', {skip: !openssl && 'openssl, which makes the certificate, is not installed'}, async t => {
  const dir = t.testdir()
  const files = {key: join(dir, 'key.pem'), cert: join(dir, 'cert.pem')}
  execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=test', '-addext', 'subjectAltName=DNS:s3.test,DNS:*.s3.test', '-keyout', files.key, '-out', files.cert], {stdio: 'ignore'})
  const tls = {key: readFileSync(files.key, 'utf8'), cert: readFileSync(files.cert, 'utf8')}
  const server = await new S3Server({tls}).start(t)
  const asked: string[] = []
  let refuse = false
  const proxy = createServer()
  proxy.on('connect', (request, socket) => {
    asked.push(`${request.url} ${String(request.headers['proxy-authorization'])}`)
    if (refuse) return void socket.end('HTTP/1.1 407 Proxy Authentication Required\r\n\r\n')
    const to = connect(Number(new URL(server.endpoint).port), '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n')
      to.pipe(socket).pipe(to)
    })
    for (const [one, other] of [[to, socket], [socket, to]]) one!.on('error', () => other!.destroy()).on('close', () => other!.destroy())
  })
  await new Promise<void>(resolve => proxy.listen(0, '127.0.0.1', resolve))
  t.teardown(() => proxy.close())
  const env = {...server.env, AWS_ENDPOINTS: 'https://s3.test', AWS_CERT: tls.cert, HTTPS_PROXY: `http://user:pass@127.0.0.1:${(proxy.address() as AddressInfo).port}`}
  await use(t, env)
  await use(t, {...env, VIRTUAL_HOSTED_STYLE: 'true'})
  t.same([...new Set(asked)], ['s3.test:443 Basic dXNlcjpwYXNz', 'backups.s3.test:443 Basic dXNlcjpwYXNz'])
  await t.rejects(openStore(parseTargetUrl(URL_TEXT), {env: {...env, AWS_CERT: ''}}), {code: 'LH_UNREACHABLE', message: /certificate/})
  refuse = true
  await t.rejects(openStore(parseTargetUrl(URL_TEXT), {env}), {code: 'LH_UNREACHABLE', message: /does not connect to s3\.test:443: HTTP 407/})
})
