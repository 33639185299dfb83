"""The gates of all releases under way: what was seen of each candidate so far, and the metrics servers' answers.

It must not decide what a verdict leads to, and never waits for a metrics server. Nothing here matters after a restart:
a gate then begins to count anew.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from reconciler.core.analysis import Verdict
from reconciler.core.delivery import Gate, Query
from reconciler.core.gate import GateFinding, Seen, combine, filled, judged, judged_query, see
from reconciler.core.live import Instance
from reconciler.ports import Gauge

PAUSE = timedelta(seconds=5)
"""The time between two askings of the same query."""
FRESH = timedelta(seconds=60)
"""How long an answer counts while the next one does not come."""
FORGOTTEN = timedelta(days=1)
"""A candidate that nobody asked about for so long is over."""
_ASKERS = 4

Answer = tuple[float | None, str]


@dataclass(slots=True)
class _Question:
    """A query as it was asked at `asked`, while `pending`; `answer` is the last one, to what was asked at `told`."""

    asked: datetime | None = None
    pending: Future[Answer] | None = None
    answer: Answer | None = None
    told: datetime | None = None


@dataclass(slots=True)
class _Candidate:
    version: str
    at: datetime
    seen: Seen = field(default_factory=Seen)
    questions: dict[str, _Question] = field(default_factory=dict)


class Gates:
    """Looks at candidates. Any thread may ask.

    `gauges` are by environment; `executor` runs their queries (own threads by default) and is shut down by `close`.
    """

    def __init__(self, gauges: Mapping[str, Gauge], executor: Executor | None = None) -> None:
        self._gauges = gauges
        self._executor = executor or ThreadPoolExecutor(_ASKERS, thread_name_prefix="gauge")
        self._lock = threading.Lock()
        self._candidates: dict[tuple[str, str], _Candidate] = {}
        self._closed = False

    def findings(
        self,
        environment: str,
        service: str,
        candidate_version: str,
        gate: Gate,
        candidate: Sequence[Instance],
        beside: Sequence[Instance],
        now: datetime,
        *,
        begun: datetime | None = None,
    ) -> GateFinding:
        """What the gate says after this look at the instances of the candidate and those it is compared with.

        What is seen adds up over all stages of one rollout, which began at `begun`, and is forgotten when another one
        comes, of the same version, too: a person may have mended what was wrong around it. Without any
        instance in `beside`, at any look so far, only absolute limits are judged: so ask only when those to compare
        with are there. Looks a few seconds apart see most; a shift of weights ends what can be compared.

        In a query the placeholders `{environment}`, `{service}` and `{version}` (the full hash) are replaced, all
        other braces are PromQL's. Each is asked in the background, at most once in 5 s; until its answer is there,
        and when none comes any more, it holds.
        """
        with self._lock:
            known = self._candidate(environment, service, f"{candidate_version} {begun}", now)
            known.seen = see(known.seen, gate, candidate, beside)
            texts = {query: filled(query.promql, environment, service, candidate_version) for query in gate.queries}
            known.questions = {text: known.questions.get(text) or _Question() for text in texts.values()}
            return combine(
                *judged(known.seen, gate, candidate, beside),
                *(self._ask(environment, each, text, known.questions[text], now) for each, text in texts.items()),
            )

    def close(self) -> None:
        """Ask no more. A query under way ends by its own timeout; nobody waits for it."""
        with self._lock:
            self._closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _candidate(self, environment: str, service: str, version: str, now: datetime) -> _Candidate:
        known = self._candidates.get((environment, service))
        if known is None or known.version != version:
            living = {key: each for key, each in self._candidates.items() if now - each.at < FORGOTTEN}
            known = _Candidate(version, now)
            self._candidates = {**living, (environment, service): known}
        known.at = now
        return known

    def _ask(self, environment: str, query: Query, text: str, question: _Question, now: datetime) -> GateFinding:
        gauge = self._gauges.get(environment)
        if gauge is None:
            return judged_query(
                query, None, f"nowhere to ask; the operator can set environments.{environment}.prometheus"
            )
        _take(question)
        due = question.asked is None or abs(now - question.asked) >= PAUSE
        if question.pending is None and due and not self._closed:
            question.asked = now
            question.pending = self._executor.submit(gauge.query, text)
            _take(question)
        if question.answer is None or question.told is None:
            return GateFinding(Verdict.HOLD, f"{query.name}: not answered yet")
        if abs(now - question.told) >= FRESH:
            age = (now - question.told) // timedelta(seconds=1)
            return judged_query(query, None, f"the last answer is {age} s old, and none came since")
        return judged_query(query, *question.answer)


def _take(question: _Question) -> None:
    """Keep the answer if it is there."""
    pending = question.pending
    if pending is None or not pending.done():
        return
    question.pending = None
    if not pending.cancelled():
        question.answer, question.told = pending.result(), question.asked
