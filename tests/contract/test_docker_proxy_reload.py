"""A new configuration on a real engine: what older workers go on with is seen and can be cut, and no shift is lost."""

from __future__ import annotations

import gc
import http.client
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import docker
import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.haproxy import HaproxyTraffic
from reconciler.adapters.haproxy_former import Former
from reconciler.core.delivery import Route, RouteMode
from reconciler.core.errors import Retryable
from reconciler.core.live import Backend, ServerMode
from reconciler.core.proxy_config import RouteWish
from reconciler.core.steps import CutSessions, EnsureProxy, FreePlace, Share, ShiftTraffic
from tests.contract.test_traffic_trouble import between
from tests.support.proxy_house import ProxyHouse, until, web
from tools.ports import free_port

LATE = RouteWish("late", Route(8080, paths=("/late",)), 1)
LATER = RouteWish("later", Route(8080, paths=("/later",)), 1)
KEEP_ALIVE = "timeout http-keep-alive 9s"
READY, DRAIN, MAINT = ServerMode.READY, ServerMode.DRAIN, ServerMode.MAINT


@pytest.fixture
def house(
    engine: str, hello: Mapping[str, str], haproxy: str, raw: docker.APIClient, tmp_path: Path
) -> Iterator[ProxyHouse]:
    built = ProxyHouse(raw, engine, tmp_path, hello, haproxy)
    yield built
    built.demolish()


class Traffic:
    """The environment of a house, steered by the program."""

    def __init__(self, house: ProxyHouse) -> None:
        self.house = house
        self.backend = house.backend("web")
        self.hints: list[str] = []
        self.again()

    def again(self, **changes: Any) -> None:
        """As after a start of the daemon, with its settings changed."""
        environment, front = self.house.environment, self.house.made(**changes)
        self.port = HaproxyTraffic({environment: front}, {environment: self.house.settings}, SystemClock())

    def text(self, *wishes: RouteWish) -> str:
        """As the program renders it, but idle clients may stay as long as a slow machine makes a test."""
        text = self.house.config(*wishes).text
        assert KEEP_ALIVE in text
        return text.replace(KEEP_ALIVE, "timeout http-keep-alive 60s")

    def ensure(self, *wishes: RouteWish) -> None:
        digest = self.house.config(*wishes).digest
        self.port.apply(self.house.environment, EnsureProxy(self.house.environment, digest, self.text(*wishes)))

    def shift(self, *shares: tuple[str, ServerMode]) -> None:
        table = tuple(Share(address, address, 8080, mode, 100) for address, mode in shares)
        self.port.apply(self.house.environment, ShiftTraffic(self.backend, "web", table))

    def look(self) -> Backend:
        return self.port.observe(self.house.environment).backends[self.backend]

    def sessions(self, address: str) -> int | None:
        return next((server.sessions for server in self.look().servers if server.address == address), 0)

    def returning(self, address: str) -> int:
        return next((server.returning for server in self.look().servers if server.address == address), 0)

    def mode(self, address: str) -> ServerMode | None:
        return next((server.mode for server in self.look().servers if server.address == address), None)

    def hint(self, _environment: str, words: str) -> None:
        self.hints.append(words)


@pytest.fixture
def traffic(house: ProxyHouse) -> Iterator[Traffic]:
    made = Traffic(house)
    made.ensure(web())
    yield made
    made.port.close()


@contextmanager
def asked(traffic: Traffic, slow: str = "") -> Iterator[http.client.HTTPConnection]:
    """A request that goes on until `answered`: the last byte of its body is missing. Or a whole one, of a slow path."""
    before = traffic.look().sessions
    with closing(traffic.house.connection_to()) as connection:
        if slow:
            connection.request("GET", slow)
        else:
            connection.putrequest("POST", "/")
            connection.putheader("Content-Length", "1")
            connection.endheaders()
        until(lambda: traffic.look().sessions > before, "the request goes on")
        yield connection


def answered(connection: http.client.HTTPConnection) -> int:
    """Let the request end; the status of its answer."""
    connection.send(b"x")
    return connection.getresponse().status


def test_what_goes_on_in_older_workers_is_seen_until_it_ends(traffic: Traffic) -> None:
    old, new = traffic.house.instance("1.0"), traffic.house.instance("2.0")
    traffic.shift((old, READY))
    traffic.port.watch(traffic.hint)
    with asked(traffic) as first:
        traffic.ensure(web(), LATE)
        with asked(traffic) as second:
            traffic.ensure(web(), LATE, LATER)
            assert traffic.sessions(old) == 2, "one in each of the two older workers"
            assert traffic.look().sessions == 2
            traffic.shift((old, DRAIN), (new, READY))
            traffic.shift((new, READY))
            assert (traffic.mode(old), traffic.sessions(old)) == (MAINT, 2), "with a place or without"
            assert [answered(connection) for connection in (first, second)] == [200, 200]
    until(lambda: any(f"{old}:8080 is idle in older workers" in hint for hint in traffic.hints), "its end is noticed")
    assert traffic.sessions(old) == 0


@contextmanager
def idle(traffic: Traffic) -> Iterator[http.client.HTTPConnection]:
    """A client that has got an answer and stays."""
    with closing(traffic.house.connection_to()) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().read().startswith(b"hello")
        until(lambda: traffic.look().sessions == 0, "the request has ended")
        yield connection


def test_a_client_that_is_idle_in_an_older_worker_is_waited_for(traffic: Traffic) -> None:
    """It may send one more request, and the older worker leads it by the old table: whatever the new one says."""
    old, new = traffic.house.instance("1.0"), traffic.house.instance("2.0")
    traffic.shift((old, READY))
    traffic.port.watch(traffic.hint)
    with idle(traffic) as connection:
        assert traffic.returning(old) == 0
        traffic.ensure(web(), LATE)
        traffic.shift((old, DRAIN), (new, READY))
        assert (traffic.returning(old), traffic.returning(new)) == (1, 0), "the older worker does not know the new one"
        traffic.shift((new, READY))
        assert (traffic.mode(old), traffic.sessions(old), traffic.returning(old)) == (MAINT, 0, 1)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert (answer.headers["X-Version"], answer.read()[:5]) == ("1.0", b"hello")
        assert answer.headers["Connection"] == "close", "that was its last one there"
    until(lambda: "clients of older workers have left" in " ".join(traffic.hints), "it is gone, and that is noticed")
    assert traffic.mode(old) is None


def test_an_older_worker_leads_nobody_to_a_place_that_it_holds_in_maintenance(traffic: Traffic) -> None:
    old, new = traffic.house.instance("1.0"), traffic.house.instance("2.0")
    traffic.shift((old, READY))
    with asked(traffic) as connection:
        traffic.shift((old, DRAIN), (new, READY))
        traffic.shift((new, READY))
        traffic.ensure(web(), LATE)
        assert (traffic.sessions(old), traffic.returning(old), traffic.returning(new)) == (1, 0, 1)
        assert answered(connection) == 200


def test_a_connection_of_tcp_is_one_session_and_comes_to_nobody_else(house: ProxyHouse, traffic: Traffic) -> None:
    port = free_port()
    base = RouteWish("base", Route(8080, RouteMode.TCP, listen=port), 1)
    house.made(tcp=((port, port),))
    traffic.again()
    traffic.ensure(web(), base)
    mine, theirs = house.instance(), house.instance()
    traffic.shift((mine, READY))
    house.put(house.backend("base"), 1, theirs)

    def seen() -> tuple[int | None, int]:
        (server,) = traffic.port.observe(house.environment).backends[house.backend("base")].servers
        return server.sessions, server.returning

    with socket.create_connection(("127.0.0.1", port)):
        until(lambda: seen() == (1, 0), "it goes on")
        traffic.ensure(web(), base, LATE)
        assert (seen(), traffic.returning(mine)) == ((1, 0), 0)
        with idle(traffic):
            traffic.ensure(web(), base, LATE, LATER)
            assert (seen(), traffic.returning(mine)) == ((1, 0), 1), "nor does one of HTTP come to it"


def test_a_new_daemon_sees_it_too(traffic: Traffic) -> None:
    address = traffic.house.instance()
    traffic.shift((address, READY))
    with asked(traffic) as connection:
        traffic.ensure(web(), LATE)
        traffic.again()
        assert traffic.sessions(address) == 1
        assert answered(connection) == 200
    until(lambda: traffic.sessions(address) == 0, "it has ended")


@pytest.mark.parametrize("how", ["cut", "free"])
def test_it_can_be_cut(traffic: Traffic, how: str) -> None:
    mine, other = traffic.house.instance("1.0"), traffic.house.instance("2.0")
    traffic.shift((mine, READY))
    with asked(traffic, "/slow?ms=60000") as doomed:
        traffic.shift((mine, DRAIN), (other, READY))
        with asked(traffic) as spared:
            traffic.ensure(web(), LATE)
            assert (traffic.sessions(mine), traffic.sessions(other)) == (1, 1)
            effect = (
                CutSessions(mine, traffic.backend, mine, 8080, 1)
                if how == "cut"
                else FreePlace(traffic.backend, mine, 8080)
            )
            traffic.port.apply(traffic.house.environment, effect)
            assert doomed.getresponse().status == 502
            assert answered(spared) == 200, "the other one goes on"


def test_the_master_is_asked_only_while_there_may_be_older_workers(traffic: Traffic) -> None:
    address = traffic.house.instance()
    traffic.shift((address, READY))
    traffic.ensure(web(), LATE)
    until(lambda: traffic.house.front.former() == (), "there is none any more")
    with stopped(traffic):
        assert traffic.sessions(address) == 0
        traffic.again(timeout=timedelta(seconds=2))
        state = traffic.port.observe(traffic.house.environment)
        assert [server.sessions for server in state.backends[traffic.backend].servers] == [None]
        assert "master does not answer" in state.said
    assert traffic.sessions(address) == 0


@contextmanager
def stopped(traffic: Traffic) -> Iterator[None]:
    """The master hangs; its worker goes on."""
    master = traffic.house.inspect()["State"]["Pid"]
    os.kill(master, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(master, signal.SIGCONT)


def test_no_shift_is_made_between_the_saved_state_and_the_new_worker(traffic: Traffic) -> None:
    old, new = traffic.house.instance("1.0"), traffic.house.instance("2.0")
    traffic.shift((old, READY))
    wanted = traffic.text(web(), LATE)
    reload = threading.Thread(target=traffic.ensure, args=(web(), LATE))
    shift = threading.Thread(target=traffic.shift, args=((new, READY),))
    with stopped(traffic):
        reload.start()
        config = traffic.house.directory / "haproxy.cfg"
        until(lambda: config.read_text() == wanted, "the state is saved, and the master is being asked")
        shift.start()
        shift.join(1.0)  # it would be through by then if nothing held it
        assert shift.is_alive(), "it may be done in a worker whose state was read already"
    reload.join()
    shift.join()
    assert (traffic.mode(old), traffic.mode(new)) == (None, READY)


def test_a_front_lets_go_of_its_connection(house: ProxyHouse) -> None:
    house.ensure(web())
    before = _open_files()
    front = house.made()
    assert front.status()[1]
    assert _open_files() > before
    front.close()
    assert _open_files() <= before


def _open_files() -> int:
    gc.collect()  # what tests before this one left to it would be closed in between, or not
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    "said", [b"", b"# old workers\n7 worker 1\n", b"x" * 9_000_000], ids=["nothing", "cut", "endless"]
)
def test_a_master_that_talks_nonsense_is_one_that_does_not_answer(tmp_path: Path, said: bytes) -> None:
    path = str(tmp_path / "master.sock")
    with between(Path(path), lambda _line: said), pytest.raises(Retryable, match="master does not answer"):
        Former(lambda: path, 0.3).texts()
