"""The demo's chapters on releases behind the proxy: blue-green, canary, a gate that stops one, a function that wakes.

As in `demo_story.py`, each chapter says what was expected and what was seen, and times are told, not tested.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from reconciler.core.errors import Reason
from reconciler.core.record import Record, What
from tools.demo_fleet import BLUE_GREEN, CANARY, ENVIRONMENT
from tools.demo_load import HOST, PREVIEW
from tools.demo_story import REPLICAS, Story
from tools.demo_watch import Missed, effects, kinds, tables

SETTLE_SECONDS = 60.0
MOMENT = 0.4


def blue_green(story: Story) -> None:
    """Two sets side by side: a look at the new one, the switch, and the way back while the old one is held."""
    watch = story.watch
    watch.act()
    sha = story.fleet.change("web", "2.0", BLUE_GREEN)
    versions = ("1.0", "2.0")
    watch.until("the preview", lambda r: _shown(r) and bool(kinds(r, What.PAUSED, "web")))
    shown, public = (story.visitors.version_at(host) for host in (PREVIEW, HOST))
    story.screen.say(f"{PREVIEW} answers: hello {shown}. {HOST} answers: hello {public}.")
    story.check(
        "preview of web 2.0",
        "2.0; in public 1.0",
        f"{shown}; in public {public}",
        holds=(shown, public) == ("2.0", "1.0"),
    )
    code, _ = story.command("promote", f"{ENVIRONMENT}/web", "--why", "looks-good")
    if code:
        raise SystemExit("nobody could let the release go on")
    watch.until("the switch", lambda r: bool(kinds(r, What.PROMOTED, "web")), versions=versions)
    _draw_settled(story, *versions)
    story.screen.say("All requests are at 2.0; the containers of 1.0 are held. Somebody does not like what they see:")
    watch.act()
    story.fleet.revert(sha, merge=False)
    arrived = story.fleet.arrived()
    back = watch.until("the return", lambda r: bool(kinds(r, What.PROMOTED, "web")))
    _draw_settled(story, "2.0", "1.0")
    took = (story.visitors.last_answer("2.0") - arrived) * 1000
    story.screen.say(f"{took:.0f} ms after the forge had the commit, a visitor saw 2.0 for the last time.", "bold")
    # Some of it may be told already: the daemon is quicker than we look.
    gone = watch.until("the end of 2.0", lambda r: len(effects([*back, *r], "RemoveInstance", "web")) >= REPLICAS)
    made = len(effects([*back, *gone], "CreateInstance", "web"))
    story.check("revert while 1.0 is held", "1.0, none made", f"1.0 after {took:.0f} ms, {made} made", holds=made == 0)


def canary(story: Story) -> None:
    """A release in steps, each judged by its gate."""
    begin = _settled(story, "2.0", "1.0")
    story.watch.act()
    story.watch.draw("1.0", "2.1", begin)
    story.fleet.change("web", "2.1", CANARY)
    found = story.watch.until("web 2.1", _taken_over, versions=("1.0", "2.1"))
    passed = kinds(found, What.STAGE_PASSED, "web")
    _draw_settled(story, "1.0", "2.1")
    weights = [int(each.entry.details["weight"]) for each in passed]
    seconds = (kinds(found, What.PROMOTED, "web")[0].entry.at - story.watch.acted).total_seconds()
    seen = f"{', '.join(map(str, [*weights, 100]))} %; {seconds:.1f} s"
    story.check("canary of web 2.1", "5, 50, 100 %", seen, holds=weights == [5, 50])


def stopped(story: Story) -> None:
    """A release whose answers are errors: the gate sends it back."""
    before = story.visitors.counts()
    story.watch.act()
    sha = story.fleet.change("web", "2.2")
    found = story.watch.until(
        "the return to 2.1", lambda r: bool(kinds(r, What.ROLLED_BACK, "web")), versions=("2.1", "2.2")
    )
    story.watch.draw("2.1", "2.2", _settled(story, "2.2", "2.1"))
    failed = kinds(found, What.ROLLOUT_FAILED, "web")[0]
    story.command("audit", "show", str(failed.index), only=("what", "reason", "details"))
    after = story.visitors.counts()
    errors, share = after.errors - before.errors, (after.errors - before.errors) / max(after.requests, 1)
    story.screen.say(
        f"{errors} of {after.requests:,} requests so far got an error, {share * 100:.2f} %: answers of 2.2.",
        "bold",
    )
    good = failed.entry.reason == Reason.GATE_FAILED and not kinds(found, What.PROMOTED, "web")
    story.check("canary of web 2.2", "stopped by its gate", f"{failed.entry.reason}, {errors} errors", holds=good)
    story.screen.say("What runs is 2.1 again. Now Git says so, too:")
    story.watch.act()
    story.fleet.revert(sha, merge=False)
    story.watch.until("the revert", lambda r: bool(kinds(r, What.QUARANTINE_LIFTED, "web")))


def function(story: Story) -> None:
    """A service that sleeps until somebody asks."""
    story.watch.act()
    began = time.monotonic()
    story.screen.say(f"Somebody posts 'is anybody there' to {HOST}/shout:")
    with story.screen.waiting("waiting for the answer"):
        status, said = story.visitors.ask(HOST, "POST", "/shout", b"is anybody there")
    took = time.monotonic() - began
    found = story.watch.until("shout", lambda r: bool(tables(r, "shout")))
    story.screen.say(f"{said}    ({status}, after {took:.2f} s)", "bold")
    started = len(effects(found, "StartInstance", "shout"))
    good = (status, said, started) == (200, "IS ANYBODY THERE", 1)
    story.check("sleeping function", "a request wakes it", f"answer after {took:.2f} s", holds=good)


def visits(story: Story) -> None:
    """What the visitors counted from the beginning to the end."""
    story.visitors.end()
    counts, faults = story.visitors.counts(), story.visitors.faults()
    by_version = ", ".join(f"{count:,} by {version}" for version, count in sorted(counts.by_version.items()))
    story.screen.say(f"{counts.requests:,} requests: {by_version}.")
    others = sorted(faults - {(500, "2.2")})
    good = counts.lost == 0 and not others and "1.2" not in counts.by_version
    seen = f"0 of {counts.requests:,}" if good else f"{counts.lost} lost; {others}"
    story.check("requests lost", "0", seen, holds=good)
    share = counts.errors / max(counts.requests, 1)
    story.check(
        "answered with an error",
        "by 2.2 only",
        f"{counts.errors} ({share * 100:.2f} %)",
        holds=good and counts.errors > 0,
    )


def _shown(records: Sequence[Record]) -> bool:
    """Whether the preview address leads to somebody."""
    return any(table.entry.details["shares"] for table in tables(records, "web", preview=True))


def _taken_over(records: Sequence[Record]) -> bool:
    """Whether a version is promoted, and all containers of the one before are gone."""
    promoted = kinds(records, What.PROMOTED, "web")
    removed = effects(records, "RemoveInstance", "web")
    return bool(promoted) and sum(each.index > promoted[0].index for each in removed) >= REPLICAS


def _settled(story: Story, before: str, after: str) -> Mapping[str, int]:
    """Wait until no visitor gets an answer of `before` any more; what they got then. Raises Missed."""
    end = time.monotonic() + SETTLE_SECONDS
    while before in (split := story.visitors.split(MOMENT)) or after not in split:
        if time.monotonic() > end:
            raise Missed(f"{before} still answers visitors after {SETTLE_SECONDS:.0f} s")
        time.sleep(0.05)
    return split


def _draw_settled(story: Story, before: str, after: str) -> None:
    story.watch.draw(before, after, _settled(story, before, after))
