"""Which commands bring one proxy's backend to the wanted table, in which order. Pure; it asks nothing.

The order is that of a release without a lost request: bring up, see it up, weigh, and only then take away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconciler.adapters.haproxy_table import Place
from reconciler.core.live import ServerMode
from reconciler.core.steps import Share

_WILLING = (ServerMode.MAINT, ServerMode.DRAIN, ServerMode.READY)


class Full(Exception):  # noqa: N818 - a fact, not an error: the caller makes it one
    """There are more new addresses than free places."""

    def __init__(self, missing: int) -> None:
        self.missing = missing
        super().__init__(missing)


@dataclass(frozen=True, slots=True)
class Raised:
    """How the READY ones are brought up: the commands, which get traffic that they had not, and which of these have to
    be proven by the proxy's checks.

    A new address, and one that was only just given, has to be. One that comes back from drain or maint was up here
    before: that the proxy calls it up is enough, since the next check may be a whole interval away.
    """

    commands: tuple[str, ...]
    raised: frozenset[tuple[str, int]]
    unproven: frozenset[tuple[str, int]]


def assign(places: Sequence[Place], shares: Iterable[Share]) -> dict[str, Share]:
    """Which slot each share has or gets, by slot. Raises Full."""
    wanted = {(share.address, share.port): share for share in shares}
    slots: dict[str, Share] = {}
    best = sorted(places, key=lambda place: (-_WILLING.index(place.mode), -place.sessions))
    for place in best:
        if place.address and place.at in wanted:
            slots[place.slot] = wanted.pop(place.at)
    free = [place for place in places if place.slot not in slots and is_free(place)]
    free.sort(key=lambda place: place.address != "")
    if len(free) < len(wanted):
        raise Full(len(wanted) - len(free))
    for place, share in zip(free, wanted.values(), strict=False):
        slots[place.slot] = share
    return slots


def is_free(place: Place) -> bool:
    """Nobody would notice if the place got another address: it is out of traffic, and nothing goes on there."""
    return place.mode is ServerMode.MAINT and not place.sessions


def raising(places: Sequence[Place], slots: dict[str, Share]) -> Raised:
    """Give new addresses their places, and bring up what shall be READY.

    They get no weight yet while others carry the traffic: an address that does not answer shall cost no request.
    When nobody does, there is nothing to lose by the whole weight.
    """
    carried = any(place.carries for place in places)
    commands: list[str] = []
    raised: set[tuple[str, int]] = set()
    unproven: set[tuple[str, int]] = set()
    for place in places:
        share = slots.get(place.slot)
        if share is None:
            continue
        at = share.address, share.port
        new = place.at != at
        if new:
            commands.append(f"set server {_name(place)} addr {share.address} port {share.port}")
        if share.mode is ServerMode.READY:
            if new or place.mode is not ServerMode.READY or not place.weight:
                raised.add(at)
            if new or (place.mode is ServerMode.READY and not place.weight):
                unproven.add(at)
            if new or place.mode is not ServerMode.READY:
                weight = 0 if carried else share.weight
                commands += _weigh(place, weight)
                commands.append(f"set server {_name(place)} state ready")
    return Raised(tuple(commands), frozenset(raised), frozenset(unproven))


def not_up(
    places: Sequence[Place],
    slots: dict[str, Share],
    raised: frozenset[tuple[str, int]],
    unproven: frozenset[tuple[str, int]],
) -> list[Share]:
    """The shares that get traffic and are not up yet. One without weight takes nothing over, so that nobody waits.

    Nor for one that had traffic and is down: it carries nothing, and would keep everybody else from a release.
    """
    there = {place.slot: place for place in places}
    return [
        share
        for slot, share in slots.items()
        if share.mode is ServerMode.READY
        and share.weight
        and (share.address, share.port) in raised
        and not _up(there[slot], share, unproven)
    ]


def _up(place: Place, share: Share, unproven: frozenset[tuple[str, int]]) -> bool:
    at = share.address, share.port
    return place.at == at and place.mode is ServerMode.READY and place.up and (place.proven or at not in unproven)


def settling(places: Sequence[Place], slots: dict[str, Share]) -> tuple[str, ...]:
    """The exact weights, the rises first so that somebody always carries the traffic; then what is taken away."""
    rises: list[str] = []
    falls: list[str] = []
    taken: list[str] = []
    for place in places:
        share = slots.get(place.slot)
        if share is None:
            if place.mode is not ServerMode.MAINT:
                taken.append(f"set server {_name(place)} state maint")
        elif share.mode is ServerMode.READY:
            (rises if share.weight > place.weight else falls).extend(_weigh(place, share.weight))
        else:
            if place.mode is not share.mode:
                taken.append(f"set server {_name(place)} state {share.mode.value}")
            taken += _weigh(place, share.weight)
    return (*rises, *falls, *taken)


def freeing(places: Sequence[Place], slots: dict[str, Share]) -> tuple[str, ...]:
    """Take the address from the places that nobody has any more and where nothing goes on."""
    return tuple(
        f"set server {_name(place)} addr 0.0.0.0"
        for place in places
        if place.slot not in slots and place.address and is_free(place)
    )


def cutting(places: Iterable[Place]) -> tuple[str, ...]:
    """Cut what goes on at these places."""
    return tuple(f"shutdown sessions server {_name(place)}" for place in places)


def vacating(places: Iterable[Place]) -> tuple[str, ...]:
    """Out of traffic at once, whatever goes on there."""
    commands: list[str] = []
    for place in places:
        if place.mode is not ServerMode.MAINT:
            commands.append(f"set server {_name(place)} state maint")
        commands += cutting([place])
        commands.append(f"set server {_name(place)} addr 0.0.0.0")
    return tuple(commands)


def _weigh(place: Place, weight: int) -> list[str]:
    return [] if place.weight == weight else [f"set server {_name(place)} weight {weight}"]


def _name(place: Place) -> str:
    return f"{place.backend}/{place.slot}"
