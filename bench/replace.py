"""Push -> new version healthy and old one gone, beside a plain shell script that does the same by the docker CLI."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from statistics import median

import docker

from bench.figure import Figure
from bench.fleet import daemon, ground, manifest, pinned, replaced
from tests.support.fleet_house import FleetHouse

ROUNDS = 9
GOAL = 1.2
SCRIPT = r"""
set -eu
git -C mirror.git fetch -q "$ORIGIN" +refs/heads/main:refs/heads/main
image=$(git -C mirror.git show main:environments/bench/web.yaml | sed -n 's/^  image: //p')
docker pull -q "$image" >/dev/null
docker create --name "$NEW" --network "$NETWORK" --read-only --cap-drop ALL --security-opt no-new-privileges \
  --user 65532:65532 --pids-limit 512 "$image" >/dev/null
docker start "$NEW" >/dev/null
address=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$NEW")
healthy() {
  { exec 3<>"/dev/tcp/$address/8080"; } 2>/dev/null || return 1
  printf 'GET /healthz HTTP/1.0\r\n\r\n' >&3; read -r _ code _ <&3; exec 3>&-; [ "$code" = 200 ]
}
until healthy; do sleep 0.1; done
docker network disconnect "$NETWORK" "$NEW"; docker network connect --ip "$address" --alias web "$NETWORK" "$NEW"
if [ -n "$OLD" ]; then docker stop -t 5 "$OLD" >/dev/null; docker rm "$OLD" >/dev/null; fi
"""


def run() -> list[Figure]:
    """Nine releases each way, in turn, the image removed before each; medians and their ratio."""
    with ground() as (host, images, directory):
        client = docker.APIClient(host, version="auto", timeout=60)
        house = FleetHouse(directory, "bench", host)
        house.prepare()
        house.write("web", manifest(images["1.0"]))
        house.push()
        ours, theirs = [], []
        script = _Script(directory, house, host, client)
        with daemon(house, client):
            _await(house, client, images["1.0"])
            for number in range(ROUNDS):
                # Images of their own, so that each side pulls each time what the engine does not have.
                ours.append(_by_daemon(house, client, images["2.0" if number % 2 == 0 else "1.0"]))
                theirs.append(script.release(images["2.1" if number % 2 == 0 else "1.1"]))
            script.clean()
        client.close()
    ratio = median(ours) / median(theirs)
    how = f"median of {ROUNDS} releases, in turn with the script, each with a pull from the local registry"
    return [
        Figure("replace by Reconciler", median(ours) * 1000, "ms", "", None, f"git push -> old container gone; {how}"),
        Figure(
            "replace by shell script", median(theirs) * 1000, "ms", "", None, f"the same steps by docker CLI; {how}"
        ),
        Figure("replace ratio", ratio, "x", f"<= {GOAL}", ratio <= GOAL, "the first by the second"),
    ]


def _by_daemon(house: FleetHouse, client: docker.APIClient, image: str) -> float:
    _forget(client, image)
    house.write("web", manifest(image))
    begin = time.perf_counter()
    house.push()
    _await(house, client, image)
    return time.perf_counter() - begin


def _await(house: FleetHouse, client: docker.APIClient, image: str) -> None:
    end = time.monotonic() + 60
    while not replaced(house, client, image):
        if time.monotonic() > end:
            raise SystemExit(f"no release within a minute; see {house.directory / 'daemon.log'}")
        time.sleep(0.005)


def _forget(client: docker.APIClient, image: str) -> None:
    for known in client.images():
        if pinned(image) in (known["RepoDigests"] or ()):
            client.remove_image(known["Id"], force=True)


def _network(client: docker.APIClient, name: str) -> None:
    """A network with a configured subnet, as `docker network connect --ip` needs."""
    client.create_network(name)
    subnet = client.inspect_network(name)["IPAM"]["Config"][0]["Subnet"]
    client.remove_network(name)
    pool = docker.types.IPAMPool(subnet=subnet)
    client.create_network(name, ipam=docker.types.IPAMConfig(pool_configs=[pool]))


class _Script:
    """The script in a network of its own; the commit that it releases is pushed by the same `git push`."""

    def __init__(self, directory: Path, house: FleetHouse, host: str, client: docker.APIClient) -> None:
        self._directory, self._house, self._host, self._client = directory, house, host, client
        subprocess.run(["git", "init", "-q", "--bare", directory / "mirror.git"], check=True)
        self._origin = directory / "script.git"
        subprocess.run(["git", "clone", "-q", "--bare", house.origin, self._origin], check=True)
        house.git("remote", "add", "script", str(self._origin))
        _network(client, "script")
        self._old, self._count = "", 0

    def release(self, image: str) -> float:
        """One release by the script."""
        self._count += 1
        new = f"script-{self._count}"
        _forget(self._client, image)
        self._house.write("web", manifest(image))
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin",
            "DOCKER_HOST": self._host,
            "ORIGIN": str(self._origin),
            "NETWORK": "script",
            "NEW": new,
            "OLD": self._old,
        }
        begin = time.perf_counter()
        self._house.push(remote="script")
        subprocess.run(["bash", "-c", SCRIPT], env=environment, cwd=self._directory, check=True)
        taken = time.perf_counter() - begin
        self._old = new
        return taken

    def clean(self) -> None:
        """Remove what the script made."""
        self._client.remove_container(self._old, force=True)
        self._client.remove_network("script")
