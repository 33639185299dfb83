"""How an instance goes: drain, tail, signal, kill; and what is held for an instant return."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.core.delivery import Rollout, Route
from reconciler.core.live import Phase, ServerMode
from reconciler.core.model import Drain
from tests.support.fake_traffic import Held
from tests.support.fronted import BACKEND, ROUTE, Fronted, fronted
from tests.support.scene import ENVIRONMENT

ROLLING = Rollout(progress_deadline=timedelta(minutes=5))
DRAIN = Drain(timedelta(seconds=30), timedelta(seconds=10), timedelta(seconds=60))
HOLD = replace(ROLLING, hold=timedelta(minutes=5))


def busy(rollout: Rollout = ROLLING, **changes: object) -> Fronted:
    """A release of b in place of one a with an endless request, as far as it goes at this moment."""
    scene = fronted(rollout=rollout, replicas=1, **{"drain": DRAIN, **changes})
    (old,) = scene.of("a")
    scene.sessions(old, 3)
    scene.commit("b")
    scene.rest()
    return scene


def test_it_gets_no_new_requests_and_is_waited_for_until_the_last_one_is_done() -> None:
    scene = busy()
    (old,) = scene.of("a")
    assert scene.split() == "b 100"
    assert scene.place(old) == "drain 100"
    assert scene.service.waiting == f"{old.name} to drain"
    assert scene.service.recheck_at == scene.now + timedelta(seconds=30)
    scene.sessions(old, 0)
    scene.rest()
    assert scene.instances.keys().isdisjoint({old.name}), "it does not wait for a deadline"


def test_a_client_of_an_older_worker_is_waited_for_also_when_the_place_is_lost() -> None:
    """Its next request is led by the older worker's table, whatever the newest one says."""
    scene = fronted(rollout=ROLLING, replicas=1, drain=DRAIN)
    (old,) = scene.of("a")
    scene.returning(old, 2)
    scene.commit("b")
    scene.rest()
    assert scene.place(old) == "drain 100"
    scene.later(30)
    scene.rest()
    assert (scene.place(old), scene.service.waiting) == ("no place", f"the last requests at {old.name}")
    assert scene.service.recheck_at == scene.now + timedelta(seconds=60)
    scene.returning(old, 0)
    scene.rest()
    assert old.name not in scene.instances


def test_it_waits_for_them_no_longer_than_for_requests() -> None:
    scene = fronted(rollout=ROLLING, replicas=1, drain=DRAIN)
    (old,) = scene.of("a")
    scene.returning(old, 2)
    scene.commit("b")
    scene.rest()
    scene.later(30)
    scene.rest()
    scene.later(60)
    scene.rest()
    assert old.name not in scene.instances
    assert not scene.step(), "what only older workers lead to is no place that could be freed"


def test_at_the_deadline_it_loses_its_place_and_at_the_end_of_the_tail_its_requests() -> None:
    scene = busy()
    (old,) = scene.of("a")
    scene.later(30)
    scene.rest()
    assert scene.place(old).startswith("maint")
    assert scene.service.waiting == f"the last requests at {old.name}"
    assert scene.service.recheck_at == scene.now + timedelta(seconds=60)
    scene.later(59)
    assert not scene.step()
    scene.later(1)
    scene.log.clear()
    scene.rest()
    assert scene.log[:1] == ["TerminateInstance"], "it takes leave of its clients itself"
    assert old.name not in scene.instances


def test_requests_that_end_in_the_tail_end_it() -> None:
    scene = busy()
    (old,) = scene.of("a")
    scene.later(30)
    scene.rest()
    scene.sessions(old, 0)
    scene.log.clear()
    scene.rest()
    assert "CutSessions" not in scene.log
    assert old.name not in scene.instances


def test_a_drain_of_no_length_has_a_tail_with_an_end_too() -> None:
    scene = busy(drain=replace(DRAIN, deadline=timedelta(0)))
    (old,) = scene.of("a")
    assert scene.place(old).startswith("maint")
    scene.later(60)
    scene.rest()
    assert old.name not in scene.instances


def test_one_that_ignores_the_signal_is_killed_after_its_grace() -> None:
    scene = busy()
    (old,) = scene.of("a")
    scene.stubborn.add(old.name)
    scene.sessions(old, 0)
    scene.rest()
    assert scene.service.waiting == f"{old.name} to exit"
    assert scene.service.recheck_at == scene.now + timedelta(seconds=10)
    scene.later(10)
    scene.step()
    assert scene.log[-1] == "KillInstance"
    assert scene.instances[old.name].exit_code == 137
    scene.rest()
    assert old.name not in scene.instances
    assert "InstanceLost" not in scene.log


def test_requests_that_came_after_the_signal_are_cut_before_the_kill() -> None:
    scene = busy()
    (old,) = scene.of("a")
    scene.stubborn.add(old.name)
    scene.sessions(old, 0)
    scene.rest()
    scene.traffic.proxies(ENVIRONMENT)[0].backends[BACKEND].held[scene.at(old)] = Held(ServerMode.MAINT, 0)
    scene.sessions(old, 1)
    scene.later(10)
    scene.log.clear()
    scene.step()
    assert scene.log == ["CutSessions", "KillInstance"]


def test_somebody_who_puts_it_back_into_traffic_does_not_keep_it_there() -> None:
    scene = busy()
    (old,) = scene.of("a")
    scene.traffic.by_hand(ENVIRONMENT, BACKEND, scene.at(old), mode=ServerMode.READY)
    scene.rest()
    assert scene.place(old) == "drain 100"
    scene.later(30)
    scene.rest()
    assert scene.place(old).startswith("maint")


def test_one_that_somebody_put_into_maintenance_before_it_leaves_still_has_an_end() -> None:
    scene = fronted(rollout=ROLLING, replicas=1, drain=DRAIN)
    (old,) = scene.of("a")
    scene.commit("b")
    scene.until("InstanceHealthy")
    scene.sessions(old, 1)
    scene.traffic.by_hand(ENVIRONMENT, BACKEND, scene.at(old), mode=ServerMode.MAINT)
    for _ in range(12):
        scene.rest()
        scene.later(10)
    assert old.name not in scene.instances


@pytest.mark.parametrize("mode", [ServerMode.MAINT, ServerMode.DRAIN])
@pytest.mark.parametrize("sessions", [0, 1])
def test_the_last_one_that_somebody_took_out_of_traffic_comes_back_until_the_new_one_serves(
    mode: ServerMode, sessions: int
) -> None:
    scene = fronted(rollout=ROLLING, replicas=1, drain=DRAIN)
    (old,) = scene.of("a")
    scene.commit("b")
    scene.until("StartInstance")
    scene.sessions(old, sessions)
    scene.traffic.by_hand(ENVIRONMENT, BACKEND, scene.at(old), mode=mode)
    scene.step()
    assert scene.place(old) == "ready 100"
    scene.sessions(old, 0)
    scene.settle()
    assert scene.serving() == ["b"]


def test_old_ones_that_a_proxy_forgot_get_their_places_again_until_enough_new_ones_serve() -> None:
    scene = fronted(rollout=ROLLING, replicas=3)
    scene.commit("b")
    scene.settle_until("ShiftTraffic")
    old = [i.name for i in scene.taking()]
    assert len(old) == 3
    scene.traffic.forget(ENVIRONMENT)
    scene.step()
    assert {i.name for i in scene.taking()} >= set(old)
    scene.settle()
    assert scene.serving() == ["b"] * 3


def test_a_failed_one_that_a_proxy_forgot_does_not_come_back() -> None:
    scene = fronted(rollout=ROLLING, replicas=2)
    scene.commit("b")
    scene.settle_until("ShiftTraffic")
    scene.sick.add(scene.wanted.version)
    scene.live()
    scene.until("RolloutFailed")
    scene.traffic.forget(ENVIRONMENT)
    scene.rest()
    assert scene.split() == "a 100"


def test_a_paused_one_is_killed_and_a_created_one_removed() -> None:
    scene = fronted(rollout=ROLLING, replicas=2)
    first, _ = scene.of("a")
    scene.change(first.name, phase=Phase.PAUSED)
    scene.commit("b", replicas=0)
    scene.rest()
    assert "KillInstance" in scene.log
    scene.settle()
    assert scene.instances == {}
    scene.commit("c", replicas=1)
    scene.until("CreateInstance")
    scene.commit("d")
    scene.log.clear()
    scene.step()
    assert "RemoveInstance" in scene.log


# What is held


def test_the_version_before_is_held_out_of_traffic_until_its_time_is_over() -> None:
    scene = fronted(rollout=HOLD, replicas=2)
    scene.commit("b")
    scene.settle()
    assert scene.split() == "b 100"
    assert len(scene.of("a")) == 2, "what was given up on the way is held, too"
    scene.later(300)
    scene.settle()
    assert scene.of("a") == []


def test_a_held_one_that_dies_is_not_waited_for_and_is_no_loss() -> None:
    scene = fronted(rollout=HOLD, replicas=1)
    scene.commit("b")
    scene.settle()
    (held,) = scene.of("a")
    scene.die(held)
    scene.log.clear()
    scene.rest()
    assert scene.of("a") == []
    assert "InstanceLost" not in scene.log


def test_known_clients_do_not_stay_with_a_held_one_for_ever() -> None:
    scene = fronted(rollout=HOLD, replicas=1, drain=DRAIN, route=Route(8080, sticky=True))
    (old,) = scene.of("a")
    scene.sessions(old, 1)
    scene.commit("b")
    scene.rest()
    assert scene.place(old) == "drain 100", "clients with a cookie may come back for a while"
    scene.later(30)
    scene.rest()
    assert scene.place(old).startswith("maint")
    scene.later(60)
    scene.rest()
    assert "CutSessions" not in scene.log, "nobody is cut off for the sake of a hold"
    assert old.name in scene.instances, "and it is held all the same"
    assert not scene.step()
    scene.commit("a")
    scene.settle_until("ShiftTraffic")
    assert scene.split() == "a 100"
    assert "CreateInstance" not in scene.log


def test_a_held_one_that_was_found_by_name_too_is_detached_before_it_stops() -> None:
    scene = Fronted(None, common={"replicas": 1, "rollout": HOLD, "drain": DRAIN, "route": None})
    scene.commit("a")
    scene.settle()
    scene.commit("a", route=ROUTE)
    scene.settle()
    (old,) = scene.of("a")
    scene.sessions(old, 1)
    scene.commit("b", rollout=ROLLING)
    scene.rest()
    scene.later(30)
    scene.rest()
    assert scene.place(old).startswith("maint")
    scene.log.clear()
    scene.later(60)
    scene.rest()
    assert scene.log == ["DetachTraffic"]
    scene.later(90)
    scene.rest()
    assert scene.log[:2] == ["DetachTraffic", "TerminateInstance"]


# How many may go


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_none_goes_before_enough_others_serve(replicas: int) -> None:
    scene = fronted(rollout=ROLLING, replicas=replicas)
    scene.watch = lambda world: None if len(world.serving()) >= replicas else pytest.fail(str(world.log))
    scene.commit("b")
    scene.settle()
    assert scene.serving() == ["b"] * replicas
