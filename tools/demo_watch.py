"""The demo's eyes: it follows the journal as an auditor would, and reads what the visitor counted.

It only looks. What it shows is what stands in the journal, with the times that stand there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.text import Text

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.journal import SqlJournal
from reconciler.core import names
from reconciler.core.errors import ReconcilerError
from reconciler.core.record import Entry, Record, VersionRef, What
from tools.demo_screen import Screen
from tools.demo_stage import Stage

PAUSE = 0.05
COUNT_SECONDS = 0.15
DEADLINE = 60.0
OPEN_SECONDS = 15.0
TOTALS = re.compile(r"(\d+) requests, (\d+) answered, (\d+) failed(?:: (.*))?$")
EFFECTS = {
    "EnsureNetwork": ("a private network", ""),
    "PullImage": ("image {version} pulled for {service}", ""),
    "StartInstance": ("+ {instance} starts", ""),
    "AttachTraffic": ("● {instance} is healthy, takes requests", "green"),
    "DetachTraffic": ("○ {instance} takes no new requests", "yellow"),
    "RemoveInstance": ("- {instance} is gone", "red"),
}


WORDS = {
    What.REVISION_ADMITTED: ("revision {revision} admitted", "blue"),
    What.ROLLOUT_STARTED: ("{service} {before} -> {after} begins", "bold"),
    What.PROMOTED: ("{service} {after} is promoted{took}", "bold green"),
    What.ROLLOUT_FAILED: ("{service} {after} fails{took}: {reason}. It is quarantined", "bold red"),
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


@dataclass(frozen=True)
class Counts:
    """What the visitor counted since it began."""

    requests: int = 0
    failed: int = 0
    by_version: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        versions = [f"{count:,} by {version}" for version, count in sorted(self.by_version.items())]
        return " · ".join([*versions, f"{self.failed} failed"])

    def __sub__(self, before: Counts) -> Counts:
        """What was counted since `before`."""
        earlier = before.by_version
        by_version = {version: count - earlier.get(version, 0) for version, count in self.by_version.items()}
        return Counts(self.requests - before.requests, self.failed - before.failed, by_version)


class Watch:
    """Follows one demo from the start of its daemon."""

    def __init__(self, stage: Stage, screen: Screen) -> None:
        self._stage = stage
        self._screen = screen
        self._journal = self._open()
        self._index = 0
        self._tags: dict[str, str] = {}
        self._counts = self._before = Counts()
        self._counted = 0.0
        self._counting = False
        self._visitor = ""
        self._engine = stage.client()
        self.acted = datetime.now(UTC)

    def close(self) -> None:
        """Look no more."""
        self._engine.close()
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
        self, awaited: str, enough: Callable[[Sequence[Record]], bool], *, quiet: frozenset[What] = frozenset()
    ) -> list[Record]:
        """Show the records that come, but those of `quiet` kinds, until they are `enough`; all of them.

        Raises Missed after DEADLINE seconds, or when the daemon is gone.
        """
        found: list[Record] = []
        end = time.monotonic() + DEADLINE
        with self._screen.waiting(f"waiting for {awaited}"):
            while not enough(found):
                fresh = list(self._journal.records(after=self._index))
                for record in fresh:
                    self._index = record.index
                    self._show(record, quiet)
                found.extend(fresh)
                if not fresh:
                    if time.monotonic() > end:
                        raise Missed(f"{awaited} did not come within {DEADLINE:.0f} s")
                    self._screen.footer(f"waiting for {awaited}   {self.counts()}")
                    time.sleep(PAUSE)
        return found

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
            self._screen.event(seconds, told, str(self.counts()) if self._counting else "")

    def _words(self, entry: Entry) -> Text | None:
        """A record in words; None for those that the story leaves out."""
        details = entry.details
        effect = str(details.get("effect", ""))
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
        return f"{parts[2]} {self._tags.get(parts[3], '?')} #{parts[4]}" if len(parts) == 5 else name

    def begin_to_count(self) -> None:
        """Every answer counts from here on: the visitor is at its place, and so is what it visits."""
        self.counts()
        self._before, self._counting = self._counts, True

    def counts(self) -> Counts:
        """What the visitor counted since then; it speaks five times a second."""
        if time.monotonic() - self._counted < COUNT_SECONDS:
            return self._counts - self._before
        self._counted = time.monotonic()
        if not self._visitor:
            labels = [f"{names.LABEL_OWNER}={self._stage.owner}", f"{names.LABEL_SERVICE}=visitor"]
            self._visitor = next((str(c["Id"]) for c in self._engine.containers(filters={"label": labels})), "")
        if self._visitor:
            lines = self._engine.logs(self._visitor, tail=5).decode(errors="replace").splitlines()
            found = next((match for line in reversed(lines) if (match := TOTALS.search(line))), None)
            if found is not None:
                pairs = [part.rpartition(" ") for part in (found[4] or "").split(", ") if part]
                by_version = {version: int(count) for version, _, count in pairs}
                self._counts = Counts(int(found[1]), int(found[3]), by_version)
        return self._counts - self._before


def kinds(records: Sequence[Record], what: What, service: str = "") -> list[Record]:
    """The records of one kind, of one service where it is named."""
    return [r for r in records if r.entry.what is what and (not service or r.entry.service == service)]


def effects(records: Sequence[Record], effect: str, service: str = "") -> list[Record]:
    """The records of effects that were done."""
    return [r for r in kinds(records, What.DONE, service) if r.entry.details.get("effect") == effect]
