"""Receives datagrams on a Unix socket, and prints each as a line of JSON. receive.py PATH, or @NAME for an abstract one."""
import json
import socket
import sys

path = sys.argv[1]
receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.bind("\0" + path[1:] if path.startswith("@") else path)
print(json.dumps({"bound": path}), flush=True)
while True:
    print(json.dumps({"datagram": receiver.recv(65536).decode()}), flush=True)
