"""The managed proxy in trouble: killed, half made, refused, in somebody's way; what it carried is there again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import docker
import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.docker_connection import Connection
from reconciler.adapters.docker_proxy import ManagedFront
from reconciler.core.delivery import Route
from reconciler.core.errors import Reason, Retryable, Stalled
from reconciler.core.live import ProxyStatus
from reconciler.core.proxy_config import RouteWish
from reconciler.failpoints import PROXY_FAILPOINTS
from reconciler.settings import DockerSettings
from tests.support.proxy_house import OWNER, ProxyHouse, until, web
from tools.ports import free_port

LATE = RouteWish("late", Route(8080, paths=("/late",)), 1)


@pytest.fixture
def house(
    engine: str, hello: Mapping[str, str], haproxy: str, raw: docker.APIClient, tmp_path: Path
) -> Iterator[ProxyHouse]:
    built = ProxyHouse(raw, engine, tmp_path, hello, haproxy)
    yield built
    built.demolish()


def ready(house: ProxyHouse) -> bool:
    return house.front.status()[0] is ProxyStatus.READY


def carrying(house: ProxyHouse) -> dict[str, tuple[str, str, str]]:
    """A proxy with a share and a drain, kept as the program keeps it; what its servers are."""
    house.ensure(web())
    backend = house.backend("web")
    house.put(backend, 1, house.instance("1.0"), weight=30)
    house.put(backend, 2, house.instance("2.0"), weight=70, state="drain")
    house.front.keep(0, house.say("show servers state"))
    servers = house.servers(backend)
    assert [seen[1:] for seen in servers.values()] == [("0", "30"), ("8", "70")]
    return servers


def test_a_killed_proxy_comes_back_with_weights_and_drains(house: ProxyHouse) -> None:
    before = carrying(house)
    os.kill(house.inspect()["State"]["Pid"], signal.SIGKILL)
    until(lambda: house.inspect()["RestartCount"] == 1 and ready(house), "it is back, without the daemon")
    assert house.servers(house.backend("web")) == before
    status, _, headers = house.get()
    assert (status, headers["x-version"]) == (200, "1.0")
    house.say(f"set server {house.backend('web')}/s1 weight 12")
    house.ensure(web(), LATE)
    assert house.servers(house.backend("web")) == {**before, "s1": (*before["s1"][:2], "12")}, "a reload saves first"


def test_one_killed_by_the_docker_command_is_started_again_with_weights_and_drains(house: ProxyHouse) -> None:
    """An engine may take that for a person's wish and leave it: then the next look starts it."""
    before = carrying(house)
    house.raw.kill(house.name)
    house.ensure(web())
    assert house.servers(house.backend("web")) == before


def test_a_corrupt_state_costs_what_was_in_it_and_no_more(house: ProxyHouse) -> None:
    carrying(house)
    (house.directory / "server.state").write_bytes(b"1\n# be_id be_na\xff\x00me\n7 rec." + os.urandom(2000))
    os.kill(house.inspect()["State"]["Pid"], signal.SIGKILL)
    until(lambda: house.inspect()["RestartCount"] == 1 and ready(house), "it is back")
    assert house.servers(house.backend("web")) == {}, "every slot is empty, for the program to fill"
    assert house.get()[0] == 503


def test_a_container_removed_by_hand_is_made_again_with_its_servers(house: ProxyHouse) -> None:
    before = carrying(house)
    house.raw.remove_container(house.name, force=True)
    assert house.front.status()[0] is ProxyStatus.ABSENT
    house.ensure(web())
    assert house.servers(house.backend("web")) == before


def test_one_taken_out_of_the_network_or_renamed_is_replaced(house: ProxyHouse) -> None:
    before = carrying(house)
    house.raw.disconnect_container_from_network(house.name, f"rec.{house.environment}")
    assert house.front.status()[1] == "", "it has to be ensured"
    house.ensure(web())
    house.raw.rename(house.name, f"{house.name}-by-hand")
    assert house.front.status()[1] == ""
    config = house.ensure(web())
    assert house.front.status() == (ProxyStatus.READY, config.digest, "")
    assert house.servers(house.backend("web")) == before


def test_one_paused_or_stopped_by_hand_goes_on(house: ProxyHouse) -> None:
    config = house.ensure(web())
    for harm in (house.raw.pause, house.raw.stop):
        harm(house.name)
        assert house.front.status()[0] is ProxyStatus.ABSENT
        house.ensure(web())
        assert house.front.status() == (ProxyStatus.READY, config.digest, "")


def test_other_settings_make_another_container_with_the_same_servers(house: ProxyHouse) -> None:
    before = carrying(house)
    house.say(f"set server {house.backend('web')}/s1 weight 11")
    house.made(http=("127.0.0.1", free_port()))
    assert house.front.status() == (ProxyStatus.READY, "", "the proxy is not the one that the settings ask for")
    house.ensure(web())
    assert house.servers(house.backend("web")) == {**before, "s1": (*before["s1"][:2], "11")}
    assert house.get()[0] == 200


def test_a_refused_configuration_leaves_the_one_before(house: ProxyHouse) -> None:
    before = carrying(house)
    config, other = house.config(web()), house.config(web(), LATE)
    with pytest.raises(Stalled, match=r"refuses its configuration.*balance only supports") as caught:
        house.front.ensure(other.digest, other.text.replace("balance roundrobin", "balance nonsense"))
    assert caught.value.reason is Reason.PROXY_REFUSED
    assert house.front.status() == (ProxyStatus.READY, config.digest, "")
    assert (house.directory / "haproxy.cfg").read_text() == config.text
    assert not list(house.directory.glob("*.proposed"))
    assert house.servers(house.backend("web")) == before


def test_a_first_configuration_that_is_refused_is_not_tried_for_ever(house: ProxyHouse) -> None:
    config = house.config(web())
    with pytest.raises(Stalled, match="balance only supports") as caught:
        house.front.ensure(config.digest, config.text.replace("balance roundrobin", "balance nonsense"))
    assert caught.value.reason is Reason.PROXY_REFUSED
    assert house.inspect()["State"]["Status"] == "exited"
    house.ensure(web())
    assert ready(house)


def test_a_strangers_container_is_never_touched(house: ProxyHouse) -> None:
    made = house.raw.create_container(house.proxy_image, name=house.name)
    with pytest.raises(Stalled) as caught:
        house.ensure(web())
    assert caught.value.reason is Reason.NAME_TAKEN
    assert house.front.status()[0] is ProxyStatus.ABSENT
    assert house.inspect()["Id"] == made["Id"]


def test_a_port_in_use_is_said_and_tried_again(house: ProxyHouse) -> None:
    assert house.settings.http is not None
    with socket.socket() as squatter:
        squatter.bind(house.settings.http)
        squatter.listen()
        with pytest.raises(Stalled) as caught:
            house.ensure(web())
        assert caught.value.reason is Reason.PORT_TAKEN
    house.ensure(web())
    assert ready(house)


def test_an_image_that_is_not_there_takes_nothing_away(house: ProxyHouse) -> None:
    before = carrying(house)
    house.made(image="nowhere.invalid/haproxy:1")
    with pytest.raises(Stalled, match=r"build\.sh") as caught:
        house.ensure(web())
    assert caught.value.reason is Reason.IMAGE_NOT_FOUND
    house.made(image="127.0.0.1:1/haproxy@sha256:" + "0" * 64)
    with pytest.raises(Retryable, match="is being fetched"):
        house.ensure(web())
    until(lambda: _fails_in_words(house), "the pull has failed, and says so")
    assert house.servers(house.backend("web")) == before


def _fails_in_words(house: ProxyHouse) -> bool:
    with pytest.raises(Retryable) as caught:
        house.ensure(web())
    return "is being fetched" not in caught.value.what


def test_an_image_named_by_digest_is_fetched(house: ProxyHouse, registry: str) -> None:
    repository = f"{registry}/haproxy-{house.environment}"
    house.raw.tag(house.proxy_image, repository, "test")
    said = list(house.raw.push(repository, tag="test", stream=True, decode=True, auth_config={}))
    digest = next(line["aux"]["Digest"] for line in said if "aux" in line)
    for name in (f"{repository}:test", f"{repository}@{digest}"):
        with suppress(docker.errors.ImageNotFound):
            house.raw.remove_image(name)
    house.made(image=f"{repository}:test@{digest}")
    with pytest.raises(Retryable, match="is being fetched"):
        house.ensure(web())
    until(lambda: _ensured(house), "the image is there")
    assert ready(house)


def _ensured(house: ProxyHouse) -> bool:
    try:
        house.ensure(web())
    except Retryable:
        return False
    return True


def test_an_engine_elsewhere_cannot_have_one(house: ProxyHouse) -> None:
    connection = Connection(DockerSettings("far", "tcp://127.0.0.1:1"))
    made = ManagedFront(house.environment, house.settings, connection, OWNER, house.data, SystemClock())
    with closing(made) as front:
        config = house.config(web())
        with pytest.raises(Stalled, match="HAProxy of your own") as caught:
            front.ensure(config.digest, config.text)
        assert caught.value.reason is Reason.PROXY_REFUSED
        assert front.status()[0] is not ProxyStatus.READY


def test_a_deep_directory_makes_no_socket_too_long(house: ProxyHouse) -> None:
    house.data = house.data / ("deep" * 20) / ("deeper" * 10)
    house.made()
    house.ensure(web())
    assert ready(house)
    assert "/proc/self/fd/" in house.front.sockets()[0]


def test_a_directory_that_cannot_be_used_is_said(house: ProxyHouse) -> None:
    (house.data / "proxy").write_text("a file")
    with pytest.raises(Stalled, match="directory of the proxy cannot be used") as caught:
        house.ensure(web())
    assert caught.value.reason is Reason.PROXY_REFUSED


def test_a_state_kept_by_several_threads_is_always_whole(house: ProxyHouse) -> None:
    house.ensure(web())
    states = [f"1\n# {letter * 200_000}\n" for letter in "abcd"]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda state: house.front.keep(0, state), states * 3))
    assert (house.directory / "server.state").read_text() in states


CHILD = """
import sys
from pathlib import Path
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.docker_connection import Connection
from reconciler.adapters.docker_proxy import ManagedFront
from reconciler.settings import DockerSettings, ProxySettings

environment, engine, owner, data, image, port, digest = sys.argv[1:]
settings = ProxySettings(image=image, http=("127.0.0.1", int(port)))
connection = Connection(DockerSettings("test", engine))
front = ManagedFront(environment, settings, connection, owner, Path(data), SystemClock())
front.ensure(digest, sys.stdin.read())
"""


def dies(house: ProxyHouse, failpoint: str, *wishes: RouteWish) -> bool:
    """Ensure in a program of its own; whether it died there."""
    config = house.config(*wishes)
    assert house.settings.http is not None
    words = (house.environment, house.engine, OWNER, str(house.data), house.settings.image)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *words, str(house.settings.http[1]), config.digest],
        check=False,
        input=config.text,
        text=True,
        capture_output=True,
        env={**os.environ, "RECONCILER_FAILPOINT": failpoint},
        timeout=60,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


FIRST, RELOAD, REPLACE = "made", "reloaded", "replaced"
MOMENTS = [
    *((FIRST, effect) for effect in ("config", "create", "start")),
    *((RELOAD, effect) for effect in ("state", "config", "reload")),
    *((REPLACE, effect) for effect in ("stop", "remove")),
]
DEATHS = [(moment, f"proxy.{when}_{effect}") for moment, effect in MOMENTS for when in ("before", "after")]


def test_each_failpoint_is_among_the_deaths() -> None:
    assert {failpoint for _, failpoint in DEATHS} == set(PROXY_FAILPOINTS)


@pytest.mark.parametrize(("moment", "failpoint"), DEATHS)
def test_a_death_while_it_is_changed_is_mended_by_the_next_ensure(
    house: ProxyHouse, moment: str, failpoint: str
) -> None:
    backend, wishes = house.backend("web"), (web(),)
    servers: dict[str, tuple[str, str, str]] = {}
    if moment != FIRST:
        house.ensure(web())
        house.put(backend, 1, "127.0.0.9", weight=42, state="drain")
        house.front.keep(0, house.say("show servers state"))
        servers = house.servers(backend)
        assert servers == {"s1": ("127.0.0.9", "8", "42")}
    if moment == RELOAD:
        wishes = (web(), LATE)
    elif moment == REPLACE:
        house.made(http=("127.0.0.1", free_port()))
    assert dies(house, failpoint, *wishes), "this failpoint is never hit: it guards nothing"
    config = house.ensure(*wishes)
    assert house.front.status() == (ProxyStatus.READY, config.digest, "")
    assert house.servers(backend) == servers
    assert house.get()[0] == 503


def test_one_that_hangs_is_a_status_within_the_time_of_the_settings(house: ProxyHouse) -> None:
    house.ensure(web())
    master = house.inspect()["State"]["Pid"]
    workers = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    for pid in map(int, workers):
        os.kill(pid, signal.SIGSTOP)
    house.made(timeout=timedelta(seconds=0.5))
    assert house.front.status()[0] is ProxyStatus.UNREACHABLE
    for pid in map(int, workers):
        os.kill(pid, signal.SIGCONT)
    until(lambda: ready(house), "it answers again")
