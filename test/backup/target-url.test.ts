import t from 'tap'
import {backupUrl, parseTargetUrl} from '../../src/backup/target-url.js'

t.test('selectors, options and the target are told apart', async t => {
  const url = parseTargetUrl('nfs://server:/export/path?nfsOptions=soft&backup=b-1&volume=vol')
  t.match(url, {scheme: 'nfs', path: '/export/path', volume: 'vol', backup: 'b-1'})
  t.equal(url.options.get('nfsOptions'), 'soft')
})

t.test('a bucket, with and without a region', async t => {
  t.match(parseTargetUrl('s3://bucket@eu-west-1/some/path/'), {user: 'bucket', host: 'eu-west-1', path: '/some/path/', target: 's3://bucket@eu-west-1/some/path/'})
  t.match(parseTargetUrl('s3://bucket/'), {user: '', host: 'bucket', path: '/'})
})

t.test('what Go prints and shells quote', async t => {
  for (const text of ['vfs:///s?backup=bb\\u0026volume=vv', 'vfs:///s?backup=bbu0026volume=vv', '"vfs:///s?backup=bb&volume=vv"']) {
    t.match(parseTargetUrl(text), {backup: 'bb', volume: 'vv', target: 'vfs:///s'}, text)
  }
  t.equal(backupUrl('vfs:///s', 'vv', 'bb'), 'vfs:///s?backup=bb&volume=vv')
})

t.test('a target that is printed is the same when it is read again', async t => {
  for (const path of ['/a%3Fb', '/a%23b', '/a%2525b', '/a%20b', '/%0Ab', '/ü+&=x', '/a%0A%3Fvolume=x']) {
    const {target, path: decoded} = parseTargetUrl(`vfs://${path}`)
    t.match(parseTargetUrl(target), {path: decoded, target, volume: undefined}, path)
    t.match(parseTargetUrl(backupUrl(target, 'vv', 'bb')), {path: decoded, target, volume: 'vv', backup: 'bb'}, path)
  }
  for (const text of ['s3://%ZZ@region/', 'vfs:///%ZZ', 's3://%00@region/']) t.throws(() => parseTargetUrl(text), {code: 'LH_USAGE', message: /not well-formed/}, text)
})

t.test('names from outside never become paths', async t => {
  for (const name of ['..', '.x', 'a', 'a/b', '%2e%2e%2fx', 'a%00b', 'x'.repeat(201)]) {
    t.throws(() => parseTargetUrl(`vfs:///s?volume=${name}`), {code: 'LH_USAGE'}, name)
  }
  t.throws(() => parseTargetUrl('vfs:///s?backup=bb'), {code: 'LH_USAGE', message: /no volume/})
  t.throws(() => parseTargetUrl('/just/a/path'), {code: 'LH_USAGE'})
})

t.test('a password is refused and not repeated', async t => {
  try {
    parseTargetUrl('s3://bucket:sEcret@region/path')
    t.fail('was accepted')
  } catch (error) {
    t.match(error, {code: 'LH_USAGE'})
    t.notMatch(String(error), /sEcret/)
  }
})
