"""Groups of instances on an engine with controllers of its own: how large they are, and by what they are recognised.

Pure. What is declared to the engine is made out of the same values by `core/kubernetes_objects.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import fields
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any

import rfc8785

from reconciler.core.delivery import Strategy
from reconciler.core.model import ServiceSpec

WHOLE = 100
"""The sum of the shares of a service's groups."""


def of_its_own(spec: ServiceSpec) -> bool:
    """Whether each version has a group of its own; else one group follows from version to version."""
    return spec.rollout.strategy in (Strategy.BLUE_GREEN, Strategy.CANARY)


def operated(spec: ServiceSpec, replicas: int | None) -> str:
    """The digest of how a group of `replicas` is operated: all that is declared of it beside its version."""
    rollout, bundle = spec.rollout, spec.bundle
    return _digest(
        ("replicas", replicas),
        ("drain", spec.drain),
        ("surge", rollout.surge),
        ("unavailable", rollout.unavailable),
        ("progressDeadline", rollout.progress_deadline),
        ("stopFirst", spec.stop_first),
        ("scaling", spec.scaling),
        ("prune", bundle.prune if bundle is not None else None),
    )


def route_operated(spec: ServiceSpec, *, exact: bool) -> str:
    """The digest of how requests reach a service, whoever of its groups gets them; `exact`: by a gateway's weights."""
    ports = tuple((port.name, port.container, port.protocol) for port in spec.ports)
    return _digest(("ports", ports), ("route", spec.route if exact else None), ("exact", exact))


def split(replicas: int, surge: int, weight: int) -> tuple[int, int]:
    """How many instances (of the candidate, of the stable version) come nearest to `weight` per cent by number alone.

    At least `replicas` in all and at most `surge` (or one) more; each side has one where it has a share.
    """
    if weight <= 0:
        return 0, replicas
    if weight >= WHOLE:
        return replicas, 0
    most = replicas + max(surge, 1)
    pairs = [(mine, total - mine) for total in range(max(replicas, 2), most + 1) for mine in range(1, total)]
    return min(pairs, key=lambda pair: (abs(pair[0] * WHOLE - weight * sum(pair)) / sum(pair), sum(pair)))


@lru_cache(maxsize=20_000)
def _digest(*parts: tuple[str, Hashable]) -> str:
    """Of the values of a service these are asked for at every look, and seldom change."""
    return hashlib.sha256(rfc8785.dumps({name: _plain(value) for name, value in parts})).hexdigest()


def _plain(value: object) -> Any:  # noqa: ANN401 - JSON
    match value:
        case timedelta():
            return value.total_seconds()
        case StrEnum():
            return value.value
        case tuple():
            return [_plain(each) for each in value]
        case _ if hasattr(value, "__dataclass_fields__"):
            return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}  # type: ignore[arg-type]
        case _:
            return value
