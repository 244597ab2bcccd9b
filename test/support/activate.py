"""Binds sockets and becomes a command that gets them from descriptor 3 on, as systemd passes them.

activate.py SOCKETS LIVES COMMAND…, with a JSON array of paths and [host, port] pairs. The command runs LIVES times, one
after the other, on the same sockets.
"""
import fcntl
import json
import os
import socket
import sys

passed = []
for where in json.loads(sys.argv[1]):
    bound = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET)
    bound.bind(where if isinstance(where, str) else tuple(where))
    bound.listen(16)
    passed.append(fcntl.fcntl(bound.fileno(), fcntl.F_DUPFD, 100))
    bound.detach()
for index, descriptor in enumerate(passed):
    os.dup2(descriptor, 3 + index, inheritable=True)
os.closerange(3 + len(passed), 200)
for life in range(int(sys.argv[2])):
    last = life == int(sys.argv[2]) - 1
    child = 0 if last else os.fork()
    if child == 0:
        os.environ["LISTEN_PID"] = str(os.getpid())
        os.environ["LISTEN_FDS"] = str(len(passed))
        os.execv(sys.argv[3], sys.argv[3:])
    os.waitpid(child, 0)
