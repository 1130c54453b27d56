import {readFileSync, readdirSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {formatLayerMeta, newHeadMeta, parseLayerMeta} from '../../src/replica/layer-meta.js'
import {formatVolumeMeta, newVolumeMeta, parseVolumeMeta} from '../../src/replica/volume-meta.js'
import {upstreamReplica} from './support/fixture.js'

const VOLUME =
  '{"Size":67108864,"Head":"volume-head-002.img","Dirty":true,"Rebuilding":false,"Error":"",' +
  '"Parent":"volume-snap-a.img","SectorSize":512,"BackingFilePath":"","Encrypted":false}\n'

t.test("upstream's files come back byte for byte", async t => {
  const directory = upstreamReplica(t)
  const text = readFileSync(join(directory, 'volume.meta'), 'utf8')
  t.equal(formatVolumeMeta(parseVolumeMeta(text, 'volume.meta')), text)
  const layers = readdirSync(directory).filter(file => file.endsWith('.img.meta'))
  t.equal(layers.length, 5)
  for (const file of layers) {
    const meta = readFileSync(join(directory, file), 'utf8')
    t.equal(formatLayerMeta(parseLayerMeta(meta, file)), meta, file)
  }
})

t.test('volume.meta, golden', async t => {
  t.equal(formatVolumeMeta(parseVolumeMeta(VOLUME, 'volume.meta')), VOLUME)
  t.equal(
    formatVolumeMeta(newVolumeMeta(4096, 'volume-head-000.img')),
    '{"Size":4096,"Head":"volume-head-000.img","Dirty":false,"Rebuilding":false,"Error":"",' +
      '"Parent":"","SectorSize":512,"BackingFilePath":"","Encrypted":false}\n',
  )
})

t.test('an error text is escaped as Go escapes it, and any text comes back', async t => {
  const error = 'a <b> & "c"\n\u2028 \u00e9 \\'
  const text = formatVolumeMeta({...newVolumeMeta(4096, 'volume-head-000.img'), error})
  t.match(text, '"Error":"a \\u003cb\\u003e \\u0026 \\"c\\"\\n\\u2028 \u00e9 \\\\"')
  t.equal(parseVolumeMeta(text, 'volume.meta').error, error)
})

t.test('a volume.meta of an older upstream', async t => {
  const text = '{"head":"volume-head-000.img","SIZE":4096,"BackingFileName":"/base.qcow2","Surprise":[1]}'
  t.match(parseVolumeMeta(text, 'volume.meta'), {
    sizeBytes: 4096,
    head: 'volume-head-000.img',
    backingFile: '/base.qcow2',
    sectorBytes: 512,
    dirty: false,
    parent: '',
  })
})

t.test('a volume.meta that makes no sense is corrupt, and the error names the file', async t => {
  const broken: Record<string, string> = {
    'cut off': VOLUME.slice(0, 40),
    'not an object': '[1]',
    null: 'null',
    empty: '  ',
    'size not whole sectors': VOLUME.replace('67108864', '67108865'),
    'size negative': VOLUME.replace('67108864', '-512'),
    'size as text': VOLUME.replace('67108864', '"67108864"'),
    'size beyond exact numbers': VOLUME.replace('67108864', '9007199254741504'),
    'head outside the directory': VOLUME.replace('volume-head-002.img', '../volume-head-002.img'),
    'head is a snapshot': VOLUME.replace('volume-head-002.img', 'volume-snap-x.img'),
    'no head': VOLUME.replace('volume-head-002.img', ''),
    'parent outside the directory': VOLUME.replace('volume-snap-a.img', 'volume-snap-a/../../b.img'),
    'dirty as text': VOLUME.replace('true', '"true"'),
    'sector size': VOLUME.replace('512', '100'),
  }
  for (const [name, text] of Object.entries(broken)) {
    t.throws(() => parseVolumeMeta(text, '/r1/volume.meta'), {code: 'LH_CORRUPT', message: /^\/r1\/volume\.meta .*[Rr]ebuild/}, name)
  }
})

t.test("a layer's meta, golden", async t => {
  const head = newHeadMeta('volume-head-001.img', 'volume-snap-a.img', new Date('2026-11-20T09:39:34.651Z'))
  t.equal(
    formatLayerMeta(head),
    '{"Name":"volume-head-001.img","Parent":"volume-snap-a.img","Removed":false,"UserCreated":false,' +
      '"Created":"2026-11-20T09:39:34Z","Labels":null}\n',
  )
  const labelled = formatLayerMeta({...head, labels: {zone: 'b', 'a/b': '<x>', 'Z': ''}})
  t.match(labelled, '"Labels":{"Z":"","a/b":"\\u003cx\\u003e","zone":"b"}')
})

t.test('every key of a layer is optional', async t => {
  t.strictSame(parseLayerMeta('{"Parent":""}', 'x.meta'), {
    name: '',
    parent: '',
    removed: false,
    userCreated: false,
    created: '',
    labels: null,
  })
  t.strictSame(parseLayerMeta('{"Labels":{}}', 'x.meta').labels, {})
})

t.test("a layer's meta that makes no sense", async t => {
  const broken = ['{', '{"Parent":"volume-snap-a"}', '{"Parent":"a/volume-snap-a.img"}', '{"Labels":{"a":1}}', '{"Labels":[]}', '{"Removed":1}']
  for (const text of broken) t.throws(() => parseLayerMeta(text, 'x.meta'), {code: 'LH_CORRUPT'}, text)
})
