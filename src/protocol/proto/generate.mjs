// `npm run proto`: writes generated/ anew from the .proto files beside this one. Needs protoc (Debian: protobuf-compiler).
// The result is committed, so that neither the build nor the tests need protoc.
import {spawnSync} from 'node:child_process'
import {mkdirSync, readdirSync, rmSync} from 'node:fs'
import {join} from 'node:path'
import {fileURLToPath} from 'node:url'

const here = fileURLToPath(new URL('.', import.meta.url))
const out = join(here, 'generated')

const OPTIONS = [
  // Plain tables of methods and codecs: src/protocol/grpc ties them to a transport, so the generated code imports none.
  'outputServices=generic-definitions',
  'outputClientImpl=false',
  'outputJsonMethods=false',
  'outputPartialMethods=false',
  // Nanoseconds since 1970, counters and sizes go beyond what a number can count; sizes are narrowed where they are used.
  'forceLong=bigint',
  // A plain object has names of its own (`constructor`, `__proto__`), and the keys come from the other side.
  'useMapType=true',
  'enumsAsLiterals=true',
  'unrecognizedEnum=false',
  'env=node',
  'esModuleInterop=true',
  'importSuffix=.js',
  'exportCommonSymbols=false',
  // Else every protoc of another version would change every file.
  'annotateFilesWithVersion=false',
]

rmSync(out, {recursive: true, force: true})
mkdirSync(out)
const {status, error} = spawnSync(
  'protoc',
  [
    `--plugin=${fileURLToPath(new URL('../../../node_modules/.bin/protoc-gen-ts_proto', import.meta.url))}`,
    `--proto_path=${here}`,
    `--ts_proto_out=${out}`,
    `--ts_proto_opt=${OPTIONS.join(',')}`,
    ...readdirSync(here).filter(name => name.endsWith('.proto')),
  ],
  {stdio: 'inherit'},
)
if (error?.code === 'ENOENT') console.error('protoc is not installed: apt-get install protobuf-compiler')
else if (error) throw error
process.exitCode = status ?? 1
