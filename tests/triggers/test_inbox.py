"""The inbox: nothing is lost, nothing is given out twice at one time, and nothing grows."""

import threading
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.adapters.clock import SystemClock
from reconciler.ports import Cause
from reconciler.triggers.inbox import CAUSES_KEPT, DETAIL_KEPT, LONGEST_RECHECK, Inbox, merge
from tests.support.webhouse import START, ManualClock


def cause(kind="poll", second=0, detail="", git=False):
    return Cause(kind, START + timedelta(seconds=second), detail, git)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def inbox(clock):
    return Inbox(clock)


def test_what_was_asked_for_first_is_taken_first(inbox):
    for name in ("b", "a", "b", "c"):
        inbox.request(name, cause())
    assert inbox.depth == 3
    assert [inbox.take(0)[0] for _ in range(3)] == ["b", "a", "c"]
    assert inbox.take(0) is None
    assert inbox.depth == 0


def test_an_environment_is_not_given_out_again_until_it_is_done(inbox):
    inbox.request("a", cause("file"))
    assert inbox.take(0) == ("a", (cause("file"),))
    for number in range(1000):
        inbox.request("a", cause("webhook", number, git=True))
    assert inbox.take(0) is None
    inbox.done("a")
    assert inbox.take(0) == ("a", (cause("webhook", 999, git=True),))
    inbox.done("a")
    assert inbox.take(0) is None


def test_news_are_what_asks_for_git(inbox):
    inbox.request("a", cause("engine"))
    assert not inbox.news("a")
    inbox.request("a", cause("webhook", git=True))
    assert inbox.news("a") and not inbox.news("b")
    inbox.take(0)
    assert not inbox.news("a"), "whoever took it knows"


def test_one_taken_environment_does_not_hold_up_the_others(inbox):
    inbox.request("a", cause())
    inbox.take(0)
    inbox.request("a", cause())
    inbox.request("b", cause())
    assert inbox.take(0)[0] == "b"


@given(
    st.lists(
        st.builds(
            cause,
            kind=st.sampled_from(["poll", "engine", "webhook"]),
            second=st.integers(0, 100),
            detail=st.text(max_size=3),
            git=st.booleans(),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_causes_stay_few_and_the_newest_wish_for_git_survives(causes):
    merged = ()
    for one in causes:
        merged = merge(merged, one)
    assert 1 <= len(merged) <= CAUSES_KEPT
    assert len({(c.kind, c.detail, c.git) for c in merged}) == len(merged)
    wishes = [c.at for c in causes if c.git]
    assert max((c.at for c in merged if c.git), default=None) == max(wishes, default=None)


def test_a_persons_word_is_not_lost_among_events(inbox):
    inbox.request("a", cause("operator", detail="Resumed by ada"))
    for second in range(3 * CAUSES_KEPT):
        inbox.request("a", cause("engine", second + 1, detail=f"event {second}"))
    _, causes = inbox.take(0)
    assert [one.kind for one in causes] == ["operator", *["engine"] * (CAUSES_KEPT - 1)]
    assert causes[-1].detail == f"event {3 * CAUSES_KEPT - 1}"


def test_an_older_cause_does_not_set_a_newer_one_back(inbox):
    inbox.request("a", cause(second=9, git=True))
    inbox.request("a", cause(second=3, git=True))
    assert inbox.take(0) == ("a", (cause(second=9, git=True),))


def test_details_are_cut():
    assert len(merge((), cause(detail="x" * 10_000))[0].detail) == DETAIL_KEPT


def test_the_earliest_timer_of_a_cycle_counts(inbox, clock):
    inbox.later("a", 30.0, cause("recheck", detail="late"))
    inbox.later("a", 10.0, cause("recheck", detail="early"))
    clock.seconds = 9.9
    assert inbox.take(0) is None
    clock.seconds = 10.0
    name, causes = inbox.take(0)
    assert (name, {c.detail for c in causes}) == ("a", {"late", "early"})


def test_the_next_cycle_replaces_the_timer(inbox, clock):
    inbox.later("a", 10.0, cause("recheck", detail="old"))
    inbox.request("a", cause("engine"))
    inbox.take(0)
    inbox.later("a", 50.0, cause("recheck", detail="new"))
    inbox.done("a")
    clock.seconds = 49.0
    assert inbox.take(0) is None
    clock.seconds = 50.0
    assert inbox.take(0) == ("a", (cause("recheck", detail="new"),))


def test_a_cycle_that_sets_no_timer_does_not_lose_the_one_before(inbox, clock):
    inbox.later("a", 10.0, cause("recheck"))
    inbox.request("a", cause("engine"))
    inbox.take(0)
    inbox.done("a")
    clock.seconds = 10.0
    assert inbox.take(0) == ("a", (cause("recheck"),))


def test_a_replaced_timer_leaves_its_wish_for_a_fetch(inbox, clock):
    inbox.later("a", 10.0, cause("retry", git=True))
    inbox.request("a", cause("engine"))
    inbox.take(0)
    inbox.later("a", 20.0, cause("recheck"))
    inbox.done("a")
    clock.seconds = 20.0
    assert inbox.take(0) == ("a", (cause("retry", git=True), cause("recheck")))


def test_a_time_of_day_is_turned_into_a_monotonic_wait(inbox, clock):
    inbox.later("a", START + timedelta(seconds=5), cause("recheck"))
    clock.jump = -3600
    clock.seconds = 5.0
    assert inbox.take(0) == ("a", (cause("recheck"),))


@pytest.mark.parametrize("at", [1e9, START + timedelta(days=400)])
def test_no_timer_waits_for_ever(inbox, clock, at):
    inbox.later("a", at, cause("recheck"))
    clock.seconds = LONGEST_RECHECK
    assert inbox.take(0) is not None


def test_in_a_rest_events_of_the_engine_wait_for_each_other(inbox, clock):
    inbox.rest("a", 3.0)
    inbox.request("a", cause("engine", 1))
    inbox.request("b", cause("engine"))
    assert inbox.take(0)[0] == "b", "the others do not rest"
    clock.seconds = 2.9
    inbox.request("a", cause("engine", 2))
    assert inbox.take(0) is None
    clock.seconds = 3.0
    assert inbox.take(0) == ("a", (cause("engine", 2),))


@pytest.mark.parametrize("kind", ["poll", "webhook", "file", "operator", "recheck", "traffic"])
def test_a_rest_holds_up_nothing_else(inbox, kind):
    inbox.rest("a", 3600.0)
    inbox.request("a", cause("engine"))
    assert inbox.take(0) is None
    inbox.request("a", cause(kind))
    assert inbox.take(0) == ("a", (cause("engine"), cause(kind)))


def test_the_end_of_a_rest_wakes_a_waiting_take():
    inbox = Inbox(SystemClock())
    inbox.rest("a", 0.2)
    inbox.request("a", cause("engine"))
    assert inbox.take(30) == ("a", (cause("engine"),))


def test_what_is_forgotten_does_not_come_back(inbox, clock):
    inbox.request("a", cause())
    inbox.later("a", 1.0, cause())
    inbox.forget("a")
    clock.seconds = 2.0
    assert inbox.take(0) is None


@pytest.mark.parametrize(
    ("act", "found"),
    [
        (lambda inbox: inbox.request("a", cause()), ("a", (cause(),))),
        (lambda inbox: inbox.later("a", 0.0, cause()), ("a", (cause(),))),
        (lambda inbox: inbox.close(), None),
    ],
)
def test_a_waiting_take_wakes_up(act, found):
    inbox, answers = Inbox(SystemClock()), []
    taker = threading.Thread(target=lambda: answers.append(inbox.take(30)))
    taker.start()
    act(inbox)
    taker.join(60)
    assert answers == [found]


def test_what_ends_a_rest_wakes_a_waiting_take():
    inbox, answers = Inbox(SystemClock()), []
    inbox.rest("a", 3600.0)
    inbox.request("a", cause("engine"))
    taker = threading.Thread(target=lambda: answers.append(inbox.take(30)))
    taker.start()
    inbox.request("a", cause("poll"))
    taker.join(10)
    assert answers == [("a", (cause("engine"), cause("poll")))]


def test_done_wakes_a_waiting_take():
    inbox, answers = Inbox(SystemClock()), []
    inbox.request("a", cause())
    inbox.take(0)
    inbox.request("a", cause("again"))
    taker = threading.Thread(target=lambda: answers.append(inbox.take(30)))
    taker.start()
    inbox.done("a")
    taker.join(60)
    assert answers == [("a", (cause("again"),))]


def test_a_timer_fires_by_the_real_clock():
    clock = SystemClock()
    inbox = Inbox(clock)
    inbox.later("a", clock.monotonic() + 0.05, cause())
    assert inbox.take(10) == ("a", (cause(),))


def test_a_closed_inbox_accepts_nothing(inbox):
    inbox.request("a", cause())
    inbox.close()
    inbox.request("a", cause())
    inbox.later("a", 0.0, cause())
    assert inbox.take(0) is None
    assert inbox.depth == 0


def test_many_takers_never_share_an_environment():
    inbox = Inbox(SystemClock())
    names = [f"e{i}" for i in range(5)]
    busy, broken, looked = set(), [], []
    lock, enough = threading.Lock(), threading.Event()

    def work():
        while (taken := inbox.take(10)) is not None:
            with lock:
                if taken[0] in busy:
                    broken.append(taken[0])
                busy.add(taken[0])
            with lock:
                busy.discard(taken[0])
                looked.append(taken[0])
                if len(looked) > 2000:
                    enough.set()
            inbox.request(taken[0], cause())
            inbox.done(taken[0])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for name in names:
        inbox.request(name, cause())
    for thread in threads:
        thread.start()
    assert enough.wait(60)
    inbox.close()
    for thread in threads:
        thread.join(60)
    assert not broken
    assert set(looked) == set(names)
