"""Leader election: one thread that reads and renews the lease, and tells when this daemon begins or ceases to lead.

The rules are `core/lease.py`. What leading means is the daemon's business; here nothing is reconciled. Whoever acts
asks `Hold.holds` right before: it answers from our monotonic clock alone, whatever this thread or the network is doing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from reconciler.core.errors import ReconcilerError, Stalled
from reconciler.core.lease import Act, Found, Sighting, Terms, claimed, decide, holds, released, sighted
from reconciler.ports import Clock

FLOOR = 0.25
"""Seconds between two turns at least, however many looks are asked for."""
SPREAD = 0.6
"""A pause is between this part of `Terms.retry` and the whole of it, so that daemons do not write in step."""
CLOSING = 2.0
"""Seconds for the last turn to end, and for each request with which the lease is let go."""
ATTEMPTS = 4
"""Of one turn: others write the lease, too (a look that is asked for), and then ours is out of date."""
LOOKS_KEPT = 200

_log = structlog.get_logger(__name__)


class Lease(Protocol):
    """The one lease of this daemon, and of those that stand by. Used by one thread at a time."""

    def read(self, seconds: float) -> Found:
        """What it holds now. Raises Retryable, and Stalled(FORBIDDEN, NAMESPACE_MISSING)."""

    def write(self, found: Found, seconds: float) -> Found | None:
        """Put this in the place of `found.version` ("": make it). None when it is not that version any more.

        Raises as `read` does. After Retryable it may have been written.
        """


class Hold:
    """One time of leading: from a won lease to its loss. It never holds again once it ended."""

    def __init__(self, terms: Terms, clock: Clock, sent: float) -> None:
        self._terms = terms
        self._clock = clock
        self._sent = sent
        self._ended = False

    def holds(self) -> bool:
        """Whether its daemon may act now. Once it said no, it never says yes again."""
        if not self._ended and not holds(self._sent, self._clock.monotonic(), self._terms):
            self._ended = True
        return not self._ended

    def left(self) -> float:
        """Seconds until another daemon may take over, if nothing is renewed; 0 when one may have done so."""
        return max(self._sent + self._terms.duration - self._clock.monotonic(), 0.0)

    def renew(self, sent: float) -> None:
        """A renewal that was sent at `sent` succeeded."""
        self._sent = sent

    def end(self) -> None:
        """It is over."""
        self._ended = True

    @property
    def sent(self) -> float:
        """When the last successful write was sent."""
        return self._sent


@dataclass(frozen=True, slots=True)
class Post:
    """Whom an election tells. `changed`: it was won, or lost. `look`: another daemon asks for a look at an environment.

    `alive` hears of each turn.
    """

    changed: Callable[[], None]
    look: Callable[[str], None]
    alive: Callable[[], None]


class Election:
    """A candidate from `start` until `stop`. After a loss it stands again only when `stand` is called."""

    def __init__(
        self, lease: Lease, terms: Terms, me: str, clock: Clock, uniform: Callable[[float, float], float], post: Post
    ) -> None:
        self._lease = lease
        self._terms = terms
        self._me = me
        self._clock = clock
        self._uniform = uniform
        self._post = post
        self._turning = threading.Lock()
        self._asking = threading.Lock()
        self._asked: set[str] = set()
        self._found: Found | None = None
        self._seen: Sighting | None = None
        self._hold: Hold | None = None
        self._stand_at = clock.monotonic()
        self._open: Hold | None = None
        self._claimed = False
        self._problem = ""
        self._refused = False
        self._turned_at = clock.monotonic()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leader-election", daemon=True)

    @property
    def me(self) -> str:
        """The name under which this candidate holds the lease."""
        return self._me

    @property
    def hold(self) -> Hold | None:
        """The time of leading under way, None for a daemon that stands by."""
        return self._hold

    @property
    def leader(self) -> str:
        """Who held the lease at the last look, "" for nobody or unknown."""
        found = self._found
        return found.record.holder if found is not None and found.record is not None else ""

    @property
    def problem(self) -> str:
        """Why the lease could not be read or written at the last turn."""
        return self._problem

    @property
    def looked(self) -> bool:
        """Whether the lease was read once."""
        return self._seen is not None

    @property
    def refused(self) -> bool:
        """Whether a person is needed before the lease can be used."""
        return self._refused

    @property
    def silent(self) -> float:
        """Seconds since the last turn ended."""
        return self._clock.monotonic() - self._turned_at

    def start(self) -> None:
        """Stand for election."""
        self._thread.start()

    def stop(self) -> None:
        """No more turns. What is held stays held until it runs out, or `release`."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=CLOSING)

    def stand(self, after: float = 0.0) -> None:
        """Stand again, from `after` seconds on: what the last time of leading had open is closed."""
        self._stand_at = self._clock.monotonic() + after
        self._open = None

    def ask(self, environment: str) -> None:
        """Ask the leader to look at `environment`, with the next turn."""
        with self._asking:
            if len(self._asked) < LOOKS_KEPT:
                self._asked.add(environment)
        self._wake.set()

    def release(self) -> None:
        """Let go of the lease, so that another can take it at once; where that fails it runs out by itself."""
        hold = self._hold
        if hold is not None:
            hold.end()
        if not self._claimed:
            return
        if not self._turning.acquire(timeout=CLOSING):
            # A turn hangs in a request: this one would hang, too.
            _log.warning("lease not released", error=self._problem or "the API server does not answer")
            return
        try:
            self._hold = None
            self._let_go()
        except ReconcilerError as error:
            _log.warning("lease not released", error=str(error))
        finally:
            self._turning.release()

    def turn(self) -> None:
        """Look at the lease and do what is due about it."""
        with self._turning:
            try:
                self._take_turn()
                self._say_problem(None)
            except ReconcilerError as error:
                self._found = None
                self._say_problem(error)
            if self._hold is not None and not self._hold.holds():
                self._lose("it could not be renewed in time")
            self._turned_at = self._clock.monotonic()
        self._post.alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.turn()
            except Exception:  # noqa: BLE001 (a bug must not end the thread)
                # Without turns the hold runs out, and the daemon stands by for ever.
                _log.exception("a bug in Reconciler")
            pause = self._terms.retry * self._uniform(SPREAD, 1.0)
            if not self._stop.wait(min(FLOOR, pause)):
                self._wake.wait(max(pause - FLOOR, 0.0))
            self._wake.clear()

    def _take_turn(self) -> None:
        for _ in range(ATTEMPTS):
            # Who leads knows what the lease holds, unless the write shows that somebody else wrote meanwhile.
            found = self._found if self._hold is not None else None
            if found is None:
                found = self._read()
            assert self._seen is not None
            sent = self._hold.sent if self._hold is not None else None
            if self._hold is not None and not self._hold.holds():
                # Somebody saw already that it is over; nothing may bring it back.
                self._lose("it could not be renewed in time")
                return
            act = decide(self._me, self._seen, sent, self._clock.monotonic(), self._terms)
            if act is Act.LOST:
                taken = self.leader not in ("", self._me)
                self._lose(f"{self.leader} holds it" if taken else "it could not be renewed in time")
                return
            if act is Act.WAIT and self._pass_on(found):
                return
            if act is Act.ACQUIRE and (self._open is not None or self._clock.monotonic() < self._stand_at):
                return
            if act in (Act.ACQUIRE, Act.RENEW) and self._claim(found):
                return

    def _read(self) -> Found:
        found = self._lease.read(self._patience())
        before = self.leader
        self._note(found)
        if self._hold is None and self.leader not in (before, self._me, ""):
            _log.info("standing by", leader=self.leader)
        return found

    def _note(self, found: Found) -> None:
        self._found = found
        self._seen = sighted(self._seen, found.record, self._clock.monotonic())

    def _claim(self, found: Found) -> bool:
        """Write ourselves in; whether that was done."""
        record = claimed(self._me, found.record, self._clock.now().isoformat(timespec="microseconds"), self._terms)
        self._claimed = True
        sent = self._clock.monotonic()
        written = self._lease.write(Found(record, frozenset(), found.version), self._patience())
        if written is None:
            self._found = None
            return False
        self._note(written)
        if self._hold is None:
            self._hold = self._open = Hold(self._terms, self._clock, sent)
            _log.info("lease won", identity=self._me, transitions=record.transitions)
            self._post.changed()
        else:
            self._hold.renew(sent)
        for environment in sorted(found.looks | self._take_asked()):
            self._post.look(environment)
        return True

    def _pass_on(self, found: Found) -> bool:
        """Write down for the leader where looks are asked for; whether nothing of it is left to do."""
        asked = self._take_asked()
        if asked <= found.looks:
            return True
        looks = frozenset(sorted(found.looks | asked)[:LOOKS_KEPT])
        try:
            written = self._lease.write(Found(found.record, looks, found.version), self._patience())
        except ReconcilerError:
            self._ask_again(asked)
            raise
        if written is None:
            self._ask_again(asked)
            return False
        self._note(written)
        return True

    def _take_asked(self) -> frozenset[str]:
        with self._asking:
            asked = frozenset(self._asked)
            self._asked.clear()
        return asked

    def _ask_again(self, asked: frozenset[str]) -> None:
        with self._asking:
            self._asked |= asked

    def _let_go(self) -> None:
        for _ in range(ATTEMPTS):
            found = self._found or self._lease.read(CLOSING)
            if found.record is None or found.record.holder != self._me:
                return
            record = released(found.record, self._clock.now().isoformat(timespec="microseconds"))
            written = self._lease.write(Found(record, found.looks, found.version), CLOSING)
            if written is not None:
                self._note(written)
                _log.info("lease released", identity=self._me)
                return
            self._found = None

    def _lose(self, why: str) -> None:
        if self._hold is not None:
            self._hold.end()
        self._hold = None
        _log.warning("lease lost", identity=self._me, why=why, problem=self._problem)
        self._post.changed()

    def _patience(self) -> float:
        """Seconds for one request: two of them fit into the time in which a lease must be renewed."""
        return self._terms.renew / 2

    def _say_problem(self, error: ReconcilerError | None) -> None:
        problem = str(error) if error is not None else ""
        if problem and problem != self._problem:
            _log.warning("the lease cannot be used", error=problem)
        elif self._problem and not problem:
            _log.info("the lease can be used again")
        self._problem, self._refused = problem, isinstance(error, Stalled)
