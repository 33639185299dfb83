"""What could hurt a service: the planner where something else is wrong too. Each was a fault once, or nearly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.core import plan as planner
from reconciler.core.delivery import Rollout
from reconciler.core.errors import Reason
from reconciler.core.live import Difference, HealthStatus, ImageState, ImageStatus, LiveState, Phase
from reconciler.core.memory import EnvironmentMemory, ServiceMemory
from reconciler.core.model import Drain, DriftPolicy
from reconciler.core.plan import plan
from reconciler.core.question import Question, Wish
from reconciler.core.record import What
from reconciler.core.status import ServiceHealth
from reconciler.core.steps import AttachTraffic, CreateInstance, StartInstance, Transition
from tests.support.scene import ENVIRONMENT, PUBLISHED, START, Scene, settled, spec, target


def always(fewest: int) -> Callable[[Scene], None]:
    return lambda world: None if len(world.serving()) >= fewest else pytest.fail(" ".join(world.log[-20:]))


def without_files(wish: Wish) -> Wish:
    return replace(wish, fallback=None)


def test_a_failed_release_takes_nothing_away_when_the_stable_files_cannot_be_read() -> None:
    scene = settled(replicas=2)
    scene.watch = always(2)
    scene.wish = without_files
    scene.want("b", replicas=2)
    scene.dying.add(scene.wanted.version)
    scene.settle()
    assert scene.serving() == ["a", "a"]
    assert len(scene.instances) == 2
    assert "cannot be read" in scene.service.message
    assert scene.service.health is ServiceHealth.HEALTHY
    del scene.instances[min(scene.instances)]
    scene.images.clear()
    scene.watch = always(1)
    scene.settle()
    assert scene.serving() == ["a"], "none can be made anew, and the last one stays"
    scene.want("c", replicas=2)
    scene.settle()
    assert scene.serving() == ["c", "c"]


def test_stop_first_returns_to_the_kept_one_when_its_files_cannot_be_read() -> None:
    scene = settled(ports=PUBLISHED)
    old = next(iter(scene.instances))
    scene.wish = without_files
    scene.want("b", ports=PUBLISHED)
    scene.dying.add(scene.wanted.version)
    scene.settle()
    assert set(scene.instances) == {old}
    assert scene.serving() == ["a"]


def test_a_fault_in_one_service_holds_that_one_only(monkeypatch: pytest.MonkeyPatch) -> None:
    real = planner.plan_service

    def faulty(question: Question, wish: Wish, instances: object) -> object:
        if wish.name == "bad":
            raise ZeroDivisionError("oh")
        return real(question, wish, instances)  # type: ignore[arg-type]

    monkeypatch.setattr(planner, "plan_service", faulty)
    wishes = {name: Wish(name, replace(target(), spec=replace(spec(), name=name))) for name in ("bad", "good")}
    found = plan(Question(ENVIRONMENT, None, wishes, LiveState(ENVIRONMENT, START), EnvironmentMemory(), START))
    assert found.services["good"].steps
    assert (found.services["bad"].steps, found.services["bad"].reason) == ((), Reason.INTERNAL_ERROR)
    assert isinstance(found.bugs["bad"], ZeroDivisionError)
    assert not found.in_sync


def test_a_restarted_host_is_one_loss_and_takes_no_version_back() -> None:
    scene = settled(replicas=8)
    scene.want("b", replicas=8)
    scene.settle()
    before = scene.now
    for name in scene.instances:
        scene.change(name, phase=Phase.EXITED, exit_code=255, serving=False)
    scene.settle()
    assert scene.serving() == ["b"] * 8
    assert scene.log.count("InstanceLost") == 8
    assert scene.log.count("RolloutFailed") == 0
    assert scene.now == before, "the first loss is repaired at once"


def needing(scene: Scene, *, ready: bool) -> planner.Plan:
    """The plan where `web` needs `db`, which is in sync or not."""
    assert scene.wanted is not None
    wanted = replace(scene.wanted, spec=replace(scene.wanted.spec, depends_on=("db", "elsewhere")))
    known = scene.memory.services.get("web", ServiceMemory())
    stable = scene.known.get(known.stable.version) if known.stable else None
    db = Wish("db") if ready else Wish("db", held=Reason.MANIFEST_INVALID)
    live = LiveState(
        ENVIRONMENT, scene.now, tuple(scene.instances.values()), scene.images, scene.foreign, (), network_ready=True
    )
    wishes = {"web": Wish("web", wanted, stable), "db": db}
    return plan(Question(ENVIRONMENT, None, wishes, live, scene.memory, scene.now))


def test_an_unready_dependency_keeps_from_making_instances_only() -> None:
    scene = settled()
    scene.want("b")
    scene.settle_until("CreateInstance")
    scene.want("c")
    for _ in range(3):
        scene.step()
    made = next(name for name, i in scene.instances.items() if i.image.endswith("c"))
    scene.change(made, phase=Phase.CREATED)
    steps = needing(scene, ready=False).services["web"].steps
    assert StartInstance(made) in steps, "what is made already goes on: the old one may be gone"
    del scene.instances[made]
    waiting = needing(scene, ready=False).services["web"]
    assert waiting.reason is Reason.DEPENDENCY_NOT_READY
    assert not any(isinstance(step, CreateInstance | StartInstance) for step in waiting.steps)
    going = needing(scene, ready=True).services["web"].steps
    assert [type(step) for step in going if not isinstance(step, Transition)][:2] == [CreateInstance, StartInstance]


def test_the_way_back_does_not_wait_for_a_dependency() -> None:
    scene = settled(ports=PUBLISHED)
    old = next(iter(scene.instances))
    scene.want("b", ports=PUBLISHED)
    scene.dying.add(scene.wanted.version)
    scene.settle_until("RolloutFailed")
    for name in [name for name in scene.instances if name != old]:
        del scene.instances[name]
    assert scene.instances[old].phase is Phase.EXITED
    assert StartInstance(old) in needing(scene, ready=False).services["web"].steps
    kept = scene.instances.pop(old)
    assert any(isinstance(step, CreateInstance) for step in needing(scene, ready=False).services["web"].steps)
    scene.instances[old] = kept
    scene.settle()
    assert not needing(scene, ready=False).services["web"].steps


def test_report_only_replaces_a_lost_instance_whatever_else_was_removed() -> None:
    scene = settled(replicas=2, drift=DriftPolicy.REPORT)
    scene.want("b", replicas=2, drift=DriftPolicy.REPORT)
    while "Promoted" not in scene.log[-1:]:
        steps = (*scene.look().steps, *scene.service.steps)
        scene.do(steps[0]) if steps else scene.live()
    for name in [name for name, i in scene.instances.items() if i.image.endswith("a")]:
        del scene.instances[name]
    lost = next(iter(scene.instances))
    scene.change(lost, phase=Phase.EXITED, exit_code=3, serving=False)
    scene.settle()
    assert scene.serving() == ["b", "b"]


def test_the_time_in_which_nothing_could_be_done_is_not_held_against_a_version() -> None:
    scene = settled()
    scene.want("b")
    scene.step()
    scene.now += timedelta(hours=1)
    scene.able_since = {"web": scene.now - timedelta(minutes=1)}
    scene.settle()
    assert scene.serving() == ["b"]


def test_a_long_goodbye_of_the_old_one_is_not_held_against_the_new_one() -> None:
    slow = {"ports": PUBLISHED, "drain": Drain(timedelta(minutes=8), timedelta(seconds=10))}
    scene = settled(**slow)
    scene.want("b", **slow)
    ends_well_after_ten_minutes(scene)


def ends_well_after_ten_minutes(scene: Scene) -> None:
    for _ in range(60):
        scene.step()
        scene.now += timedelta(seconds=10)
    scene.settle()
    assert scene.serving() == ["b"]
    assert "RolloutFailed" not in scene.log


def test_one_that_does_not_listen_is_not_held_against_the_new_one_for_the_time_of_its_grace() -> None:
    slow = {"ports": PUBLISHED, "drain": Drain(timedelta(0), timedelta(minutes=8))}
    scene = settled(**slow)
    scene.stubborn.update(scene.instances)
    scene.want("b", **slow)
    ends_well_after_ten_minutes(scene)


def test_a_version_without_surge_can_be_returned_to() -> None:
    scene = settled()
    old = next(iter(scene.instances))
    scene.want("b", ports=PUBLISHED, rollout=Rollout(surge=0, progress_deadline=timedelta(minutes=5)))
    scene.sick.add(scene.wanted.version)
    scene.settle_until("RolloutFailed")
    del scene.instances[old]
    scene.settle()
    assert scene.serving() == ["a"]


def test_a_version_with_a_host_port_runs_once_however_many_the_newest_wants() -> None:
    scene = settled(ports=PUBLISHED)
    scene.want("b", replicas=3)
    scene.dying.add(scene.wanted.version)
    scene.settle()
    assert scene.serving() == ["a"]
    assert scene.service.health is ServiceHealth.HEALTHY


def test_stop_first_where_the_kept_one_is_removed_by_hand_makes_it_anew() -> None:
    scene = settled(ports=PUBLISHED)
    scene.want("b", ports=PUBLISHED)
    scene.sick.add(scene.wanted.version)
    scene.settle_until("TerminateInstance")
    del scene.instances[next(name for name, i in scene.instances.items() if i.image.endswith("a"))]
    scene.settle()
    assert scene.serving() == ["a"]


@pytest.mark.parametrize("policy", DriftPolicy)
def test_a_changed_instance_with_a_host_port_is_replaced_by_one_that_holds_it(policy: DriftPolicy) -> None:
    scene = settled(ports=PUBLISHED, drift=policy)
    old = next(iter(scene.instances))
    scene.change(old, differences=(Difference(Reason.DRIFT_CHANGED, "memory"),))
    scene.settle()
    assert (old in scene.instances) is (policy is DriftPolicy.REPORT)
    assert scene.serving() == ["a"]


def test_losses_of_the_old_version_do_not_delay_its_fix() -> None:
    scene = settled()
    for _ in range(5):
        scene.change(next(iter(scene.instances)), phase=Phase.EXITED, exit_code=3, serving=False)
        scene.settle()
    scene.change(next(iter(scene.instances)), phase=Phase.EXITED, exit_code=3, serving=False)
    scene.step()
    scene.want("b")
    before = scene.now
    scene.settle_until("Promoted")
    assert scene.now - before < timedelta(seconds=1)


def test_an_instance_that_holds_a_host_port_drains_also_when_its_name_was_never_given_out() -> None:
    scene = settled(ports=PUBLISHED)
    scene.instances.clear()
    scene.settle_until("StartInstance")
    scene.want("b", ports=PUBLISHED)
    scene.settle()
    assert scene.log.index("DetachTraffic") < scene.log.index("TerminateInstance")


def test_all_sick_are_replaced_and_the_sick_serve_until_then() -> None:
    scene = settled(replicas=3)
    for name in list(scene.instances):
        scene.change(name, health=HealthStatus.UNHEALTHY)
    scene.step()
    old = set(scene.instances)
    scene.live = lambda: [  # type: ignore[method-assign]
        scene.change(name, health=HealthStatus.UNHEALTHY if name in old else HealthStatus.HEALTHY)
        for name, i in list(scene.instances.items())
        if i.phase is Phase.RUNNING
    ]
    scene.watch = lambda world: None if any(i.serving for i in world.instances.values()) else pytest.fail("all gone")
    for name in old:
        scene.change(name, health=HealthStatus.UNHEALTHY)
    scene.settle()
    assert len(scene.serving()) == 3
    assert not old & set(scene.instances)


def test_sick_instances_of_a_larger_scale_do_not_block_the_fix() -> None:
    scene = settled(replicas=4)
    scene.sick.add(scene.wanted.version)
    scene.live()
    scene.want("b", replicas=1)
    scene.settle()
    assert scene.serving() == ["b"]
    assert len(scene.instances) == 1


def test_scaling_down_in_the_middle_of_a_release_keeps_what_is_asked_for() -> None:
    scene = settled(replicas=4)
    scene.want("b", replicas=4)
    scene.settle_until("DetachTraffic")
    scene.want("b", replicas=2)
    scene.watch = always(2)
    scene.settle()
    assert scene.serving() == ["b", "b"]
    assert len(scene.instances) == 2


def test_what_an_overtaken_release_made_and_did_not_start_goes() -> None:
    scene = settled()
    scene.want("b")
    scene.settle_until("CreateInstance", live=False)
    scene.want("c")
    scene.settle()
    assert scene.serving() == ["c"]
    assert len(scene.instances) == 1


def test_an_image_that_vanishes_is_asked_for_again() -> None:
    scene = settled()
    del scene.instances[next(iter(scene.instances))]
    pinned = scene.wanted.spec.image.pinned
    scene.images[pinned] = ImageState(ImageStatus.PULLING)
    assert "the image" in scene.service.waiting
    scene.images[pinned] = ImageState(ImageStatus.ABSENT)
    scene.settle()
    assert scene.serving() == ["a"]


def test_an_instance_out_of_traffic_because_it_is_not_attached_yet_is_awaited_with_its_last_word() -> None:
    scene = Scene()
    scene.settle_until("StartInstance", live=False)
    name = next(iter(scene.instances))
    scene.change(name, detail="503")
    assert "to become healthy (503)" in scene.service.waiting
    scene.change(name, health=HealthStatus.HEALTHY)
    assert AttachTraffic(name, "web") in scene.service.steps
    assert What.INSTANCE_HEALTHY in {step.what for step in scene.service.steps if isinstance(step, Transition)}
