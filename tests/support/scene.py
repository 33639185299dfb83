"""A small pure world for tests of the core: instances as values, steps applied to them, entries folded at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from reconciler.core import names
from reconciler.core.delivery import Rollout
from reconciler.core.fold import remember
from reconciler.core.live import Foreign, HealthStatus, ImageState, ImageStatus, Instance, LiveState, Phase
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.model import Drain, ImageRef, Port, ServiceSpec, Target, version_of
from reconciler.core.plan import plan
from reconciler.core.question import Question, Wish
from reconciler.core.record import Entry, What
from reconciler.core.status import Plan, ServicePlan, Sync
from reconciler.core.steps import (
    AttachTraffic,
    CreateInstance,
    DetachTraffic,
    EnsureNetwork,
    KillInstance,
    PullImage,
    RemoveInstance,
    StartInstance,
    Step,
    SweepOrphan,
    TerminateInstance,
    Transition,
)
from reconciler.execute import describe

START = datetime(2026, 1, 1, tzinfo=UTC)
ENVIRONMENT = "prod"


def spec(image: str = "a", **changes: object) -> ServiceSpec:
    """A service `web` whose image digest is made of one letter, so that versions are told apart at a glance."""
    plain = ServiceSpec(
        "web",
        ImageRef("registry.test/web", "sha256:" + image * 64, "1"),
        drain=Drain(timedelta(seconds=5), timedelta(seconds=10)),
        rollout=Rollout(progress_deadline=timedelta(minutes=5)),
    )
    return replace(plain, **changes)


def target(image: str = "a", revision: str = "r1", **changes: object) -> Target:
    made = spec(image, **changes)
    return Target(made, version_of(made, {}), revision)


PUBLISHED = (Port("http", 8080, host=8080),)


@dataclass
class Scene:
    """One service in one environment. `advance` moves time, `step` does one round, `settle` all of them."""

    wanted: Target | None = field(default_factory=target)
    now: datetime = START
    memory: EnvironmentMemory = field(default_factory=EnvironmentMemory)
    instances: dict[str, Instance] = field(default_factory=dict)
    images: dict[str, ImageState] = field(default_factory=dict)
    known: dict[str, Target] = field(default_factory=dict)
    foreign: tuple[Foreign, ...] = ()
    orphans: tuple[str, ...] = ()
    network: bool = False
    up_since: datetime = START
    able_since: dict[str, datetime] = field(default_factory=dict)
    suspended: str = ""
    wish: Callable[[Wish], Wish] = lambda wish: wish
    sick: set[str] = field(default_factory=set)
    dying: set[str] = field(default_factory=set)
    stubborn: set[str] = field(default_factory=set)
    log: list[str] = field(default_factory=list)
    watch: Callable[[Scene], None] = lambda scene: None

    @property
    def service(self) -> ServicePlan:
        return self.look().services["web"]

    def want(self, image: str, revision: str = "", **changes: object) -> None:
        """A commit: Git now declares this."""
        self.wanted = target(image, revision or f"r-{image}", **changes)

    def look(self) -> Plan:
        wishes = {}
        if self.wanted is not None:
            self.known[self.wanted.version] = self.wanted
            stable = self.memory.services["web"].stable if "web" in self.memory.services else None
            known = self.known.get(stable.version) if stable else None
            fallback = replace(known, spec=known.spec.operated_as(self.wanted.spec)) if known else None
            wishes["web"] = self.wish(Wish("web", self.wanted, fallback, self.suspended))
        live = LiveState(
            ENVIRONMENT,
            self.now,
            tuple(self.instances.values()),
            dict(self.images),
            self.foreign,
            self.orphans,
            self.network,
        )
        return plan(self.question(wishes, live))

    def question(self, wishes: dict[str, Wish], live: LiveState) -> Question:
        """What the plan is asked: a place for kinds of scenes that know more."""
        return Question(ENVIRONMENT, None, wishes, live, self.memory, self.now, None, self.up_since, self.able_since)

    def record(self, what: What, step: Step | None = None, **changes: object) -> None:
        details = dict(describe(step)) if step is not None and not isinstance(step, Transition) else {}
        entry = Entry(self.now, what, ENVIRONMENT, "web", details=details)
        self.memory = remember(self.memory, replace(entry, **changes))

    def step(self) -> bool:
        """One round: everything the plan says, then what happens by itself. False when nothing was to be done."""
        found = self.look()
        mine = found.services["web"].steps if "web" in found.services else ()
        for service, step in [*(("", step) for step in found.steps), *(("web", step) for step in mine)]:
            self.do(step, service)
            self.watch(self)
        self.live()
        return bool(found.steps or mine)

    def settle(self, rounds: int = 200) -> None:
        """Rounds until nothing is left to do; time moves to the next recheck when only that is waited for."""
        for _ in range(rounds):
            if self.step():
                continue
            found = self.look()
            if found.recheck_at is None or found.recheck_at > self.now + timedelta(minutes=2):
                return
            self.now = max(found.recheck_at, self.now + timedelta(milliseconds=1))
        raise AssertionError("it does not settle: " + " ".join(self.log[-30:]))

    def settle_until(self, word: str, *, live: bool = True) -> None:
        """As `settle`, up to the end of the round that does or records `word`; without `live` up to that step."""
        self.log.clear()
        for _ in range(200):
            if word in self.log:
                return
            if not live:
                self.do(next(iter((*self.look().steps, *self.service.steps))))
            elif not self.step():
                self.now = max(self.look().recheck_at or self.now, self.now + timedelta(milliseconds=1))
        raise AssertionError(f"no {word}: " + " ".join(self.log[-30:]))

    def do(self, step: Step, service: str = "web") -> None:
        if isinstance(step, Transition):
            self.log.append(step.what.value)
            self.record(
                step.what,
                service=service,
                reason=step.reason,
                details=step.details,
                from_version=step.from_version,
                to_version=step.to_version,
            )
            return
        self.record(What.INTENT, step, service=service)
        self.effect(step)
        self.record(What.DONE, step, service=service)

    def effect(self, step: Step) -> None:  # noqa: C901 - one case for each effect
        self.log.append(type(step).__name__)
        match step:
            case EnsureNetwork():
                self.network = True
            case PullImage(image):
                self.images[image] = ImageState(ImageStatus.PRESENT)
            case CreateInstance():
                assert self.images[step.spec.image.pinned].status is ImageStatus.PRESENT
                self.instances.setdefault(step.name, made(step, self.now))
            case StartInstance(name):
                self.change(name, phase=Phase.RUNNING, started_at=self.now, health=HealthStatus.STARTING)
            case AttachTraffic(name):
                assert self.instances[name].health is HealthStatus.HEALTHY, "traffic to an instance not known healthy"
                self.change(name, serving=True)
            case DetachTraffic(name):
                self.change(name, serving=False)
            case TerminateInstance(name):
                if name not in self.stubborn:
                    self.change(name, phase=Phase.EXITED, exit_code=0, serving=False, finished_at=self.now)
            case KillInstance(name):
                self.change(name, phase=Phase.EXITED, exit_code=137, serving=False, finished_at=self.now)
            case RemoveInstance(name):
                self.instances.pop(name, None)
            case SweepOrphan(name):
                self.orphans = tuple(other for other in self.orphans if other != name)

    def live(self) -> None:
        """What instances do by themselves: become healthy, fall sick, or die, by the version in their name."""
        for name, instance in list(self.instances.items()):
            if instance.phase is not Phase.RUNNING:
                continue
            if instance.version in self.dying:
                self.change(name, phase=Phase.EXITED, exit_code=3, serving=False)
            elif instance.version in self.sick:
                self.change(name, health=HealthStatus.UNHEALTHY)
            else:
                self.change(name, health=HealthStatus.HEALTHY)

    def change(self, name: str, **changes: object) -> None:
        self.instances[name] = replace(self.instances[name], **changes)

    def serving(self) -> list[str]:
        """The versions that carry traffic well, by their first letter's digest."""
        return sorted(
            instance.image[-1]
            for instance in self.instances.values()
            if instance.serving and instance.phase is Phase.RUNNING and instance.health is HealthStatus.HEALTHY
        )


def made(step: CreateInstance, now: datetime) -> Instance:
    return Instance(
        id=step.name,
        name=step.name,
        service=step.spec.name,
        version=step.version,
        revision=step.revision,
        ordinal=step.ordinal,
        image=step.spec.image.pinned,
        phase=Phase.CREATED,
        created_at=now,
    )


def name_of(wanted: Target, ordinal: int) -> str:
    return names.instance(ENVIRONMENT, "web", wanted.version, ordinal)


def settled(**changes: object) -> Scene:
    """A world in which version a is stable."""
    scene = Scene(target("a", **changes))
    scene.settle()
    assert scene.service.sync is Sync.SYNCED
    scene.log.clear()
    return scene
