import {formatSize} from '../lib/sizes.js'
import type {ReplicaRebuildInfo} from '../protocol/proto/generated/controller.js'

/** A rebuild for people: `37 %, 1.2 GiB of 3.2 GiB, 180 MiB/s, 11 s left`. */
export function describeRebuild({done, total, elapsedMs}: ReplicaRebuildInfo): string {
  const share = total === 0n ? 100 : Math.min(100, Math.floor((Number(done) * 100) / Number(total)))
  const rate = elapsedMs === 0n ? 0 : (Number(done) * 1000) / Number(elapsedMs)
  const left = rate > 0 ? `, ${formatDuration(Math.ceil(Number(total - done) / rate))} left` : ''
  return `${share} %, ${formatSize(Number(done))} of ${formatSize(Number(total))}, ${formatSize(Math.round(rate))}/s${left}`
}

/** Seconds as people say them. */
export function formatDuration(seconds: number): string {
  if (seconds < 120) return `${Math.max(0, seconds)} s`
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`
  return `${(seconds / 3600).toFixed(1)} h`
}
