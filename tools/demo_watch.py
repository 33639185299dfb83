"""The demo's eyes: it follows the journal as an auditor would, and asks the visitors what they were answered.

It only looks. What it shows is what stands in the journal, with the times that stand there, and what visitors counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from rich.text import Text

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.journal import SqlJournal
from reconciler.core import names
from reconciler.core.errors import ReconcilerError
from reconciler.core.record import Entry, Record, VersionRef, What
from tools.demo_load import PREVIEW as PREVIEW_HOST
from tools.demo_load import Visitors, bar
from tools.demo_screen import Screen
from tools.demo_stage import Stage

PAUSE = 0.05
DEADLINE = 180.0
OPEN_SECONDS = 60.0
PREVIEW = ".preview"
EFFECTS = {
    "EnsureNetwork": ("a private network", ""),
    "PullImage": ("image {version} pulled for {service}", ""),
    "StartInstance": ("+ {instance} starts", ""),
    "AttachTraffic": ("● {instance} is healthy, takes requests", "green"),
    "DetachTraffic": ("○ {instance} takes no new requests", "yellow"),
    "RemoveInstance": ("- {instance} is gone", "red"),
    "EnsureProxy": ("the proxy has its configuration", ""),
}
WORDS = {
    What.REVISION_ADMITTED: ("revision {revision} admitted", "blue"),
    What.ROLLOUT_STARTED: ("{service} {before} -> {after} begins", "bold"),
    What.INSTANCE_WARM: ("● {instance} is healthy and warm", "green"),
    What.STAGE_PASSED: ("{service} {after}: {stage} is passed", "bold green"),
    What.SCALED: ("{service} {said}", "bold"),
    What.PROMOTED: ("{service} {after} is promoted{took}", "bold green"),
    What.ROLLOUT_FAILED: ("{service} {after} fails{took}: {reason}. Quarantined", "bold red"),
    What.ROLLED_BACK: ("{service} is back at {after}", "bold green"),
    What.QUARANTINE_LIFTED: ("the quarantine of {service} is lifted", "bold green"),
    What.DRIFT_FOUND: ("{instance}: {differences}", "bold red"),
    What.DRIFT_REPAIRED: ("the drift of {service} is repaired", "bold green"),
    What.FAILED: ("failed: {reason}: {said}", "red"),
    What.STALLED: ("{service} is stalled: {reason}: {said}", "bold red"),
    What.REVISION_REJECTED: ("revision {revision} rejected: {reason}", "bold red"),
    What.INSTANCE_LOST: ("{instance} is lost: {said}", "red"),
}


class Missed(Exception):  # noqa: N818 (a story's word: what was awaited did not come)
    """What was awaited did not happen in time."""


class Watch:
    """Follows one demo from the start of its daemon."""

    def __init__(self, stage: Stage, screen: Screen, visitors: Visitors) -> None:
        self._stage = stage
        self._screen = screen
        self._visitors = visitors
        self._journal = self._open()
        self._index = 0
        self._tags: dict[str, str] = {}
        self._tables: dict[str, str] = {}
        self._drawn = 0.0
        self.acted = datetime.now(UTC)

    def close(self) -> None:
        """Look no more."""
        self._journal.close()

    def _open(self) -> SqlJournal:
        end = time.monotonic() + OPEN_SECONDS
        while True:
            try:
                return SqlJournal.open(f"sqlite:///{self._stage.journal}", SystemClock(), "demo", act=False)
            except ReconcilerError:
                if time.monotonic() > end:
                    raise
                time.sleep(PAUSE)

    def act(self) -> None:
        """A person does something now: times are counted from here."""
        self.acted = datetime.now(UTC)

    def until(
        self,
        awaited: str,
        enough: Callable[[Sequence[Record]], bool],
        *,
        quiet: frozenset[What] = frozenset(),
        versions: tuple[str, str] | None = None,
    ) -> list[Record]:
        """Show the records that come, but those of `quiet` kinds, until they are `enough`; all of them.

        With `versions`, the old one and the new, the shares that the visitors see are drawn each second.
        Raises Missed after DEADLINE seconds, or when the daemon is gone.
        """
        found: list[Record] = []
        self._drawn = time.monotonic()
        end = time.monotonic() + DEADLINE
        with self._screen.waiting(f"waiting for {awaited}"):
            while not enough(found):
                fresh = list(self._journal.records(after=self._index))
                for record in fresh:
                    self._index = record.index
                    self._show(record, quiet)
                found.extend(fresh)
                if versions is not None:
                    self._draw(*versions)
                if not fresh:
                    if time.monotonic() > end:
                        raise Missed(f"{awaited} did not come within {DEADLINE:.0f} s")
                    counts = f"   {self._visitors.counts()}" if self._visitors.asking else ""
                    self._screen.footer(f"waiting for {awaited}{counts}")
                    time.sleep(PAUSE)
        return found

    def draw(self, before: str, after: str, split: Mapping[str, int] | None = None) -> None:
        """Draw the shares of two versions: those of `split`, or of the last second with how many answers that had."""
        at = (datetime.now(UTC) - self.acted).total_seconds()
        shown = self._visitors.split() if split is None else split
        self._screen.event(at, bar(shown, before, after), f"{sum(shown.values())}/s" if split is None else "")
        self._drawn = time.monotonic()

    def _draw(self, before: str, after: str) -> None:
        if time.monotonic() - self._drawn >= 1.0:
            self.draw(before, after)

    def _show(self, record: Record, quiet: frozenset[What]) -> None:
        entry = record.entry
        for version in (entry.from_version, entry.to_version):
            if version is not None:
                self._tags[names.short(version.version)] = self._stage.version_of(version.image)
        if entry.details.get("effect") == "CreateInstance":
            tag = self._stage.version_of(str(entry.details.get("image")))
            self._tags[names.short(str(entry.details.get("version")))] = tag
        told = None if entry.what in quiet else self._words(entry)
        if told is not None:
            seconds = (entry.at - self.acted).total_seconds()
            self._screen.event(seconds, told, str(self._visitors.counts()) if self._visitors.asking else "")

    def _words(self, entry: Entry) -> Text | None:
        """A record in words; None for those that the story leaves out."""
        details = entry.details
        effect = str(details.get("effect", ""))
        if entry.what is What.DONE and effect == "ShiftTraffic":
            return self._table(str(details["name"]), details["shares"], entry.service)
        if entry.what is What.DONE and effect in EFFECTS:
            words, style = EFFECTS[effect]
            version = self._stage.version_of(str(details.get("name", "")))
            name = self.instance(str(details.get("name", "")))
            return Text(words.format(instance=name, version=version, service=entry.service), style)
        if entry.what not in WORDS:
            return None
        words, style = WORDS[entry.what]
        return Text(
            words.format(
                revision=entry.revision[:7],
                service=entry.service,
                before=self.tag(entry.from_version),
                after=self.tag(entry.to_version),
                took=f" after {entry.duration.total_seconds():.1f} s" if entry.duration else "",
                trigger=entry.trigger,
                reason=entry.reason,
                instance=self.instance(str(details.get("name", ""))),
                differences=details.get("differences", ""),
                stage=f"the step of {details['weight']} %" if details.get("weight") else "the preview",
                said=details.get("said", ""),
            ),
            style,
        )

    def tag(self, version: VersionRef | None) -> str:
        """The tag of a version's image."""
        return self._stage.version_of(version.image) if version is not None else "nothing"

    def instance(self, name: str) -> str:
        """The name of an instance for a person: service, version, ordinal."""
        parts = name.split(".")
        if len(parts) != 5:
            return name
        ordinal = int(parts[4])
        number = f"#{ordinal}" if ordinal < names.BASELINE else f"#{ordinal - names.BASELINE} for comparison"
        return f"{parts[2]} {self._tags.get(parts[3], '?')} {number}"

    def _table(self, backend: str, places: Mapping[str, str], service: str) -> Text | None:
        """A table of the proxy in words; None when nobody is in it, or when it says the same as the last time."""
        weights: dict[str, int] = {}
        for name, place in places.items():
            tag = self._tags.get(name.split(".")[3], "?")
            weights[tag] = weights.get(tag, 0) + weight(place)
        total = sum(weights.values())
        shares = ", ".join(f"{tag} {given / total * 100:.0f} %" for tag, given in sorted(weights.items()) if given)
        words = f"⇄ {PREVIEW_HOST if backend.endswith(PREVIEW) else service}: {shares}"
        if not shares or self._tables.get(backend) == words:
            return None
        self._tables[backend] = words
        return Text(words, "cyan")


def weight(place: str) -> int:
    """The weight of an instance in a table as the journal has it: `ready 100`, `drain`."""
    word, _, number = place.partition(" ")
    return int(number) if word == "ready" else 0


def tables(records: Sequence[Record], service: str, *, preview: bool = False) -> list[Record]:
    """The records of the proxy's new tables for a service."""
    found = effects(records, "ShiftTraffic", service)
    return [r for r in found if str(r.entry.details["name"]).endswith(PREVIEW) is preview]


def kinds(records: Sequence[Record], what: What, service: str = "") -> list[Record]:
    """The records of one kind, of one service where it is named."""
    return [r for r in records if r.entry.what is what and (not service or r.entry.service == service)]


def effects(records: Sequence[Record], effect: str, service: str = "") -> list[Record]:
    """The records of effects that were done."""
    return [r for r in kinds(records, What.DONE, service) if r.entry.details.get("effect") == effect]
