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
    "EnsureNetwork": ("private network made", ""),
    "PullImage": ("image {version} pulled by its digest", ""),
    "StartInstance": ("+ {instance} started", ""),
    "AttachTraffic": ("● {instance} is healthy and takes traffic", "green"),
    "DetachTraffic": ("○ {instance} gets no new requests, and drains", "yellow"),
    "RemoveInstance": ("- {instance} removed", "red"),
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
        versions = " · ".join(f"{version}: {count:,}" for version, count in sorted(self.by_version.items()))
        return f"answers {versions} · failed {self.failed}" if versions else ""


class Watch:
    """Follows one demo from the start of its daemon."""

    def __init__(self, stage: Stage, screen: Screen) -> None:
        self._stage = stage
        self._screen = screen
        self._journal = self._open()
        self._index = 0
        self._tags: dict[str, str] = {}
        self._counts = Counts()
        self._counted = 0.0
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
            self._screen.event(seconds, entry.service, told, str(self.counts()))

    def _words(self, entry: Entry) -> Text | None:
        """A record in words; None for those that the story leaves out."""
        before, after = self.tag(entry.from_version), self.tag(entry.to_version)
        took = f" after {entry.duration.total_seconds():.1f} s" if entry.duration else ""
        name = self.instance(str(entry.details.get("name", "")))
        match entry.what:
            case What.DONE if entry.details.get("effect") in EFFECTS:
                words, style = EFFECTS[str(entry.details["effect"])]
                version = self._stage.version_of(str(entry.details.get("name", "")))
                return Text(words.format(instance=name, version=version), style)
            case What.REVISION_ADMITTED:
                return Text(f"revision {entry.revision[:7]} admitted (seen by a {entry.trigger} event)", "blue")
            case What.ROLLOUT_STARTED:
                return Text(f"rollout begins: {before} -> {after}", "bold")
            case What.PROMOTED:
                return Text(f"{after} is promoted{took}", "bold green")
            case What.ROLLOUT_FAILED:
                return Text(f"{after} fails{took}: {entry.reason}; it is quarantined", "bold red")
            case What.ROLLED_BACK:
                return Text(f"rolled back to {after}", "bold green")
            case What.QUARANTINE_LIFTED:
                return Text("the quarantine is lifted", "bold")
            case What.DRIFT_FOUND:
                return Text(f"drift: {name}: {entry.details.get('differences', '')}", "bold red")
            case What.DRIFT_REPAIRED:
                return Text("drift repaired", "bold green")
            case What.FAILED | What.STALLED | What.REVISION_REJECTED | What.INSTANCE_LOST:
                return Text(f"{entry.what}: {entry.reason} {entry.details.get('said', '')}", "bold red")
        return None

    def tag(self, version: VersionRef | None) -> str:
        """The tag of a version's image."""
        return self._stage.version_of(version.image) if version is not None else "nothing"

    def instance(self, name: str) -> str:
        """The name of an instance for a person: service, version, ordinal."""
        parts = name.split(".")
        return f"{parts[2]} {self._tags.get(parts[3], '?')} #{parts[4]}" if len(parts) == 5 else name

    def counts(self) -> Counts:
        """What the visitor said last; it speaks five times a second."""
        if time.monotonic() - self._counted < COUNT_SECONDS:
            return self._counts
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
        return self._counts


def kinds(records: Sequence[Record], what: What, service: str = "") -> list[Record]:
    """The records of one kind, of one service where it is named."""
    return [r for r in records if r.entry.what is what and (not service or r.entry.service == service)]


def effects(records: Sequence[Record], effect: str, service: str = "") -> list[Record]:
    """The records of effects that were done."""
    return [r for r in kinds(records, What.DONE, service) if r.entry.details.get("effect") == effect]
