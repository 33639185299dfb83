"""The election: candidates take turns by hand on clocks moved by hand, so that pauses happen where they are wanted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.lease import Terms
from reconciler.leadership import LOOKS_KEPT, Election, Hold, Post
from tests.support.leases import HandClock, Store, StoredLease

TERMS = Terms(15.0, 10.0, 2.0)


@dataclass
class Candidate:
    """One candidate with what it told its daemon."""

    store: Store
    name: str
    clock: HandClock = field(default_factory=HandClock)
    news: list[bool] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lease = StoredLease(self.store)
        post = Post(lambda: self.news.append(self.election.hold is not None), self.looks.append, lambda: None)
        self.election = Election(self.lease, TERMS, self.name, self.clock, lambda _low, high: high, post)

    @property
    def hold(self) -> Hold:
        assert self.election.hold is not None
        return self.election.hold

    def turn(self, seconds: float = 0.0) -> bool:
        """Let `seconds` pass for this candidate and take a turn; whether it leads then."""
        self.clock.pass_(seconds)
        self.election.turn()
        return self.election.hold is not None


def two() -> tuple[Store, Candidate, Candidate]:
    store, clock = Store(), HandClock()
    return store, Candidate(store, "a", clock), Candidate(store, "b", clock)


def test_the_first_leads_and_the_other_waits() -> None:
    store, a, b = two()
    assert a.turn()
    assert not b.turn()
    for _ in range(20):
        assert a.turn(2.0)
        assert not b.turn()
    assert (a.news, b.news) == ([True], [])
    assert b.election.leader == "a"
    assert store.found.record is not None
    assert store.found.record.transitions == 0


def test_one_that_is_gone_is_followed_after_the_whole_duration_and_not_before() -> None:
    _, a, b = two()
    a.turn()
    b.turn()
    assert not b.turn(14.9)
    assert b.turn(0.1)
    assert b.election.leader == "b"


def test_one_that_lets_go_is_followed_at_once() -> None:
    store, a, b = two()
    a.turn()
    b.turn()
    hold = a.hold
    a.election.release()
    assert not hold.holds()
    assert b.turn(0.1)
    assert store.found.record is not None
    assert (store.found.record.holder, store.found.record.transitions) == ("b", 1)
    assert not a.turn(0.1)


def test_a_stopped_leader_knows_by_its_clock_that_it_is_over_before_it_asks_anybody() -> None:
    _, a, b = two()
    a.turn()
    b.turn()
    hold = a.hold
    assert b.turn(15.0)
    assert not hold.holds()
    assert hold.left() == 0.0
    assert not a.turn()
    assert a.news == [True, False]


def test_a_leader_stopped_in_the_midst_of_its_renewal_does_not_come_back() -> None:
    _, a, b = two()
    a.turn()
    b.turn()
    hold = a.hold

    def stopped(call: str) -> None:
        if call == "write":
            a.lease.before = lambda _call: None
            assert b.turn(15.0)

    a.lease.before = stopped
    assert not a.turn(2.0)
    assert not hold.holds()
    assert b.election.hold is not None


def test_without_the_api_the_leader_gives_up_in_time_and_nobody_follows_early() -> None:
    store, a, b = two()
    a.turn()
    b.turn()
    hold = a.hold
    store.away = True
    for _ in range(4):
        assert a.turn(2.0)
        assert not b.turn()
    assert "does not answer" in a.election.problem
    assert hold.left() == 7.0
    assert not a.turn(2.0)
    assert a.news == [True, False]
    assert not hold.holds()
    store.away = False
    assert not b.turn(4.0)
    assert b.turn(1.0)


def test_with_the_api_back_before_the_deadline_it_goes_on() -> None:
    _, a, _ = two()
    a.turn()
    a.lease.away = True
    assert a.turn(9.5)
    a.lease.away = False
    assert a.turn(0.25)
    assert a.hold.left() == 15.0
    assert a.news == [True]


@pytest.mark.parametrize("jump", [timedelta(days=3650), timedelta(days=-3650)])
def test_jumps_of_the_time_of_day_change_nothing(jump: timedelta) -> None:
    store = Store()
    a, b = Candidate(store, "a"), Candidate(store, "b")
    a.turn()
    b.turn()
    for candidate in (a, b, a):
        candidate.clock.wall += jump
        assert a.turn(1.0)
        assert not b.turn(1.0)


def test_a_won_lease_whose_answer_was_lost_is_taken_up() -> None:
    _, a, b = two()
    a.lease.lost = True
    assert not a.turn()
    assert not b.turn()
    a.lease.lost = False
    assert a.turn(1.0)
    assert not b.turn()


def test_a_renewal_whose_answer_was_lost_counts_from_the_next_one_on() -> None:
    _, a, _ = two()
    a.turn()
    a.lease.lost = True
    assert a.turn(4.0)
    assert a.hold.left() == 11.0
    a.lease.lost = False
    assert a.turn(4.0)
    assert a.hold.left() == 15.0


def test_of_two_that_write_at_the_same_time_one_wins() -> None:
    _, a, b = two()

    def meanwhile(call: str) -> None:
        if call == "write":
            a.lease.before = lambda _call: None
            assert b.turn()

    a.lease.before = meanwhile
    assert not a.turn()
    assert b.election.hold is not None


def test_after_a_loss_it_stands_again_only_when_all_of_it_is_closed() -> None:
    _, a, _ = two()
    a.turn()
    assert not a.turn(11.0)
    assert not a.turn(60.0)
    a.election.stand()
    assert a.turn()
    assert a.news == [True, False, True]


def test_its_daemon_may_see_the_end_before_its_own_thread_does() -> None:
    _, a, _ = two()
    a.turn()
    a.clock.pass_(10.0)
    assert not a.hold.holds()
    a.election.stand()
    assert not a.turn()
    assert a.turn()


def test_a_renewal_counts_from_when_it_was_sent() -> None:
    _, a, _ = two()
    a.turn()

    def slow(call: str) -> None:
        if call == "write":
            a.clock.pass_(4.0)

    a.lease.before = slow
    assert a.turn(2.0)
    assert a.hold.left() == 11.0


def test_one_that_never_stood_has_nothing_to_let_go() -> None:
    store, a, b = two()
    a.turn()
    b.turn()
    b.lease.before = pytest.fail
    b.election.release()
    assert store.writes == 1


def test_nothing_brings_a_hold_back_that_was_seen_to_be_over() -> None:
    _, a, _ = two()
    a.turn()
    hold = a.hold

    def late(call: str) -> None:
        if call == "write":
            a.clock.pass_(7.0)
            assert not hold.holds()

    a.lease.before = late
    assert not a.turn(4.0)
    assert not hold.holds()


def test_one_that_could_not_lead_lets_the_other_try() -> None:
    _, a, b = two()
    a.turn()
    a.election.release()
    a.election.stand(after=5.0)
    assert not a.turn(4.0)
    assert b.turn()
    assert not a.turn(4.0)


def test_one_that_could_not_lead_tries_again_where_there_is_no_other() -> None:
    _, a, _ = two()
    a.turn()
    a.election.release()
    a.election.stand(after=5.0)
    assert not a.turn(4.9)
    assert a.turn(0.1)


def test_a_removed_lease_is_made_anew_by_its_holder() -> None:
    store, a, b = two()
    a.turn()
    b.turn()
    store.found = replace(store.found, record=None, version="")
    assert a.turn(2.0)
    assert not b.turn()


def test_a_look_that_is_asked_for_reaches_the_leader() -> None:
    store, a, b = two()
    a.turn()
    b.turn()
    b.election.ask("prod")
    b.election.ask("dev")
    b.turn(1.0)
    assert store.found.looks == {"prod", "dev"}
    assert a.turn(1.0)
    assert a.looks == ["dev", "prod"]
    assert store.found.looks == frozenset()
    assert a.turn(2.0)
    assert a.looks == ["dev", "prod"]


def test_a_look_is_asked_for_again_where_the_leader_wrote_meanwhile() -> None:
    _, a, b = two()
    a.turn()
    b.turn()

    def meanwhile(call: str) -> None:
        if call == "write":
            b.lease.before = lambda _call: None
            assert a.turn(1.0)

    b.lease.before = meanwhile
    b.election.ask("prod")
    b.turn()
    assert a.turn(1.0)
    assert a.looks == ["prod"]


def test_asking_does_not_make_a_silent_leader_look_alive() -> None:
    _, a, b = two()
    a.turn()
    b.turn()
    for number in range(7):
        b.election.ask(f"e{number}")
        assert not b.turn(2.0)
    b.election.ask("last")
    assert not b.turn(0.75)
    assert b.turn(0.25)
    assert set(b.looks) == {*(f"e{number}" for number in range(7)), "last"}


def test_looks_are_bounded() -> None:
    store, a, b = two()
    a.turn()
    for number in range(3 * LOOKS_KEPT):
        b.election.ask(f"e{number}")
    b.turn()
    assert len(store.found.looks) == LOOKS_KEPT


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.floats(0, 20), st.sampled_from(["", "away", "lost", "read", "write"])),
        max_size=60,
    )
)
def test_there_is_never_more_than_one_leader(acts: list[tuple[str, float, str]]) -> None:
    """Whatever is paused, lost or late: at no moment two of them may act."""
    store, clock = Store(), HandClock()
    candidates = {name: Candidate(store, name, clock) for name in "abc"}
    for name, seconds, trouble in acts:
        candidate = candidates[name]

        def late(call: str, trouble: str = trouble, seconds: float = seconds) -> None:
            if call == trouble:
                clock.pass_(seconds)

        candidate.lease.before = late
        candidate.lease.away, candidate.lease.lost = trouble == "away", trouble == "lost"
        candidate.turn(seconds)
        if candidate.election.hold is None:
            candidate.election.stand()
        leading = [each for each in candidates.values() if each.election.hold and each.election.hold.holds()]
        assert len(leading) <= 1
