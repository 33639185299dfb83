"""Asks the daemon of this container whether it is ready: exit code 0 when it is. The port is an argument, 8480 else.

It reads nothing but the answer's status, and needs neither a shell nor curl.
"""

import http.client
import sys

port = int(sys.argv[1]) if len(sys.argv) > 1 else 8480
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
try:
    connection.request("GET", "/readyz")
    status = connection.getresponse().status
except OSError as error:
    sys.exit(f"the daemon does not answer at port {port}: {error}")
if status != 200:
    sys.exit(f"/readyz answers {status}")
