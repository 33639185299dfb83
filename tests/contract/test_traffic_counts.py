"""What the real proxies count: requests, errors, slow answers, rates, and what waits while no instance is up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from reconciler.core.delivery import Route
from reconciler.core.live import Served, ServerMode
from reconciler.core.proxy_config import RouteWish, fragment
from reconciler.core.steps import FreePlace
from tests.support.haproxy_house import Instance, RealHouse, until

READY, DRAIN, MAINT = ServerMode.READY, ServerMode.DRAIN, ServerMode.MAINT


@pytest.fixture
def house(tmp_path: Path) -> Iterator[RealHouse]:
    built = RealHouse(tmp_path)
    yield built
    built.close()


def served(house: RealHouse, instance: Instance) -> Served:
    return next(each.served for each in house.look().servers if (each.address, each.port) == instance.at)


def bucket(house: RealHouse, key: str, number: int) -> None:
    house.proxies[0].say(f"set table {house.backend} key {key} data.gpc0 {number}")


def test_requests_and_errors_of_each_instance(house: RealHouse) -> None:
    a, b = house.instance("a"), house.instance("b")
    house.shift(a.share())
    for path, status in (("/", 200), ("/fail", 500), ("/", 200)):
        assert house.proxies[0].get(path)[0] == status
    house.shift(b.share(), a.share(DRAIN))
    house.proxies[0].get()
    assert (served(house, a).requests, served(house, a).errors) == (3, 1)
    assert (served(house, b).requests, served(house, b).errors) == (1, 0)


def test_a_refused_connection_is_an_error(house: RealHouse) -> None:
    a = house.instance("a")
    house.shift(a.share())
    house.proxies[0].say(f"disable health {house.backend}/s1")
    a.stop()
    assert house.proxies[0].get()[0] == 503
    assert (served(house, a).requests, served(house, a).errors) == (1, 1)


def test_slow_answers_are_the_sum_of_the_buckets_above(house: RealHouse) -> None:
    a = house.instance("a")
    house.shift(a.share())
    for key, number in (("s1/1", 7), ("s1/10", 5), ("s1/5000", 2), ("s1/inf", 1), ("s2/10", 99)):
        bucket(house, key, number)
    slow = served(house, a).slow
    assert (slow[1], slow[5], slow[10], slow[2000], slow[5000]) == (8, 8, 3, 3, 1)


def test_a_place_that_is_given_to_another_address_counts_from_nothing(house: RealHouse) -> None:
    a, b = house.instance("a"), house.instance("b")
    house.shift(a.share())
    house.proxies[0].get("/fail")
    bucket(house, "s1/inf", 5)
    house.traffic.apply("prod", FreePlace(house.backend, *a.at))
    house.shift(b.share())
    house.proxies[0].get()
    assert (served(house, b).requests, served(house, b).errors, served(house, b).slow[5000]) == (1, 0, 0)


def test_counts_go_on_when_the_proxy_begins_anew(house: RealHouse) -> None:
    a = house.instance("a")
    house.shift(a.share())
    for _ in range(3):
        house.proxies[0].get()
    assert served(house, a).requests == 3
    house.proxies[0].kill()
    house.proxies[0].start()
    house.proxies[0].get()
    assert served(house, a).requests == 4


def test_at_the_first_look_of_a_new_daemon_counting_begins(house: RealHouse) -> None:
    a = house.instance("a")
    house.shift(a.share())
    house.proxies[0].get()
    house.traffic.close()
    house.traffic = house.build([house.proxies[0].address])
    assert served(house, a).requests == 0
    house.proxies[0].get()
    assert served(house, a).requests == 1


def test_the_rate_comes_from_the_growth_between_looks(house: RealHouse) -> None:
    house.shift(house.instance("a").share())
    assert house.look().rate == 0
    for _ in range(20):
        house.proxies[0].get()
    until(lambda: house.look().rate > 0, "a rate")


def test_a_connection_that_goes_on_is_a_session(house: RealHouse) -> None:
    a = house.instance("a")
    house.shift(a.share())
    with house.busy(a):
        assert (house.look().sessions, house.look().waiting) == (1, 0)
    assert house.look().sessions == 0


def rendered(wish: RouteWish) -> str:
    return fragment("prod", {"web": wish})


def test_the_rendered_backends_count_latency_by_bucket(tmp_path: Path) -> None:
    took: list[float] = []  # as the client sees it, which is longer than the proxy does

    @contextmanager
    def timed() -> Iterator[None]:
        began = time.monotonic()
        yield
        took.append(time.monotonic() - began)

    with closing(RealHouse(tmp_path, backends=rendered(RouteWish("web", Route(80), 2)))) as house:
        a = house.instance("a")
        house.shift(a.share())
        for _ in range(4):
            with timed():
                assert house.proxies[0].get()[0] == 200
        with timed(), closing(house.proxies[0].open("/slow")) as connection:
            until(lambda: house.sessions(a.at), "it is under way")
            a.go.wait(2.1)
            a.go.set()
            assert connection.getresponse().status == 200
        seen = served(house, a)
    assert seen.requests == 5
    assert 1 <= seen.slow[2000] <= sum(seconds > 2 for seconds in took), "one, unless this machine stood still"
    assert seen.slow[5000] <= sum(seconds > 5 for seconds in took)


def test_a_request_waits_for_a_service_that_is_asleep(tmp_path: Path) -> None:
    wish = RouteWish("web", Route(80), 2, wake=timedelta(seconds=20))
    with closing(RealHouse(tmp_path, backends=rendered(wish))) as house:
        house.traffic.watch(house.hint)
        assert house.look().waiting == 0
        with closing(house.proxies[0].open("/")) as connection:
            until(lambda: any("waits" in hint for hint in house.hints), "a hint")
            assert house.look().waiting == 1
            house.shift(house.instance("a").share())
            assert connection.getresponse().read() == b"a"
            assert house.look().waiting == 0
