/** The local or remote address of a socket, read into one shared buffer: getsockname(2), getpeername(2). */
import * as S from "../../linux/Syscalls.ts"
import { memory } from "./Memory.ts"

/** The size of a `struct sockaddr_in6`. */
const sizeOfName = 28
const length = memory(4)
const lengthWords = new Int32Array(length.buffer)
const name = memory(sizeOfName)

/** The `struct sockaddr_in` or `sockaddr_in6` that was last read. */
export const nameBytes = new Uint8Array(name.buffer)
export const nameWords = new Int32Array(name.buffer)

export const readOwnName = (fd: number): boolean => {
  lengthWords[0] = sizeOfName
  return S.getsockname(fd, name.address, length.address) >= 0
}

/** The destination address before the kernel's tables redirected the connection. */
export const readOriginalName = (fd: number, family: 4 | 6): boolean => {
  lengthWords[0] = sizeOfName
  const level = family === 4 ? S.IPPROTO_IP : S.IPPROTO_IPV6
  return S.getsockopt(fd, level, S.SO_ORIGINAL_DST, name.address, length.address) >= 0
}

export const readPeerName = (fd: number): boolean => {
  lengthWords[0] = sizeOfName
  return S.getpeername(fd, name.address, length.address) >= 0
}
