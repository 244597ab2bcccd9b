# Publishes a port through `portmapper rpc` until you press Enter. Usage: session.py REQUEST COMMAND …
import json, subprocess, sys
session = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
def call(method, params):
    print(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}), file=session.stdin, flush=True)
    return json.loads(session.stdout.readline())["result"]
bindings = call("MapPorts", json.loads(sys.argv[1]))["PortBindings"]
input(f"published {bindings[0]['FrontendPort']}\n")
print("unpublished", call("UnmapPorts", {"PortBindings": bindings}), flush=True)
session.stdin.close()
sys.exit(session.wait())
