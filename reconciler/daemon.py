"""The daemon: the composition root. It builds the parts, wires them, starts and stops them in order, and reloads.

What is to be done in an environment is never decided here. The main thread only waits for commands: signals, changed
settings, and the news that another part can not go on.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType

import structlog

from reconciler import banner, journal_access, reload, wiring
from reconciler.adapters.clock import SystemClock
from reconciler.board import Board
from reconciler.core.errors import Reason, ReconcilerError
from reconciler.journal_follower import JournalFollower
from reconciler.loop import Reconciler
from reconciler.notify_systemd import Systemd
from reconciler.ports import Cause
from reconciler.redact import Redactor
from reconciler.settings import Settings
from reconciler.telemetry import Metrics, configure_logs
from reconciler.triggers.inbox import Inbox
from reconciler.triggers.schedule import Schedule
from reconciler.triggers.watch import Watch
from reconciler.triggers.webhook import Webhook
from reconciler.web.app import create_app
from reconciler.web.house import WebHouse
from reconciler.web.serve import Server
from reconciler.workers import Desk, Workers

STOP_SECONDS = 25.0
"""For the steps in hand, once no new ones begin. With what is closed afterwards the daemon ends within 30."""
SETTLE_SECONDS = 0.3
"""Between the first news of a changed settings file and reading it: editors write in several acts."""

Command = str | BaseException
"""`stop`, `reload`, `changed` (the settings file), or why the daemon has to end."""

_log = structlog.get_logger(__name__)


class Daemon:
    """One run of the daemon, from `start` to `stop`. `read` reads the settings anew for a reload."""

    def __init__(self, settings: Settings, redactor: Redactor, read: Callable[[Path], Settings]) -> None:
        self._read = read
        self._redactor = redactor
        self._clock = SystemClock()
        self._systemd = Systemd()
        self._commands: SimpleQueue[Command] = SimpleQueue()
        self._inbox = Inbox(self._clock)
        self._board = Board()
        self._metrics = Metrics()
        self._ready = False
        self._seen = _identity(settings.file)
        self._code = 1
        self._secrets = wiring.credentials(settings)
        wiring.prepare_data(settings)
        self._journal = journal_access.open_journal(settings, self._clock, act=True)
        self._house = wiring.build_house(settings, self._journal, redactor, metrics=self._metrics)
        self._reconciler = Reconciler(self._house, self._inbox.news)
        desk = Desk(
            inbox=self._inbox,
            board=self._board,
            metrics=self._metrics,
            clock=self._clock,
            fatal=self._commands.put,
            alive=self._systemd.alive,
            uniform=random.SystemRandom().uniform,
            redact=redactor.exception,
        )
        self._workers = Workers(desk, self._reconciler, settings.environments, settings.concurrency)
        self._schedule = Schedule(self._clock, self._inbox.request)
        self._watch = Watch(self._clock, self._inbox.request, lambda: self._commands.put("changed"))
        self._follower = JournalFollower(
            self._journal, self._clock, self._metrics, self._inbox.request, self._commands.put
        )
        self._server = Server(create_app(self._web_house()), settings.http.host, settings.http.port)

    def run(self) -> int:
        """Until a signal or a reason to end; the exit code. Call it in the main thread."""
        self._listen_to_signals()
        try:
            self._start()
            self._code = self._serve()
        finally:
            self._stop()
        return self._code

    def _start(self) -> None:
        """Everything begins here; the first cycle of each environment recovers what an earlier run left behind."""
        settings = self._house.settings
        self._show_banner()
        self._metrics.leader.set(1)
        self._server.start()
        self._follower.start()
        for runtime in self._house.runtimes.values():
            runtime.watch(self._engine_changed)
        if self._house.traffic is not None:
            self._house.traffic.watch(self._traffic_changed)
        self._workers.start()
        self._request_all("start")
        self._schedule.start(settings)
        self._watch.start(settings)

    def _serve(self) -> int:
        while True:
            try:
                command = self._commands.get(timeout=None if self._ready else 0.1)
            except Empty:
                if self._workers.looked(self._house.settings.environments):
                    self._ready = True
                    self._systemd.ready(f"following {len(self._house.settings.environments)} environments")
                    _log.info("ready", port=self._server.port)
                continue
            if isinstance(command, BaseException):
                _log.error("the daemon ends", reason=self._redactor.exception(command))
                return 1
            if command == "stop":
                _log.info("stopping")
                return 0
            self._reload(command)

    def _stop(self) -> None:
        """Take nothing new, finish the steps in hand, close. Ends the program where a step does not end in time."""
        end = time.monotonic() + STOP_SECONDS
        self._systemd.stopping()
        self._inbox.close()
        self._reconciler.stop()
        self._schedule.stop()
        self._watch.stop()
        self._follower.stop()
        if not self._workers.join(max(end - time.monotonic(), 0.0)):
            # Its thread would keep the interpreter from ending. The journal has the intent; the next start looks.
            _log.error("a step did not end in time", remedy="the next start looks at what became of it")
            os._exit(self._code)
        self._server.stop(timeout=2.0)
        self._reconciler.close()
        wiring.close_house(self._house)
        self._journal.close()
        _log.info("stopped")

    def _reload(self, command: str) -> None:
        """Take on changed settings as a whole, or keep the ones from before as a whole."""
        before = self._house.settings
        if command == "changed":
            if _identity(before.file) == self._seen:
                return
            time.sleep(SETTLE_SECONDS)
        self._seen = _identity(before.file)
        self._systemd.reloading()
        try:
            after = self._read(before.file)
            if command == "changed" and after == before:
                return
            reload.check(before, after)
            self._swap(after)
        except ReconcilerError as error:
            _log.error("reload refused", reason=self._redactor.text(str(error)), settings=str(before.file))
        else:
            _log.info("reloaded", settings=str(after.file), environments=sorted(after.environments))
            if left := sorted(before.environments.keys() - after.environments.keys()):
                remedy = "their instances run on, and nobody looks after them; remove them by hand"
                _log.warning("environments left alone", environments=left, remedy=remedy)
        finally:
            self._systemd.ready(f"following {len(self._house.settings.environments)} environments")
            # What changed while this was under way brought no event.
            self._commands.put("changed")

    def _swap(self, settings: Settings) -> None:
        """Build everything that can fail first, then exchange. The old reconciler finishes its step and no more."""
        secrets = wiring.credentials(settings)
        wiring.tell_redactor(self._redactor, settings)
        old_house, old_reconciler = self._house, self._reconciler
        house = wiring.build_house(settings, self._journal, self._redactor, metrics=self._metrics, before=old_house)
        reconciler = Reconciler(house, self._inbox.news)
        self._house, self._reconciler, self._secrets = house, reconciler, secrets
        self._workers.swap(reconciler, settings.environments)
        old_reconciler.stop()
        for environment in set(old_house.settings.environments) - set(settings.environments):
            self._inbox.forget(environment)
            self._board.forget(environment)
            self._metrics.forget(environment)
        for name, runtime in house.runtimes.items():
            if runtime is not old_house.runtimes.get(name):
                runtime.watch(self._engine_changed)
        if house.traffic is not None and house.traffic is not old_house.traffic:
            house.traffic.watch(self._traffic_changed)
        configure_logs(settings.log, self._redactor)
        self._schedule.apply(settings)
        self._watch.apply(settings)
        wiring.close_house(old_house, keep=house)
        self._request_all("reload")

    def _request_all(self, kind: str) -> None:
        now = self._clock.now()
        for environment in self._house.settings.environments:
            self._inbox.request(environment, Cause(kind, now, git=True))

    def _engine_changed(self, environment: str, detail: str) -> None:
        self._inbox.request(environment, Cause("engine", self._clock.now(), detail))

    def _traffic_changed(self, environment: str, detail: str) -> None:
        self._inbox.request(environment, Cause("traffic", self._clock.now(), detail))

    def _web_house(self) -> WebHouse:
        webhook = Webhook(
            settings=lambda: self._house.settings,
            secret=lambda repository: self._secrets.get(f"webhook {repository}", b""),
            request=self._inbox.request,
            clock=self._clock,
            metrics=self._metrics,
            redactor=self._redactor,
        )
        return WebHouse(
            settings=lambda: self._house.settings,
            token=lambda: self._secrets["http"],
            board=self._board,
            journal=self._journal,
            look=self._inbox.request,
            webhook=webhook.respond,
            clock=self._clock,
            metrics=self._metrics,
            redactor=self._redactor,
            live=lambda: {"workers": "a cycle takes longer than it can" if self._workers.stuck() else ""},
            ready=self._readiness,
        )

    def _readiness(self) -> Mapping[str, str]:
        """Not red for trouble with Git or an engine alone: that is for the metrics to tell."""
        looked = self._workers.looked(self._house.settings.environments)
        return {
            "settings": "",
            "recovery": "" if looked else "the first look at each environment is not over",
            "journal": self._journal_problem(),
        }

    def _journal_problem(self) -> str:
        for status in self._board.all().values():
            if status.reason is Reason.JOURNAL_UNAVAILABLE:
                return status.message
        try:
            next(iter(self._journal.records(limit=1)), None)
        except ReconcilerError as error:
            return str(error)
        return ""

    def _show_banner(self) -> None:
        settings = self._house.settings
        found = banner.Banner(
            settings=settings,
            epoch=self._journal.epoch,
            engines=banner.reach(settings, wiring.engine_version),
            warnings=banner.warnings(settings),
        )
        if settings.log.format == "console":
            sys.stderr.write("\n".join(found.lines(self._redactor)) + "\n")
        else:
            _log.info("starting", **found.fields(self._redactor))

    def _listen_to_signals(self) -> None:
        def stop(number: int, _frame: FrameType | None) -> None:
            # A second signal of the same kind ends the program at once; the journal is made for that.
            signal.signal(number, signal.SIG_DFL)
            self._commands.put("stop")

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGHUP, lambda _number, _frame: self._commands.put("reload"))


def _identity(file: Path) -> tuple[int, ...]:
    """Changes whenever the file may have changed."""
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def serve(settings: Settings, read: Callable[[Path], Settings]) -> int:
    """Run the daemon until it is told to stop; the exit code. Raises what keeps it from starting."""
    redactor = Redactor()
    wiring.tell_redactor(redactor, settings)
    configure_logs(settings.log, redactor)
    return Daemon(settings, redactor, read).run()
