import {execa} from 'execa'

/** One fio job, the same for both sides of a comparison. */
export interface FioJob {
  readonly name: string
  readonly rw: 'randwrite' | 'randread' | 'write' | 'read'
  readonly blockSize: string
  readonly depth: number
  /** More of fio's flags. */
  readonly more?: readonly string[]
}

export interface FioResult {
  readonly iops: number
  readonly bytesPerSecond: number
  /** 99th percentile of the completion latency, in microseconds. */
  readonly p99us: number
  readonly requests: number
}

interface FioSide {
  readonly iops: number
  readonly bw_bytes: number
  readonly total_ios: number
  readonly clat_ns: {readonly percentile?: Readonly<Record<string, number>>}
}

/** Runs one job through fio's nbd engine (libnbd, one connection) against `uri` for `seconds`; once over the whole size without. */
export async function runFio(uri: string, job: FioJob, seconds: number | undefined, sizeBytes: number): Promise<FioResult> {
  const {stdout} = await execa('fio', [
    `--name=${job.rw}`,
    '--ioengine=nbd',
    `--uri=${uri}`,
    `--rw=${job.rw}`,
    `--bs=${job.blockSize}`,
    `--iodepth=${job.depth}`,
    `--size=${sizeBytes}`,
    ...(seconds === undefined ? [] : [`--runtime=${seconds}`, '--time_based']),
    ...(job.more ?? []),
    '--randrepeat=1',
    '--output-format=json',
  ])
  // fio writes notes before its JSON.
  const report = JSON.parse(stdout.slice(stdout.indexOf('{'))) as {jobs: {read: FioSide; write: FioSide; error: number}[]}
  const [result] = report.jobs
  if (result === undefined || result.error !== 0) throw new Error(`fio failed: ${stdout.slice(0, 500)}`)
  const side = job.rw.includes('read') ? result.read : result.write
  return {
    iops: side.iops,
    bytesPerSecond: side.bw_bytes,
    p99us: (side.clat_ns.percentile?.['99.000000'] ?? 0) / 1000,
    requests: side.total_ios,
  }
}
