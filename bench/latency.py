"""Webhook or file event -> the daemon's first call to the engine, seen at the engine's socket by a recording relay."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import threading
import time
import urllib.request
from pathlib import Path
from statistics import quantiles

import docker

from bench.figure import Figure
from bench.fleet import daemon, ground, manifest, replaced
from tests.support.fleet_house import FleetHouse
from tools.ports import free_port

ROUNDS = 40
GOAL = 150.0
SECRET = b"bench"


class Relay:
    """Forwards a unix socket and notes when a request passes."""

    def __init__(self, listen: Path, target: str) -> None:
        self._listen, self._target = listen, target
        self._seen = threading.Condition()
        self._times: list[float] = []
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True).start()
        ready.wait(10)

    async def _serve(self, ready: threading.Event) -> None:
        await asyncio.start_unix_server(self._connected, self._listen)
        ready.set()
        await asyncio.Event().wait()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_unix_connection(self._target)
            await asyncio.gather(self._pass(reader, far_writer, note=True), self._pass(far_reader, writer, note=False))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, note: bool) -> None:
        while data := await reader.read(65536):
            if note:
                with self._seen:
                    self._times.append(time.time())
                    self._seen.notify_all()
            writer.write(data)
            await writer.drain()
        writer.close()

    def quiet(self, seconds: float) -> None:
        """Wait until nothing passed for so long."""
        with self._seen:
            while self._seen.wait(seconds):
                pass

    def first_after(self, begin: float) -> float:
        """Seconds from `begin` to the first request after it."""
        with self._seen:
            self._seen.wait_for(lambda: bool(self._times) and self._times[-1] >= begin, 10)
            return next(moment for moment in self._times if moment >= begin) - begin


def run() -> list[Figure]:
    """Forty pushes noticed through the file system, and forty signed GitHub deliveries."""
    with ground() as (host, images, directory):
        relay = Relay(directory / "relay.sock", host.removeprefix("unix://"))
        client = docker.APIClient(host, version="auto", timeout=60)
        house = FleetHouse(directory, "bench", f"unix://{directory / 'relay.sock'}")
        (directory / "secret").write_bytes(SECRET)
        house.prepare()
        port = free_port()
        text = house.settings.read_text().replace('"127.0.0.1:0"', f'"127.0.0.1:{port}"')
        webhook = "poll: 1h, webhook: {forge: github, secretFile: secret}}"
        house.settings.write_text(text.replace("poll: 1h}", webhook))
        house.write("web", manifest(images["1.0"]))
        house.push()
        with daemon(house, client):
            while not replaced(house, client, images["1.0"]):
                time.sleep(0.05)
            files = [_pushed(house, relay, number) for number in range(ROUNDS)]
            hooks = [_delivered(house, relay, port) for _ in range(ROUNDS)]
        client.close()
    return [
        _figure("file event -> first engine call, p95", files, "a push to a watched local repository"),
        _figure("webhook -> first engine call, p95", hooks, "a signed GitHub push delivery, with the fetch it causes"),
    ]


def _figure(name: str, seconds: list[float], what: str) -> Figure:
    p95 = quantiles(seconds, n=20)[-1] * 1000
    return Figure(name, p95, "ms", f"<= {GOAL:g}", p95 <= GOAL, f"{ROUNDS} times {what}; seen at the engine's socket")


def _pushed(house: FleetHouse, relay: Relay, number: int) -> float:
    relay.quiet(0.3)
    (house.directory / "clone" / "README").write_text(str(number))
    house.git("add", "-A")
    house.git("commit", "-q", "-m", "change")
    house.git("push", "-q", "origin", "main")
    # The event is the moment at which the branch moved, not that at which the push came back.
    return relay.first_after((house.origin / "refs" / "heads" / "main").stat().st_mtime)


def _delivered(house: FleetHouse, relay: Relay, port: int) -> float:
    relay.quiet(0.3)
    url = f"file://{house.origin}"
    body = json.dumps({"ref": "refs/heads/main", "repository": {"clone_url": url}, "at": time.time()}).encode()
    signature = "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    headers = {"X-Hub-Signature-256": signature, "X-GitHub-Event": "push", "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/webhook/fleet", body, headers)
    begin = time.time()
    with urllib.request.urlopen(request, timeout=10) as answer:
        said = json.loads(answer.read())
    if not said.get("matched"):
        raise SystemExit(f"the delivery matched nothing: {said}")
    return relay.first_after(begin)
