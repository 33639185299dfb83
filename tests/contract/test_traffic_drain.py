"""Real HAProxy, real requests: nothing that goes on is lost, and the declared split is the real one."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import SimpleNamespace

import pytest

from reconciler.adapters import haproxy_shift
from reconciler.core.errors import Retryable
from reconciler.core.live import ServerMode
from reconciler.core.steps import CutSessions
from tests.support.cluster import eventually
from tests.support.haproxy_house import PATIENCE, Instance, RealHouse, until

READY, DRAIN, MAINT = ServerMode.READY, ServerMode.DRAIN, ServerMode.MAINT


@pytest.fixture
def house(tmp_path: Path) -> Iterator[RealHouse]:
    built = RealHouse(tmp_path)
    yield built
    built.close()


@pytest.fixture
def pair(house: RealHouse) -> tuple[Instance, Instance]:
    return house.instance("old"), house.instance("new")


def not_up(house: RealHouse, new: Instance) -> None:
    """The proxy is asked to lead all to `new`, refuses each time, and says in the end that it did not come up."""
    house.within(1.0)

    def said() -> str:
        with pytest.raises(Retryable) as caught:
            house.shift(new.share())
        return caught.value.what

    eventually(lambda: "did not come up" in said())  # not if the proxy itself did not answer in that time
    house.within(PATIENCE)


def test_a_slow_request_in_flight_ends_well(house: RealHouse, pair: tuple[Instance, Instance]) -> None:
    old, new = pair
    house.shift(old.share())
    with house.busy(old):
        house.shift(old.share(DRAIN), new.share())
        assert {house.proxies[0].get()[:2] for _ in range(10)} == {(200, "new")}
        house.shift(old.share(MAINT), new.share())
        assert house.sessions(old.at) == 1
    assert house.sessions(old.at) == 0


def test_an_endless_one_goes_on_until_it_is_cut(house: RealHouse, pair: tuple[Instance, Instance]) -> None:
    old, new = pair
    house.shift(old.share())
    connection = house.proxies[0].open("/endless", Connection="Upgrade", Upgrade="echo")
    line = connection.sock
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += line.recv(1000)
    assert b" 101 " in answer
    for shares in ((old.share(DRAIN), new.share()), (old.share(MAINT), new.share()), (new.share(),)):
        house.shift(*shares)
        line.sendall(b"still here")
        assert line.recv(100) == b"still here"
        assert house.sessions(old.at) == 1
    for _ in range(2):
        house.traffic.apply("prod", CutSessions("old", house.backend, *old.at, 1))
    assert line.recv(100) == b""
    until(lambda: house.sessions(old.at) == 0, "cut")
    house.shift(new.share())
    assert house.table() == {new.at: (READY, 100)}
    connection.close()


def test_drain_keeps_a_client_by_its_cookie_and_maint_moves_him(
    house: RealHouse, pair: tuple[Instance, Instance]
) -> None:
    old, new = pair
    house.shift(old.share())
    cookie = house.proxies[0].get()[2]
    assert cookie
    house.shift(old.share(DRAIN), new.share())
    assert {house.proxies[0].get(cookie=cookie)[:2] for _ in range(5)} == {(200, "old")}
    assert house.proxies[0].get()[:2] == (200, "new")
    house.shift(old.share(MAINT), new.share())
    assert {house.proxies[0].get(cookie=cookie)[:2] for _ in range(5)} == {(200, "new")}


@pytest.mark.parametrize("share", [1, 5, 25, 50])
def test_the_split_is_the_declared_one(house: RealHouse, pair: tuple[Instance, Instance], share: int) -> None:
    old, new = pair
    house.shift(old.share(weight=100 - share), new.share(weight=share))
    seen = Counter(house.proxies[0].get()[1] for _ in range(200))
    assert seen["new"] == 2 * share
    assert seen["old"] == 200 - 2 * share


def test_weight_0_gets_no_new_requests(house: RealHouse, pair: tuple[Instance, Instance]) -> None:
    old, new = pair
    house.shift(old.share(), new.share(weight=0))
    assert {house.proxies[0].get()[1] for _ in range(20)} == {"old"}


def test_who_had_a_place_before_it_listened_is_proven_before_it_gets_weight(
    house: RealHouse, pair: tuple[Instance, Instance]
) -> None:
    old, new = pair
    new.healthy = False
    house.shift(old.share(), new.share(weight=0))
    not_up(house, new)
    assert {house.proxies[0].get()[:2] for _ in range(20)} == {(200, "old")}
    new.healthy = True
    until(lambda: all(server.up for server in house.look().servers), "the proxy finds it up")
    house.shift(new.share())
    assert {house.proxies[0].get()[:2] for _ in range(20)} == {(200, "new")}


def test_an_instance_that_the_proxy_finds_ill_never_gets_a_request(
    house: RealHouse, pair: tuple[Instance, Instance]
) -> None:
    old, new = pair
    new.healthy = False
    house.shift(old.share())
    not_up(house, new)
    assert {house.proxies[0].get()[:2] for _ in range(20)} == {(200, "old")}
    assert new.at in house.table()


def test_one_that_came_up_while_we_stood_still_is_looked_at_once_more(
    house: RealHouse, pair: tuple[Instance, Instance], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = pair
    new.healthy = False
    house.shift(old.share())
    calls = itertools.count()

    def standstill() -> float:
        """The clock of the shift: an hour goes by between its first look and what follows from that."""
        if next(calls) == 0:
            return 0.0
        new.healthy = True
        until(lambda: house.proxies[0].say(f"show stat {house.backend} 6 -1").count(",L7OK,") == 2, "both are up")
        return 3600.0

    monkeypatch.setattr(haproxy_shift, "time", SimpleNamespace(monotonic=standstill, sleep=time.sleep))
    house.shift(new.share())
    assert house.table() == {new.at: (READY, 100)}


def test_who_was_out_of_traffic_is_back_without_waiting_for_a_check(
    house: RealHouse, pair: tuple[Instance, Instance]
) -> None:
    old, new = pair
    house.shift(old.share())
    house.shift(old.share(MAINT), new.share())
    old.healthy = False
    house.shift(old.share(), new.share(MAINT))
    assert house.table() == {old.at: (READY, 100), new.at: (MAINT, 100)}


def test_ten_releases_under_load_lose_nothing(house: RealHouse) -> None:
    """Each instance is ended as soon as it is idle and out of traffic, as a release does; nothing is tried twice."""
    over = threading.Event()
    answers: list[Counter[int | str]] = [Counter() for _ in range(4)]

    def load(seen: Counter[int | str]) -> None:
        connection = HTTPConnection("127.0.0.1", house.proxies[0].port, timeout=60)
        while not over.is_set():
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
                seen[answer.status] += 1
            except (OSError, HTTPException) as error:
                seen[repr(error)] += 1
                connection.close()
        connection.close()

    old = house.instance("0")
    house.shift(old.share())
    threads = [threading.Thread(target=load, args=(seen,)) for seen in answers]
    for thread in threads:
        thread.start()
    for number in range(1, 11):
        new = house.instance(str(number))
        house.shift(old.share(DRAIN), new.share())
        until(lambda at=old.at: house.sessions(at) == 0, "idle")
        house.shift(old.share(MAINT), new.share())
        until(lambda at=old.at: house.sessions(at) == 0, "still idle")
        old.stop()
        house.shift(new.share())
        old = new
    over.set()
    for thread in threads:
        thread.join()
    total = sum(answers, Counter())
    assert set(total) == {200}
    assert total[200] > 100
