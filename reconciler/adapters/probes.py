"""Probes: bounded checks of running instances by HTTP and TCP, and the prober that repeats them on time.

No knowledge of any engine: how an instance is reached is given with the target. A probe never follows a redirect,
never reads more than 4 KiB, and never takes longer than its timeout.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from reconciler.core.errors import Reason, ReconcilerError
from reconciler.core.health import CheckResult, HealthState, fold, running, spacing, unreachable
from reconciler.core.live import HealthStatus
from reconciler.core.model import ExecCheck, Health, HttpCheck, TcpCheck
from reconciler.ports import Clock

MAX_ANSWER = 4096


@dataclass(frozen=True, slots=True)
class Target:
    """A running instance to check. `addresses` maps its ports to where they are reached; `obstacle` says why not."""

    key: tuple[str, datetime | None]
    name: str
    container: str
    health: Health
    started_at: datetime | None
    addresses: Callable[[int], tuple[str, int] | None] = field(repr=False, compare=False)
    obstacle: str = ""


ExecProbe = Callable[[Target, ExecCheck, float], CheckResult]


def http_check(address: tuple[str, int], path: str, timeout: float) -> CheckResult:
    """GET `path`; a status of 200..399 is a success. `timeout` in seconds bounds the whole exchange.

    Only the status line is of interest, so this reads just that from the socket: a library that parses headers waits
    anew for each byte, and a server that drips them would hold a probe for hours.
    """
    if any(ord(letter) <= 0x20 or ord(letter) > 0x7E for letter in path):
        return CheckResult(ok=False, detail="the path of the check holds a character that HTTP does not allow")
    end = time.monotonic() + timeout
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n"
        "User-Agent: reconciler\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    try:
        with socket.create_connection(address, timeout) as connection:
            connection.sendall(request.encode("ascii"))
            answer = _read_status(connection, end)
    except OSError as error:
        return CheckResult(ok=False, detail=f"GET {path} on port {address[1]}: {_words(error)}")
    parts = answer.split(b"\r\n", 1)[0].split(b" ", 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not parts[1].isdigit():
        return CheckResult(ok=False, detail=f"GET {path} on port {address[1]}: the answer is not HTTP")
    status = int(parts[1][:3])
    return CheckResult(ok=200 <= status <= 399, detail=f"GET {path} on port {address[1]} answered {status}")


def _read_status(connection: socket.socket, end: float) -> bytes:
    """The first bytes of an answer, up to its first line that is not an interim (1xx) one."""
    answer = b""
    while len(answer) < MAX_ANSWER:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        piece = connection.recv(MAX_ANSWER - len(answer))
        if not piece:
            break
        answer += piece
        while answer.startswith((b"HTTP/1.1 1", b"HTTP/1.0 1")) and b"\r\n\r\n" in answer:
            answer = answer.split(b"\r\n\r\n", 1)[1]
        if b"\r\n" in answer and not answer.startswith((b"HTTP/1.1 1", b"HTTP/1.0 1")):
            break
    return answer


def tcp_check(address: tuple[str, int], timeout: float) -> CheckResult:
    """A TCP connection within `timeout` seconds is a success."""
    try:
        socket.create_connection(address, timeout).close()
    except OSError as error:
        return CheckResult(ok=False, detail=f"connecting to port {address[1]}: {_words(error)}")
    return CheckResult(ok=True)


def _words(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (error.strerror or str(error) or type(error).__name__).lower()


def check(target: Target, execute: ExecProbe) -> CheckResult:
    """Make the target's check once."""
    wanted, timeout = target.health.check, target.health.timeout.total_seconds()
    if isinstance(wanted, ExecCheck):
        return execute(target, wanted, timeout)
    if wanted is None:
        return CheckResult(ok=True)
    address = target.addresses(wanted.port)
    if address is None:
        return CheckResult(ok=False, detail=f"{Reason.PROBE_UNREACHABLE}: {target.obstacle}")
    if isinstance(wanted, HttpCheck):
        return http_check(address, wanted.path, timeout)
    return tcp_check(address, timeout)


def _obstructed(target: Target) -> bool:
    wanted = target.health.check
    return isinstance(wanted, HttpCheck | TcpCheck) and target.addresses(wanted.port) is None


def once(target: Target, execute: ExecProbe, now: datetime) -> HealthState:
    """The health by a single look, for a command that does not stay: one success is enough."""
    age = _age(target, now)
    result = check(target, execute)
    if result.ok:
        return HealthState(HealthStatus.HEALTHY, was_healthy=True)
    late = age >= target.health.startup and not _obstructed(target)
    return HealthState(HealthStatus.UNHEALTHY if late else HealthStatus.STARTING, detail=result.detail)


def _age(target: Target, now: datetime) -> timedelta:
    return max(now - target.started_at, timedelta()) if target.started_at else timedelta()


@dataclass(slots=True)
class _Followed:
    target: Target
    state: HealthState = field(default_factory=HealthState)


class Prober:
    """Checks the followed targets again and again with a bounded pool of threads, and tells of each change.

    `on_change(environment, name, state)` is called from a probe's thread after a status changed.
    """

    def __init__(
        self, clock: Clock, execute: ExecProbe, on_change: Callable[[str, str, HealthState], None], workers: int = 16
    ) -> None:
        self._clock = clock
        self._execute = execute
        self._on_change = on_change
        self._workers = workers
        self._groups: dict[str, dict[tuple[str, datetime | None], _Followed]] = {}
        self._due: list[tuple[float, int, str, _Followed]] = []
        self._serial = itertools.count()
        self._wake = threading.Condition()
        self._work: queue.SimpleQueue[tuple[str, _Followed] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def follow(self, environment: str, targets: Mapping[tuple[str, datetime | None], Target]) -> None:
        """From now on check exactly these targets of the environment; those followed already keep their state."""
        with self._wake:
            known = self._groups.get(environment, {})
            group = {}
            for key, target in targets.items():
                followed = known.get(key)
                if followed is not None and followed.target.health == target.health:
                    followed.target = target
                else:
                    followed = _Followed(target)
                    heapq.heappush(self._due, (time.monotonic(), next(self._serial), environment, followed))
                group[key] = followed
            self._groups[environment] = group
            if group and not self._threads and not self._closed:
                self._start()
            self._wake.notify()

    def state(self, environment: str, key: tuple[str, datetime | None]) -> HealthState:
        """What is known of one target by now."""
        with self._wake:
            followed = self._groups.get(environment, {}).get(key)
            return followed.state if followed else HealthState()

    def close(self) -> None:
        """Stop checking."""
        with self._wake:
            self._closed = True
            self._groups.clear()
            self._wake.notify()
        for _ in self._threads:
            self._work.put(None)

    def _start(self) -> None:
        jobs: list[Callable[[], None]] = [self._schedule, *[self._serve] * self._workers]
        self._threads = [threading.Thread(target=job, name="probe", daemon=True) for job in jobs]
        for thread in self._threads:
            thread.start()

    def _schedule(self) -> None:
        """Hand out what is due, one thread for all."""
        with self._wake:
            while not self._closed:
                now = time.monotonic()
                while self._due and self._due[0][0] <= now:
                    _, _, environment, followed = heapq.heappop(self._due)
                    if self._is_followed(environment, followed):
                        self._work.put((environment, followed))
                self._wake.wait(self._due[0][0] - now if self._due else None)

    def _is_followed(self, environment: str, followed: _Followed) -> bool:
        return self._groups.get(environment, {}).get(followed.target.key) is followed

    def _serve(self) -> None:
        while (job := self._work.get()) is not None:
            environment, followed = job
            began = time.monotonic()
            target, before = followed.target, followed.state
            after = self._next(target, before)
            with self._wake:
                if not self._is_followed(environment, followed):
                    continue
                followed.state = after
                due = max(time.monotonic(), began + self._delay(target, after))
                heapq.heappush(self._due, (due, next(self._serial), environment, followed))
                self._wake.notify()
            if after.status is not before.status:
                self._on_change(environment, target.name, after)

    def _next(self, target: Target, before: HealthState) -> HealthState:
        age = _age(target, self._clock.now())
        if target.health.check is None:
            return running(target.health, age)
        try:
            result = check(target, self._execute)
        except ReconcilerError:
            return before  # the engine did not answer: that says nothing about the instance
        if not result.ok and _obstructed(target):
            return unreachable(before, result.detail)
        return fold(before, target.health, result, age)

    def _delay(self, target: Target, state: HealthState) -> float:
        if target.health.check is not None:
            return spacing(state, target.health).total_seconds()
        if state.was_healthy:
            return 3600.0
        left = target.health.interval * target.health.healthy_after - _age(target, self._clock.now())
        return max(left.total_seconds(), 0.01)
