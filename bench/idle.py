"""An idle reconcile of 1,000 services: CPU of one cycle, and memory, with real Git, journal and engine adapter."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from statistics import median

import docker

from bench.figure import Figure
from bench.fleet import daemon, ground, manifest, replaced
from reconciler.core import names
from tests.support.fleet_house import ROOT, FleetHouse

SERVICES = 1000
CYCLES = 10


def run() -> list[Figure]:
    """Ten idle cycles in a process of its own against the stub engine; the median."""
    with ground() as (host, images, directory):
        client = docker.APIClient(host, version="auto", timeout=60)
        template = _template(client, FleetHouse(directory / "one", "bench", host), images["1.0"])
        (directory / "template.json").write_text(json.dumps(template))
        client.close()
        socket = directory / "stub.sock"
        command = [
            sys.executable,
            "-m",
            "bench.stub_engine",
            str(socket),
            str(directory / "template.json"),
            str(SERVICES),
        ]
        with subprocess.Popen(command, cwd=ROOT) as stub:
            try:
                while not socket.exists():
                    time.sleep(0.05)
                house = FleetHouse(directory / "many", "bench", f"unix://{socket}")
                house.prepare()
                for number in range(SERVICES):
                    service = f"s{number:04}"
                    house.write(service, manifest(images["1.0"]).replace("name: web", f"name: {service}"))
                house.push()
                measured = subprocess.run(
                    [sys.executable, "-m", "bench.idle_cycles", house.settings, str(CYCLES)],
                    cwd=ROOT,
                    check=False,
                    capture_output=True,
                    text=True,
                )
            finally:
                stub.kill()
    if measured.returncode != 0:
        raise SystemExit(measured.stdout + measured.stderr)
    found = json.loads(measured.stdout)
    if found["services"] != SERVICES or not found["synced"]:
        raise SystemExit(f"this was not an idle cycle of {SERVICES} services: {found}")
    cpu, memory = median(found["cpu"]), found["rss"]
    how = (
        f"{SERVICES} services in sync; engine answers from a stub that repeats one real container's; health not probed"
    )
    return [
        Figure("idle reconcile, CPU", cpu, "s", "<= 1", cpu <= 1, f"median of {CYCLES} cycles; {how}"),
        Figure("idle reconcile, memory", memory, "MiB", "<= 200", memory <= 200, f"resident after them; {how}"),
    ]


def _template(client: docker.APIClient, house: FleetHouse, image: str) -> dict[str, object]:
    """What the engine says of one real instance in traffic."""
    house.prepare()
    house.write("web", manifest(image))
    house.push()
    with daemon(house, client):
        while not replaced(house, client, image) or not _serving(client):
            time.sleep(0.05)
        label = {"label": f"{names.LABEL_ENVIRONMENT}=bench"}
        listed = client.containers(all=True, filters=label)[0]
        return {
            "listed": listed,
            "inspected": client.inspect_container(listed["Id"]),
            "images": client.images(),
            "networks": client.networks(filters=label),
            "info": client.info(),
        }


def _serving(client: docker.APIClient) -> bool:
    label = {"label": f"{names.LABEL_ENVIRONMENT}=bench"}
    found = client.inspect_container(client.containers(filters=label)[0]["Id"])
    return any("web" in (e["Aliases"] or ()) for e in found["NetworkSettings"]["Networks"].values())
