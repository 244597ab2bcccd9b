"""Begins TCP connections and leaves them at that, a SYN each: thousands of clients from one namespace, as root.

syns.py TARGET PORT FIRST_SOURCE SOURCES FIRST_PORT PORTS: from each of SOURCES addresses, PORTS source ports.
"""
import ipaddress
import socket
import struct
import sys

target, port, first_source, sources, first_port, ports = sys.argv[1:]
destination = int(ipaddress.IPv4Address(target))
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

# Five words of TCP header, SYN, and the window.
flags, window = 0x5002, 64240


def checksum(source, source_port):
    words = (source >> 16) + (source & 0xFFFF) + (destination >> 16) + (destination & 0xFFFF)
    words += socket.IPPROTO_TCP + 20 + source_port + int(port) + flags + window
    while words >> 16:
        words = (words & 0xFFFF) + (words >> 16)
    return words ^ 0xFFFF


for source in range(int(ipaddress.IPv4Address(first_source)), int(ipaddress.IPv4Address(first_source)) + int(sources)):
    ip = struct.pack("!BBHHHBBHII", 0x45, 0, 40, 0, 0, 64, socket.IPPROTO_TCP, 0, source, destination)
    for source_port in range(int(first_port), int(first_port) + int(ports)):
        tcp = struct.pack("!HHIIHHHH", source_port, int(port), 0, 0, flags, window, checksum(source, source_port), 0)
        raw.sendto(ip + tcp, (target, 0))
