import {libcFunction} from './libc.js'

/** The size of a page of memory in bytes: 4096 nearly everywhere, 65536 on some ARM servers. */
export const PAGE_BYTES = libcFunction<() => number>('int getpagesize()')()
