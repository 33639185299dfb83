"""The story of the demo: what people do, what Reconciler answers, and what has to be seen for each.

Each chapter returns what was expected and what was seen. Nothing is judged by the clock: times are told, not tested.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.text import Text

from reconciler.core import names
from reconciler.core.record import Record, What
from tools.demo_fleet import Fleet
from tools.demo_load import Visitors
from tools.demo_screen import INDENT, Screen, run_on_terminal
from tools.demo_stage import ROOT, Stage
from tools.demo_watch import Watch, effects, kinds, tables, weight

SERVICES = ("api", "shout", "web", "worker")
REPLICAS = 2
CONTAINERS = 5
VERIFIER = Path("tools") / "verify_journal.py"


@dataclass(frozen=True)
class Check:
    """One line of the summary."""

    what: str
    expected: str
    seen: str
    holds: bool


@dataclass
class Story:
    """The parts of the demo, and what was seen so far."""

    stage: Stage
    screen: Screen
    fleet: Fleet
    visitors: Visitors
    watch: Watch
    checks: list[Check] = field(default_factory=list)

    def command(self, *arguments: str, only: Sequence[str] = (), cut: bool = False) -> tuple[int, str]:
        """Run `reconciler …` and show what it prints; the exit code and the output.

        With `only`, the lines that begin so are shown; with `cut`, the beginning of each line.
        """
        grep = f" | grep -E '^({'|'.join(only)})'" if only else ""
        columns = self.screen.console.width - INDENT
        self.screen.command(f"reconciler {' '.join(arguments)}{grep}" + (f" | cut -c -{columns}" if cut else ""))
        command = [sys.executable, "-m", "reconciler", *arguments]
        with self.screen.waiting("reading"):
            code, printed = run_on_terminal(
                command, self.stage.environment(), self.stage.directory, columns=1_000 if cut else columns
            )
        shown, wanted = [], not only
        for line in printed.split():
            wanted = wanted if line.plain.startswith("  ") else not only or line.plain.startswith(tuple(only))
            shown += [line] if wanted else []
        self.screen.output(Text("\n").join(shown), cut=cut)
        return code, printed.plain

    def docker(self, *arguments: str) -> None:
        """Run `docker …`, as somebody with a hand on the engine."""
        self.screen.command(f"docker {' '.join(arguments)}", "somebody")
        self.watch.act()
        done = subprocess.run(
            ["docker", *arguments],
            env=self.stage.environment(),
            cwd=self.stage.directory,
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"docker {' '.join(arguments)} failed: {done.stderr.strip()}")

    def check(self, what: str, expected: str, seen: str, *, holds: bool) -> None:
        """Remember what was seen."""
        self.checks.append(Check(what, expected, seen, holds))


def begins(story: Story) -> None:
    """The first revision: everything is made."""
    story.watch.act()
    quiet = frozenset({What.ROLLOUT_STARTED})
    found = story.watch.until(
        "all services", lambda r: {x.entry.service for x in kinds(r, What.PROMOTED)} >= set(SERVICES), quiet=quiet
    )
    with story.screen.waiting("the first visitors"):
        story.visitors.begin()
    story.command("status")
    story.screen.say(
        "From here on visitors ask web through the proxy, about 390 times a second: HTTP/1.1 with kept and with new "
        "connections, HTTP/2, POST, and slow answers. Nobody asks twice. On the right: what they got."
    )
    containers = len(effects(found, "StartInstance"))
    seen = f"4 services, {containers} containers"
    story.check("first revision", "4 services run", seen, holds=containers >= CONTAINERS)


def release(story: Story) -> str:
    """A pull request is merged; the SHA of the merge."""
    story.fleet.propose("web-1.1", "web", "1.1")
    code, _ = story.command("plan", "--ref", "web-1.1")
    story.check("plan of the branch", "changes: exit code 2", f"exit code {code}", holds=code == 2)
    story.watch.act()
    sha = story.fleet.merge("web-1.1", 1)
    found = story.watch.until("web 1.1", lambda r: _replaced(r, "web"))
    promoted = kinds(found, What.PROMOTED, "web")[0]
    story.command("audit", "show", str(promoted.index), only=("what", "revision", "author", "committer"))
    removed, fewest = len(effects(found, "RemoveInstance", "web")), _fewest_serving(found)
    seconds = (promoted.entry.at - story.watch.acted).total_seconds()
    good = removed == REPLICAS and fewest >= REPLICAS and promoted.entry.revision == sha
    seen = f"{removed} replaced, {fewest} serve, {seconds:.1f} s"
    story.check("merge of web 1.1", "2 replaced, 2 serve", seen, holds=good)
    return sha


def broken(story: Story) -> str:
    """A release that never becomes healthy; the SHA of its merge."""
    story.fleet.propose("web-1.2", "web", "1.2")
    story.watch.act()
    sha = story.fleet.merge("web-1.2", 2)
    found = story.watch.until("the rollback of web 1.2", lambda r: bool(kinds(r, What.ROLLED_BACK, "web")))
    failed = kinds(found, What.ROLLOUT_FAILED, "web")[0]
    story.command("audit", "show", str(failed.index), only=("what", "reason", "details"))
    story.screen.say("Git still asks for 1.2. It is not tried again until Git says something else:")
    story.command("plan")
    lost = sum(story.watch.tag(r.entry.from_version) == "?" for r in found)
    exposed = sum("1.2" in _serving(story, table) for table in tables(found, "web"))
    seconds = (kinds(found, What.ROLLED_BACK, "web")[0].entry.at - story.watch.acted).total_seconds()
    good = exposed == 0 and lost == 0 and bool(failed.entry.details.get("log"))
    seen = f"{failed.entry.reason}, {seconds:.1f} s"
    story.check("merge of web 1.2", "returns, no traffic", seen, holds=good)
    return sha


def reverts(story: Story, broken_merge: str, good_merge: str) -> None:
    """Two reverts: one that has nothing to replace, one that is an ordinary release the short way."""
    story.watch.act()
    sha = story.fleet.revert(broken_merge)
    found = story.watch.until("the revert", lambda r: bool(kinds(r, What.QUARANTINE_LIFTED, "web")))
    code, _ = story.command("plan")
    made = len(effects(found, "CreateInstance"))
    good = code == 0 and made == 0 and _admitted(found, sha)
    seen = f"{'in sync' if code == 0 else f'exit code {code}'}, {made} made"
    story.check("revert of web 1.2", "in sync, none made", seen, holds=good)
    story.screen.say("Back in sync: what runs is what Git says again. And further back, to 1.0:")
    story.watch.act()
    sha = story.fleet.revert(good_merge)
    found = story.watch.until("web 1.0", lambda r: _replaced(r, "web"))
    pulled = len(effects(found, "PullImage"))
    seconds = (kinds(found, What.PROMOTED, "web")[0].entry.at - story.watch.acted).total_seconds()
    good = pulled == 0 and _admitted(found, sha) and _fewest_serving(found) >= REPLICAS
    seen = f"1.0 after {seconds:.1f} s, {pulled} pulled"
    story.check("revert of web 1.1", "1.0, nothing pulled", seen, holds=good)


def drifts(story: Story) -> None:
    """Three changes that did not come from Git."""
    (story.stage.directory / "note.txt").write_text("by hand\n")
    # A container that is removed with force first ends: it depends on the moment which of the two is seen.
    removed = ("DriftMissing", "InstanceExited")
    _drift(story, "container removed", removed, "api", "rm", "--force", _running(story, "api"))
    worker = _running(story, "worker")
    _drift(story, "file copied into it", ("DriftFilesystem",), "worker", "cp", "note.txt", f"{worker}:/note.txt")
    _drift(story, "limits changed", ("DriftChanged",), "web", "update", "--cpus", "1", _running(story, "web"))


def _drift(story: Story, what: str, reasons: Sequence[str], service: str, *arguments: str) -> None:
    story.docker(*arguments)
    found = story.watch.until("the repair", lambda r: _mended(r, service) is not None)
    seen, mended = _noticed(found, service)[0], _mended(found, service)
    assert mended is not None
    after = [(record.entry.at - story.watch.acted).total_seconds() for record in (seen, mended)]
    story.check(
        what,
        "seen and repaired" if len(reasons) > 1 else f"{reasons[0]}",
        f"{after[0]:.2f} s; repaired {after[1]:.1f} s",
        holds=seen.entry.reason in reasons,
    )


def _noticed(records: Sequence[Record], service: str) -> list[Record]:
    """The records of something that is not as it was made."""
    return [r for r in records if r.entry.service == service and r.entry.what in {What.DRIFT_FOUND, What.INSTANCE_LOST}]


def _mended(records: Sequence[Record], service: str) -> Record | None:
    """The record with which all is well again: the drift is repaired, or the lost instance has its successor."""
    noticed = _noticed(records, service)
    if not noticed:
        return None
    if any(record.entry.what is What.DRIFT_FOUND for record in noticed):
        return next(iter(kinds(records, What.DRIFT_REPAIRED, service)), None)
    attached = effects(records, "AttachTraffic", service) + tables(records, service)
    return next((record for record in attached if record.index > noticed[0].index), None)


def audit(story: Story) -> None:
    """The journal: its tail, and two verifications that share no code."""
    story.command("audit", "list", "--limit", "12", cut=True)
    code, said = story.command("audit", "verify")
    story.check("reconciler audit verify", "verified", said.partition(" in ")[0], holds=code == 0)
    # The journal may have grown before the auditor reads it: the daemon goes on.
    anchor = f"{said.split()[1]}:{said.split()[-1]}"
    story.screen.command(f"python3 {VERIFIER} journal.db --anchor {anchor[:12]}…", "an auditor")
    verifier = [sys.executable, "-I", str(ROOT / VERIFIER), str(story.stage.journal), "--anchor", anchor]
    done = subprocess.run(verifier, check=False, capture_output=True, text=True)
    story.screen.output(Text(done.stdout.rstrip()))
    agree = done.returncode == 0
    seen = f"{done.stdout.split()[-1] if done.stdout else 'nothing'}, {'the same' if agree else 'another'} head"
    story.check("tools/verify_journal.py", "verified, same head", seen, holds=agree)


def _running(story: Story, service: str) -> str:
    """The name of a running container of a service."""
    labels = [f"{names.LABEL_OWNER}={story.stage.owner}", f"{names.LABEL_SERVICE}={service}"]
    client = story.stage.client()
    try:
        found = client.containers(filters={"label": labels})
    finally:
        client.close()
    return str(min(str(container["Names"][0]).lstrip("/") for container in found))


def _replaced(records: Sequence[Record], service: str) -> bool:
    """A new version is promoted and all containers of the old one are gone."""
    removed = len(effects(records, "RemoveInstance", service))
    return bool(kinds(records, What.PROMOTED, service)) and removed >= REPLICAS


def _admitted(records: Sequence[Record], sha: str) -> bool:
    return any(record.entry.revision == sha for record in kinds(records, What.REVISION_ADMITTED))


def _fewest_serving(records: Sequence[Record]) -> int:
    """The smallest number of web's instances that took requests at any time, counted from the proxy's tables."""
    counts = [
        sum(weight(place) > 0 for place in table.entry.details["shares"].values()) for table in tables(records, "web")
    ]
    return min(counts, default=REPLICAS)


def _serving(story: Story, table: Record) -> set[str]:
    """The versions that take requests by a table of the proxy."""
    places = table.entry.details["shares"].items()
    return {story.watch.instance(name).split()[1] for name, place in places if weight(place)}
