"""The demo's visitors: clients outside of the engine that ask web through the proxy, without a pause or a retry.

What they count is what people out there would have seen. They know nothing of Reconciler.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.text import Text

from bench import load
from tools.demo_screen import WIDTH

HOST = "www.example.org"
PREVIEW = "next.example.org"
KINDS = (
    load.keep_alive(6, rate=40),
    load.new_connection(2, rate=20),
    load.http2(1, 4, rate=20),
    load.post(2, rate=10),
    load.slow(2, ms=300),
)
"""About 390 requests a second, where the machine can. The last kind takes long, so it tells no times."""
QUICK = tuple(kind.name for kind in KINDS[:-1])
PAUSE = 0.2
ANSWERS = 50
ANSWER_SECONDS = 60.0
ASKING_SECONDS = 60.0
BAR = 36
GOOD = 200


@dataclass(frozen=True)
class Counts:
    """What the visitors counted since they began. `errors`: answers with an error status, by a version that said so;
    `lost`: requests without any answer."""

    requests: int = 0
    errors: int = 0
    lost: int = 0
    by_version: Mapping[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """All that was not a good answer."""
        return self.errors + self.lost

    def __str__(self) -> str:
        return f"{self.requests:,} requests, {self.failed} failed"


class Visitors:
    """Clients of several kinds, side by side, at the proxy at `address`."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._load: load.LoadThread | None = None
        self._counts = Counts()
        self._counted = 0.0

    def begin(self) -> None:
        """Begin to ask; returns when the first answers are there."""
        self._load = load.LoadThread(load.Load(self._address, HOST, *KINDS))
        self._load.start()
        try:
            self._load.reached(ANSWERS, ANSWER_SECONDS)
        except TimeoutError as error:
            raise SystemExit(f"the proxy did not give {ANSWERS} answers within {ANSWER_SECONDS:.0f} s") from error

    def end(self, patience: float = 30.0) -> None:
        """Ask no more; requests that are open have so many seconds."""
        if self._load is not None:
            self._load.stop(patience)
            self._counted = 0.0

    @property
    def asking(self) -> bool:
        """Whether they began."""
        return self._load is not None

    def counts(self) -> Counts:
        """What was counted until now, or a moment ago."""
        if self._load is not None and time.monotonic() - self._counted >= PAUSE:
            self._counted = time.monotonic()
            tally = self._load.so_far()
            versions = tally.versions
            errors = versions.total() - tally.answered
            self._counts = Counts(tally.requests, errors, tally.failed - errors, dict(versions))
        return self._counts

    def faults(self) -> set[tuple[int, str]]:
        """The status and the version of the failed answers that were kept; status 0: there was none."""
        return (
            {(each.status, each.version) for each in self._load.so_far().failures} if self._load is not None else set()
        )

    def split(self, seconds: float = 1.0) -> dict[str, int]:
        """The answers of the last seconds by version."""
        return self._load.split(seconds) if self._load is not None else {}

    def last_answer(self, version: str) -> float:
        """When a quick request was last answered by a version, on the monotonic clock; 0: never."""
        if self._load is None:
            return 0.0
        tally = self._load.so_far()
        seen = [tally.kinds[kind].last_seen.get(version) for kind in QUICK]
        return max((tally.started + at for at in seen if at is not None), default=0.0)

    def version_at(self, host: str) -> str:
        """Which version answers at a host name."""
        status, said = self.ask(host)
        return said.split()[1] if status == GOOD else f"status {status}"

    def ask(self, host: str, method: str = "GET", path: str = "/", body: bytes | None = None) -> tuple[int, str]:
        """One request of somebody else, outside of the counts; the status and the answer. Raises OSError."""
        connection = http.client.HTTPConnection(*self._address, timeout=ASKING_SECONDS)
        try:
            connection.request(method, path, body=body, headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read(1_000).decode(errors="replace").strip()
        except http.client.HTTPException as error:
            raise ConnectionError(f"the proxy gave no proper answer: {error}") from error
        finally:
            connection.close()


def bar(split: Mapping[str, int], before: str, after: str) -> Text:
    """The shares of two versions as a bar of BAR characters, and in words: by what the visitors were answered."""
    total = max(sum(split.values()), 1)
    share = split.get(after, 0) / total
    cells = round(share * BAR)
    cells = min(max(cells, 1), BAR - 1) if 0 < share < 1 else cells
    drawn = Text.assemble(("░" * (BAR - cells), "blue"), ("█" * cells, "green"))
    old = split.get(before, 0) / total
    drawn.append(f"  {before} {old * 100:3.0f} %  {after} {share * 100:3.0f} %")
    assert drawn.cell_len < WIDTH
    return drawn
