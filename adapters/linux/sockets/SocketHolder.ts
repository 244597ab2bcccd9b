/**
 * Which process has a socket, as far as `/proc` shows it: only to root or the process's own user, and not from
 * inside a container. Sources: proc_pid_fd(5), netlink_seq_show in net/netlink/af_netlink.c.
 */
import * as Fs from "node:fs"
import { attempt, readText } from "../../node/FileText.ts"

export const processOfSocket = (inode: string | undefined): number | undefined =>
  inode === undefined
    ? undefined
    : names("/proc")
        .filter((name) => /^\d+$/.test(name))
        .map(Number)
        .find((pid) =>
          names(`/proc/${pid}/fd`).some((fd) => link(`/proc/${pid}/fd/${fd}`) === `socket:[${inode}]`)
        )

/** The process with the netfilter socket of this network namespace that has this port id. */
export const netlinkInode = (portId: number): string | undefined =>
  lines("/proc/thread-self/net/netlink")
    .map((line) => line.trim().split(/\s+/))
    .find(([, protocol, port]) => protocol === "12" && port === `${portId}`)
    ?.at(-1)

export const lines = (path: string): ReadonlyArray<string> => readText(path)?.split("\n") ?? []

const names = (path: string): ReadonlyArray<string> => attempt(() => Fs.readdirSync(path)) ?? []

const link = (path: string): string | undefined => attempt(() => Fs.readlinkSync(path))
