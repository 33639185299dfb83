"""What every `ports.Traffic` promises: one suite, run against the fake and against real HAProxy processes."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from reconciler.core import names
from reconciler.core.errors import Reason, ReconcilerError, Retryable, Stalled
from reconciler.core.live import Backend, ProxyStatus, Server, ServerMode
from reconciler.core.steps import CutSessions, EnsureProxy, FreePlace, Share, ShiftTraffic
from reconciler.ports import Traffic
from tests.support.fake_traffic import FakeTraffic
from tests.support.haproxy_house import PATIENCE, RealHouse, until

READY, DRAIN, MAINT = ServerMode.READY, ServerMode.DRAIN, ServerMode.MAINT
At = tuple[str, int]
SLOTS = 4


class Someone(Protocol):
    """An instance behind the proxies."""

    at: At

    def share(self, mode: ServerMode = READY, weight: int = 100) -> Share: ...


class House(Protocol):
    """What the suite needs of either side."""

    environment: str
    backend: str
    hints: list[str]

    @property
    def traffic(self) -> Traffic: ...
    def instance(self, name: str) -> Someone: ...
    def dead(self) -> At: ...
    def hint(self, environment: str, detail: str) -> None: ...
    def shift(self, *shares: Share) -> None: ...
    def look(self) -> Backend: ...
    def table(self) -> dict[At, tuple[ServerMode, int]]: ...
    def sessions(self, at: At) -> int | None: ...
    def busy(self, instance: Someone) -> contextlib.AbstractContextManager[None]: ...
    def amnesia(self) -> None: ...
    def lose(self, index: int) -> None: ...
    def mend(self, index: int) -> None: ...
    def by_hand(self, at: At, weight: int) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Nobody:
    """An address in the fake."""

    name: str
    at: At

    def share(self, mode: ServerMode = READY, weight: int = 100) -> Share:
        return Share(self.name, *self.at, mode, weight)


class FakeHouse(RealHouse):
    """The same questions, asked to the fake."""

    def __init__(self, number: int) -> None:
        self.environment = "prod"
        self.backend = names.backend("prod", "web")
        self.hints = []
        self.fake = FakeTraffic(proxies=number)
        self.fake.open("prod", self.backend, SLOTS)
        self.traffic = self.fake  # type: ignore[assignment]
        self._serial = itertools.count(1)

    def instance(self, name: str) -> Nobody:  # type: ignore[override]
        return Nobody(name, (f"10.0.0.{next(self._serial)}", 80))

    def dead(self) -> At:
        at = (f"10.0.0.{next(self._serial)}", 80)
        self.fake.mark(at, up=False)
        return at

    @contextlib.contextmanager
    def busy(self, instance: Someone) -> Iterator[None]:  # type: ignore[override]
        self.fake.set_sessions("prod", self.backend, instance.at, 1)
        yield
        self.fake.set_sessions("prod", self.backend, instance.at, 0)

    def amnesia(self) -> None:
        for index in range(len(self.fake.proxies("prod"))):
            self.fake.forget("prod", index)

    def within(self, seconds: float) -> None:
        """Nothing takes time here."""

    def lose(self, index: int) -> None:
        self.fake.reach("prod", index, reachable=False)

    def mend(self, index: int) -> None:
        self.fake.reach("prod", index, reachable=True)

    def by_hand(self, at: At, weight: int) -> None:
        self.fake.by_hand("prod", self.backend, at, weight=weight)

    def close(self) -> None:
        self.fake.close()


Build = Callable[[int], House]


@pytest.fixture(params=["fake", "haproxy"])
def build(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Build]:
    made: list[House] = []

    def make(number: int) -> House:
        house: House = FakeHouse(number) if request.param == "fake" else RealHouse(tmp_path, number, SLOTS)  # type: ignore[assignment]
        made.append(house)
        return house

    yield make
    for house in made:
        house.close()


@pytest.fixture
def house(build: Build) -> House:
    return build(1)


def one(house: House, at: At) -> Server:
    return next(server for server in house.look().servers if (server.address, server.port) == at)


def refused(house: House, *shares: Share) -> ReconcilerError:
    with pytest.raises(ReconcilerError) as caught:
        house.shift(*shares)
    assert caught.value.where and caught.value.remedy
    return caught.value


def test_a_new_backend_is_empty(house: House) -> None:
    assert house.look() == Backend(free=SLOTS)
    assert house.traffic.observe(house.environment).status is ProxyStatus.READY


def test_the_shares_become_the_whole_table(house: House) -> None:
    a, b, c = (house.instance(name) for name in "abc")
    house.shift(a.share(), b.share(weight=50))
    assert house.table() == {a.at: (READY, 100), b.at: (READY, 50)}
    house.shift(b.share(DRAIN, 7), c.share(weight=256))
    assert house.table() == {b.at: (DRAIN, 7), c.at: (READY, 256)}
    assert house.look().free == SLOTS - 2
    house.shift()
    assert house.look() == Backend(free=SLOTS)


def test_the_same_shift_twice_is_the_same_as_once(house: House) -> None:
    a, b = house.instance("a"), house.instance("b")
    for _ in range(2):
        house.shift(a.share(weight=95), b.share(weight=5))
        assert house.table() == {a.at: (READY, 95), b.at: (READY, 5)}


def test_a_ready_one_is_up_and_even(house: House) -> None:
    a = house.instance("a")
    house.shift(a.share())
    server = one(house, a.at)
    assert (server.up, server.even, server.sessions) == (True, True, 0)


def test_out_of_traffic_it_keeps_its_place_for_the_return(house: House) -> None:
    a, b = house.instance("a"), house.instance("b")
    house.shift(a.share(), b.share(weight=0))
    house.shift(a.share(MAINT, 0), b.share())
    assert house.table() == {a.at: (MAINT, 0), b.at: (READY, 100)}
    house.shift(a.share(), b.share(MAINT, 0))
    assert house.table() == {a.at: (READY, 100), b.at: (MAINT, 0)}


def test_an_address_that_does_not_come_up_takes_nothing_from_the_others(house: House) -> None:
    a = house.instance("a")
    house.shift(a.share())
    house.within(3.0)
    error = refused(house, Share("b", *house.dead(), READY, 100))
    assert isinstance(error, Retryable) and error.reason is Reason.PROXY_UNREACHABLE
    house.within(PATIENCE)
    assert house.table()[a.at] == (READY, 100)
    house.shift(a.share())
    assert house.table() == {a.at: (READY, 100)}


def test_no_place_is_free(house: House) -> None:
    many = [house.instance(f"i{number}") for number in range(SLOTS + 1)]
    house.shift(*(each.share() for each in many[:SLOTS]))
    error = refused(house, *(each.share() for each in many))
    assert isinstance(error, Stalled) and error.reason is Reason.PROXY_FULL
    error = refused(house, many[SLOTS].share())
    assert error.reason is Reason.PROXY_FULL, "a place is given away only when its instance is out of traffic"
    assert house.table() == {each.at: (READY, 100) for each in many[:SLOTS]}
    house.shift(*(each.share() for each in many[:3]))
    house.shift(*(each.share() for each in (*many[:3], many[SLOTS])))
    assert len(house.table()) == SLOTS


def test_a_backend_that_is_not_there_is_refused(house: House) -> None:
    for effect in (
        ShiftTraffic("rec.prod.nobody", "nobody", ()),
        CutSessions("x", "rec.prod.nobody", "127.0.0.1", 1, 1),
        FreePlace("rec.prod.nobody", "127.0.0.1", 1),
    ):
        with pytest.raises(Stalled) as caught:
            house.traffic.apply(house.environment, effect)
        assert caught.value.reason is Reason.PROXY_REFUSED
        assert caught.value.remedy


def test_what_goes_on_keeps_the_place_until_it_is_done(house: House) -> None:
    a, b = house.instance("a"), house.instance("b")
    house.shift(a.share())
    with house.busy(a):
        house.shift(a.share(DRAIN), b.share())
        assert house.sessions(a.at) == 1
        house.shift(b.share())
        assert house.table()[a.at][0] is MAINT
        assert house.sessions(a.at) == 1
    house.shift(b.share())
    assert house.table() == {b.at: (READY, 100)}


def test_an_address_of_nobody_is_freed(house: House) -> None:
    a, b = house.instance("a"), house.instance("b")
    house.shift(a.share(), b.share())
    for _ in range(2):
        house.traffic.apply(house.environment, FreePlace(house.backend, *a.at))
        assert house.table() == {b.at: (READY, 100)}


def test_killed_without_a_saved_state_it_shows_no_one(house: House) -> None:
    a = house.instance("a")
    house.shift(a.share(weight=7))
    house.amnesia()
    assert house.look().servers == ()
    house.shift(a.share(weight=7))
    assert house.table() == {a.at: (READY, 7)}


def test_a_change_by_hand_is_seen_and_undone(house: House) -> None:
    a = house.instance("a")
    house.shift(a.share(weight=10))
    house.by_hand(a.at, 11)
    assert house.table() == {a.at: (READY, 11)}
    house.shift(a.share(weight=10))
    assert house.table() == {a.at: (READY, 10)}


def test_two_proxies_have_the_same_table(build: Build) -> None:
    house = build(2)
    a, b = house.instance("a"), house.instance("b")
    house.shift(a.share(), b.share(DRAIN, 3))
    assert house.table() == {a.at: (READY, 100), b.at: (DRAIN, 3)}
    house.by_hand(a.at, 1)
    assert (one(house, a.at).even, one(house, a.at).weight, one(house, b.at).even) == (False, 1, True)


def test_a_place_without_weight_waits_for_nobody_and_is_even_whether_they_find_it_up(build: Build) -> None:
    house = build(2)
    a = house.instance("a")
    silent = house.dead()
    house.shift(a.share(), Share("new", *silent, READY, 0))
    assert house.table() == {a.at: (READY, 100), silent: (READY, 0)}
    assert one(house, silent).even


def test_one_of_two_proxies_unreachable_takes_nothing_from_the_others(build: Build) -> None:
    house = build(2)
    a, b = house.instance("a"), house.instance("b")
    house.shift(a.share())
    house.lose(1)
    assert refused(house, b.share()).reason is Reason.PROXY_UNREACHABLE
    seen = house.traffic.observe(house.environment)
    assert seen.status is ProxyStatus.UNREACHABLE
    assert house.table() == {a.at: (READY, 100)}
    assert house.sessions(a.at) is None
    house.mend(1)
    house.shift(b.share())
    assert house.table() == {b.at: (READY, 100)}
    assert one(house, b.at).even


def test_without_any_proxy_that_answers_nothing_is_known(house: House) -> None:
    a = house.instance("a")
    house.lose(0)
    state = house.traffic.observe(house.environment)
    assert (state.status, state.backends) == (ProxyStatus.UNREACHABLE, {})
    assert refused(house, a.share()).reason is Reason.PROXY_UNREACHABLE


def test_a_configuration_whose_backends_are_there_is_accepted(house: House) -> None:
    text = f"backend {house.backend}\n    server-template s 1-{SLOTS} 0.0.0.0:1\n"
    a = house.instance("a")
    house.shift(a.share())
    house.traffic.apply(house.environment, EnsureProxy(house.environment, "d1", text))
    assert house.table() == {a.at: (READY, 100)}


def test_the_watcher_hears_of_idleness_and_of_proxies_that_go(house: House) -> None:
    a, b = house.instance("a"), house.instance("b")
    house.shift(a.share())
    house.traffic.watch(house.hint)
    with house.busy(a):
        house.shift(a.share(DRAIN), b.share())
        assert house.sessions(a.at) == 1
    until(lambda: any("idle" in hint for hint in house.hints), "idle")
    house.lose(0)
    until(lambda: any("does not answer" in hint for hint in house.hints), "gone")
    house.mend(0)
    until(lambda: any("is back" in hint for hint in house.hints), "back")
