"""An engine's answers without an engine: one real container's, repeated under a thousand names, on a unix socket.

A thousand real containers do not fit on a small machine; what the daemon does for each is the same.
"""

from __future__ import annotations

import copy
import json
import socketserver
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

from reconciler.core import names

Answers = Mapping[str, Any]


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 256


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answers: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        route = path.partition("/v1.41")[2] or path
        if route == "/events":
            self._events()
            return
        body = self.answers.get(route)
        self.send_response(404 if body is None else 200)
        content = body or b'{"message": "not in this stub"}'
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _events(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while True:
            time.sleep(3600)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing."""

    def address_string(self) -> str:
        """A unix socket has no peer address."""
        return "unix"


def answers(template: Answers, services: int) -> dict[str, bytes]:
    """The bodies by route, for `services` services of one instance each."""
    listed, found = [], {}
    for number in range(services):
        service, identity = f"s{number:04}", f"{number:064x}"
        box, inspected = copy.deepcopy(template["listed"]), copy.deepcopy(template["inspected"])
        name = names.instance("bench", service, box["Labels"][names.LABEL_VERSION], 0)
        box |= {"Id": identity, "Names": [f"/{name}"]}
        inspected |= {"Id": identity, "Name": f"/{name}"}
        box["Labels"][names.LABEL_SERVICE] = inspected["Config"]["Labels"][names.LABEL_SERVICE] = service
        for network in (box, inspected):
            for endpoint in network["NetworkSettings"]["Networks"].values():
                aliases = endpoint.get("Aliases") or []
                endpoint["Aliases"] = [service if alias == "web" else alias for alias in aliases]
        listed.append(box)
        found[f"/containers/{identity}/json"] = json.dumps(inspected).encode()
    return found | {
        "/containers/json": json.dumps(listed).encode(),
        "/images/json": json.dumps(template["images"]).encode(),
        "/networks": json.dumps(template["networks"]).encode(),
        f"/networks/{names.network('bench')}": json.dumps(template["networks"][0]).encode(),
        "/volumes": b'{"Volumes": []}',
        "/version": json.dumps({"ApiVersion": "1.41", "MinAPIVersion": "1.12"}).encode(),
        "/info": json.dumps(template["info"]).encode(),
        "/_ping": b"OK",
    }


def main() -> None:
    """`python -m bench.stub_engine SOCKET TEMPLATE SERVICES`, until it is killed."""
    socket, template, services = sys.argv[1:]
    _Handler.answers = answers(json.loads(Path(template).read_text()), int(services))
    with _Server(socket, _Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
