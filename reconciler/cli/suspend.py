"""`reconciler suspend`, `resume`, `promote`: a person's word to the journal, where a running daemon finds it."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Annotated

import typer

from reconciler import journal_access
from reconciler.adapters.clock import SystemClock
from reconciler.cli.common import RefusedError, SettingsOption, choose, printable, read_settings, say, unknown
from reconciler.core.memory import EnvironmentMemory, RolloutMemory, ServiceMemory, Suspension
from reconciler.core.names import short
from reconciler.core.record import Entry, What
from reconciler.ports import Journal
from reconciler.settings import Settings

WHY_LIMIT = 500

Target = Annotated[str, typer.Argument(metavar="TARGET", help="ENVIRONMENT or ENVIRONMENT/SERVICE.")]
ServiceTarget = Annotated[str, typer.Argument(metavar="ENVIRONMENT/SERVICE", help="Which service.")]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the record.")]


def suspend(target: Target, *, why: Why = "", settings: SettingsOption = None) -> None:
    """Leave an environment or a service alone until `resume`: nothing there is started, replaced or removed."""
    _tell(target, What.SUSPENDED, why, read_settings(settings))


def resume(target: Target, *, why: Why = "", settings: SettingsOption = None) -> None:
    """End a suspension. For a service this also lifts its quarantines: the failed version is tried again."""
    _tell(target, What.RESUMED, why, read_settings(settings))


def promote(target: ServiceTarget, *, why: Why = "", settings: SettingsOption = None) -> None:
    """Let a release that is paused at a stage go on to the next one."""
    _check_why(why)
    environment, _, service = target.partition("/")
    if not service:
        raise RefusedError(f"{target!r} names no service", remedy="Write ENVIRONMENT/SERVICE")
    with _opened(environment, read_settings(settings)) as (journal, clock):
        memory = journal.memory(environment)
        _check_service(environment, service, memory)
        known = memory.services.get(service, ServiceMemory())
        rollout = known.rollout
        if rollout is None or rollout.paused <= rollout.continued:
            raise RefusedError(_not_paused(rollout, known), where=target, remedy="See `reconciler status`")
        record = journal.append(
            replace(
                _entry(clock, What.CONTINUED, environment, service, why),
                from_version=known.stable,
                to_version=rollout.to,
                revision=rollout.to.revision,
                details={"stage": rollout.paused},
            )
        )[0].index
    held = (
        " It is suspended: nothing moves before `reconciler resume`." if memory.suspension or known.suspension else ""
    )
    say(f"{target}: {short(rollout.to.version)} goes on from stage {rollout.paused + 1} (record {record}).{held}")


def _not_paused(rollout: RolloutMemory | None, known: ServiceMemory) -> str:
    """Where the rollout stands, for somebody who took it for paused."""
    if rollout is None:
        stable = f"; {short(known.stable.version)} is stable" if known.stable is not None else ""
        since = f" since {_moment(known.promoted_at)}" if stable and known.promoted_at is not None else ""
        return f"nothing is under way{stable}{since}"
    version = short(rollout.to.version)
    if rollout.shifted_at is None:
        return f"{version} is on its way since {_moment(rollout.started_at)} and has no traffic yet; it is not paused"
    told = "; a person said already to go on" if rollout.paused >= rollout.stage else ""
    at = f"{version} is at stage {rollout.stage + 1} and has its traffic since {_moment(rollout.shifted_at)}"
    return f"{at}; it is not paused{told}"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _tell(target: str, what: What, why: str, settings: Settings) -> None:
    _check_why(why)
    environment, _, service = target.partition("/")
    with _opened(environment, settings) as (journal, clock):
        memory = journal.memory(environment)
        if service or target.endswith("/"):
            _check_service(environment, service, memory)
        held = _suspension(memory, service)
        if what is What.SUSPENDED and held is not None:
            say(f"{target} is already suspended, since {_moment(held.at)} by {held.by}: {held.why or '-'}")
            return
        record = journal.append(_entry(clock, what, environment, service, why))[0].index
    say(f"{target}: {'suspended' if what is What.SUSPENDED else 'resumed'} (record {record})")


def _check_why(why: str) -> None:
    if len(why) > WHY_LIMIT:
        raise RefusedError(f"--why has {len(why)} characters", remedy=f"Keep it within {WHY_LIMIT}")


@contextmanager
def _opened(environment: str, settings: Settings) -> Iterator[tuple[Journal, SystemClock]]:
    """The journal, to read it and add a person's word about a configured environment."""
    choose([environment], settings)
    clock = SystemClock()
    journal = journal_access.open_journal(settings, clock, act=False)
    try:
        yield journal, clock
    finally:
        journal.close()


def _entry(clock: SystemClock, what: What, environment: str, service: str, why: str) -> Entry:
    return Entry(
        at=clock.now(),
        what=what,
        environment=environment,
        service=service,
        author=_person(),
        trigger="command line",
        reason=printable(why),
    )


def _person() -> str:
    """Who types this; behind sudo, the person before it."""
    sudo = os.environ.get("SUDO_USER", "")
    return printable(sudo or getpass.getuser())


def _suspension(memory: EnvironmentMemory, service: str) -> Suspension | None:
    if not service:
        return memory.suspension
    known = memory.services.get(service)
    return known.suspension if known is not None else None


def _check_service(environment: str, service: str, memory: EnvironmentMemory) -> None:
    known = {*memory.services, *memory.good}
    if service not in known:
        what = f"the journal knows no service {service!r} in {environment}"
        raise unknown(what, service, known, prefix=f"{environment}/")
