// The disk's vital product data, without the four bytes of header that all pages share. Offsets in comments are those of the
// standards, which count the header.
import type {Identity} from '../identity.js'
import {BLOCKS_PER_PHYSICAL, LIMIT} from '../geometry.js'
import {COPY_LIMIT} from '../copy-limits.js'
import {targetDesignators, unitDesignators} from './designators.js'
import {diskInquiry, DEVICE_TYPE, type InquiryData} from './inquiry-data.js'

const SBC_PAGE_BYTES = 0x3c
const SSD = 1
const UGAVALID = 0x8000_0000
/** What a page of the standards starts with. */
const HEADER = 4

export function diskInquiryData(identity: Identity): InquiryData {
  return {
    deviceType: DEVICE_TYPE.DISK,
    standard: diskInquiry(),
    pages: new Map<number, () => Buffer>([
      [0x80, () => Buffer.from(identity.serial, 'latin1')],
      [0x83, () => Buffer.concat([...unitDesignators(identity), ...targetDesignators(identity)])],
      [0x86, extendedInquiry],
      [0x87, modePagePolicy],
      [0x8f, thirdPartyCopy],
      [0xb0, blockLimits],
      [0xb1, characteristics],
      [0xb2, provisioning],
    ]),
  }
}

function extendedInquiry(): Buffer {
  const page = Buffer.alloc(SBC_PAGE_BYTES)
  page[5 - HEADER] = 0x01 // SIMPSUP: the only task attribute
  page[6 - HEADER] = 0x01 // V_SUP: a volatile cache
  return page
}

/** One line: all pages and subpages, shared by all initiators. */
function modePagePolicy(): Buffer {
  return Buffer.from([0x3f, 0xff, 0x00, 0x00])
}

function blockLimits(): Buffer {
  const page = Buffer.alloc(SBC_PAGE_BYTES)
  page[5 - HEADER] = LIMIT.COMPARE_AND_WRITE
  page.writeUInt16BE(BLOCKS_PER_PHYSICAL, 6 - HEADER)
  page.writeUInt32BE(LIMIT.TRANSFER, 8 - HEADER)
  page.writeUInt32BE(LIMIT.OPTIMAL_TRANSFER, 12 - HEADER)
  page.writeUInt32BE(LIMIT.UNMAP, 20 - HEADER)
  page.writeUInt32BE(LIMIT.UNMAP_DESCRIPTORS, 24 - HEADER)
  page.writeUInt32BE(BLOCKS_PER_PHYSICAL, 28 - HEADER)
  page.writeUInt32BE(UGAVALID, 32 - HEADER)
  page.writeBigUInt64BE(BigInt(LIMIT.WRITE_SAME), 36 - HEADER)
  // WRITE ATOMIC: the most at once, alignment, granularity. 56 to 63 stay zero: no atomic boundaries.
  page.writeUInt32BE(LIMIT.ATOMIC, 44 - HEADER)
  page.writeUInt32BE(BLOCKS_PER_PHYSICAL, 48 - HEADER)
  page.writeUInt32BE(BLOCKS_PER_PHYSICAL, 52 - HEADER)
  return page
}

function characteristics(): Buffer {
  const page = Buffer.alloc(SBC_PAGE_BYTES)
  page.writeUInt16BE(SSD, 4 - HEADER)
  page[7 - HEADER] = 0x40 // WABEREQ 01b: blocks read as zeros after SANITIZE BLOCK ERASE
  page[8 - HEADER] = 0x01 // VBULS: unmapped blocks can be verified against data
  return page
}

/**
 * LBPU, LBPWS, LBPRZ; thin. WRITE SAME(10) does not unmap: UNMAP and WRITE SAME(16) do. Unmapped blocks read as zeros also
 * where a snapshot holds data, because that is how UNMAP is carried out.
 */
function provisioning(): Buffer {
  return Buffer.from([0x00, 0xc4, 0x02, 0x00])
}

/** Descriptors of third-party copy: supported commands, parameter data, descriptors, general operations. */
function thirdPartyCopy(): Buffer {
  const commands = Buffer.from([0x83, 0x01, 0x00, 0x84, 0x02, 0x00, 0x03])
  const data = Buffer.alloc(28)
  data.writeUInt16BE(COPY_LIMIT.TARGETS, 4)
  data.writeUInt16BE(COPY_LIMIT.SEGMENTS, 6)
  data.writeUInt32BE(COPY_LIMIT.LIST_BYTES, 8)
  const general = Buffer.alloc(32)
  general.writeUInt32BE(COPY_LIMIT.CONCURRENT, 0)
  general.writeUInt32BE(COPY_LIMIT.CONCURRENT, 4)
  general.writeUInt32BE(COPY_LIMIT.SEGMENT_BYTES, 8)
  general[12] = COPY_LIMIT.GRANULARITY_EXPONENT
  return Buffer.concat([
    copyDescriptor(0x0001, Buffer.concat([Buffer.from([commands.length]), commands])),
    copyDescriptor(0x0004, data),
    copyDescriptor(0x0008, Buffer.from([COPY_LIMIT.DESCRIPTORS.length, ...COPY_LIMIT.DESCRIPTORS])),
    copyDescriptor(0x8001, general),
  ])
}

/** Padded so that the next one begins on four bytes. */
function copyDescriptor(type: number, content: Buffer): Buffer {
  const length = Math.ceil(content.length / 4) * 4
  const descriptor = Buffer.alloc(4 + length)
  descriptor.writeUInt16BE(type, 0)
  descriptor.writeUInt16BE(length, 2)
  content.copy(descriptor, 4)
  return descriptor
}
