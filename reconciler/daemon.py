"""The daemon: the composition root. It builds the parts, wires them, starts and stops them in order, and reloads.

What is to be done in an environment is never decided here. The main thread only waits for commands: signals, changed
settings, a lease that was won or lost, and the news that another part can not go on.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType

import structlog

from reconciler import banner, reload, wiring
from reconciler.adapters.clock import SystemClock
from reconciler.board import Board
from reconciler.candidacy import Candidacy
from reconciler.core.errors import Fenced, Reason, ReconcilerError
from reconciler.leadership import Hold
from reconciler.notify_systemd import Systemd
from reconciler.ports import Cause
from reconciler.redact import Redactor
from reconciler.settings import Settings
from reconciler.telemetry import Metrics, configure_logs
from reconciler.tenure import Office, Tenure
from reconciler.triggers.watch import Watch
from reconciler.triggers.webhook import Webhook
from reconciler.web.app import create_app
from reconciler.web.house import WebHouse
from reconciler.web.serve import Server

STOP_SECONDS = 25.0
"""For the steps in hand, once no new ones begin. With what is closed afterwards the daemon ends within 30."""
SETTLE_SECONDS = 0.3
"""Between the first news of a changed settings file and reading it: editors write in several acts."""
LOOK_SECONDS = 0.5
"""Between two looks at whether a leader still leads, and at what one that stands by shows."""
EXIT_NOT_LEADER = 75
"""The lease was lost and a step did not end before it ran out, so the program ends, and with it the step. Whatever
supervises it (kubelet, systemd) starts it again. The number is EX_TEMPFAIL of sysexits.h."""

Command = str | tuple[Tenure, BaseException]
"""`stop`, `reload`, `changed` (the settings file), `election` (won or lost), or why a tenure has to end."""

_log = structlog.get_logger(__name__)


class Daemon:
    """One run of the daemon, from `start` to `stop`. `read` reads the settings anew for a reload."""

    def __init__(self, settings: Settings, redactor: Redactor, read: Callable[[Path], Settings]) -> None:
        self._read = read
        self._redactor = redactor
        self._settings = settings
        self._clock = SystemClock()
        self._systemd = Systemd()
        self._commands: SimpleQueue[Command] = SimpleQueue()
        self._board = Board()
        self._metrics = Metrics()
        self._ready = False
        self._seen = _identity(settings.file)
        self._code = 1
        self._secrets = wiring.credentials(settings)
        wiring.prepare_data(settings)
        self._office = Office(
            clock=self._clock,
            board=self._board,
            metrics=self._metrics,
            redactor=redactor,
            fatal=lambda tenure, error: self._commands.put((tenure, error)),
            alive=self._systemd.alive,
        )
        self._candidacy: Candidacy | None = None
        self._tenure: Tenure | None = None
        if settings.leader is None:
            self._tenure = Tenure(self._office, settings, None)
        else:
            self._candidacy = Candidacy(
                settings,
                settings.leader,
                self._office,
                changed=lambda: self._commands.put("election"),
                look=self._asked_by_another,
            )
        self._watch = Watch(self._clock, self._request, lambda: self._commands.put("changed"))
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
        self._show_banner()
        self._metrics.leader.set(0)
        self._server.start()
        if self._tenure is not None:
            self._metrics.leader.set(1)
            self._tenure.start()
        if self._candidacy is not None:
            self._candidacy.start()
        self._watch.start(self._settings)

    def _serve(self) -> int:
        while True:
            try:
                command = self._commands.get(timeout=self._patience())
            except Empty:
                self._look()
                continue
            if command == "stop":
                _log.info("stopping")
                return 0
            if command == "election":
                self._look()
            elif isinstance(command, str):
                self._reload(command)
            elif not self._bear(*command):
                return 1

    def _patience(self) -> float | None:
        """Seconds until the next look without a command."""
        if not self._ready:
            return 0.1
        return None if self._candidacy is None else LOOK_SECONDS

    def _look(self) -> None:
        """Begin or end a tenure as the election has it, and say so when the daemon is ready."""
        candidacy, tenure = self._candidacy, self._tenure
        if tenure is not None and not tenure.holds():
            self._give_up(tenure)
        elif candidacy is not None and tenure is None:
            hold = candidacy.hold
            if hold is not None:
                self._lead(candidacy, hold)
            else:
                candidacy.show(self._settings)
        if not self._ready and (self._tenure.looked() if self._tenure is not None else self._stands_by()):
            self._ready = True
            # What the first looks built lasts: to search a large fleet for garbage takes longer than a look at it.
            gc.collect()
            gc.freeze()
            self._systemd.ready(self._what())
            _log.info("ready", port=self._server.port, leader=self._tenure is not None)

    def _stands_by(self) -> bool:
        return self._candidacy is not None and self._candidacy.stands_by()

    def _what(self) -> str:
        """For people who look at the unit's status."""
        doing = "following" if self._tenure is not None else "standing by for"
        return f"{doing} {len(self._settings.environments)} environments"

    def _lead(self, candidacy: Candidacy, hold: Hold) -> None:
        """Act, from now on. What keeps this daemon from it may not keep another, so the lease is let go then."""
        if not hold.holds():
            return
        try:
            tenure = Tenure(self._office, self._settings, hold)
        except ReconcilerError as error:
            _log.error("cannot lead", reason=self._redactor.text(str(error)))
            candidacy.cannot_lead(self._redactor.text(str(error)))
            return
        candidacy.leads()
        self._clear()
        self._tenure = tenure
        self._ready = False
        self._metrics.leader.set(1)
        tenure.start()
        _log.info("leading", epoch=tenure.journal.epoch)

    def _give_up(self, tenure: Tenure) -> None:
        """Act no more. The steps in hand have what is left of the lease to end; where they do not, the program does."""
        began = time.monotonic()
        self._metrics.leader.set(0)
        self._tenure = None
        self._ready = False
        tenure.halt()
        if not tenure.join(STOP_SECONDS):
            _log.error("the lease was lost and a step did not end in time", remedy="the next leader looks at it")
            os._exit(EXIT_NOT_LEADER)
        tenure.close()
        self._clear()
        _log.info("acting no more", seconds=round(time.monotonic() - began, 3))
        assert self._candidacy is not None, "nobody else loses a lease"
        self._candidacy.stand()

    def _bear(self, tenure: Tenure, error: BaseException) -> bool:
        """Whether the daemon can go on after `error`, which ends `tenure`."""
        if tenure is not self._tenure:
            return True
        if isinstance(error, Fenced) and not tenure.holds():
            self._give_up(tenure)
            return True
        # Fenced while the lease is held: somebody acts on this journal who does not stand for election with us.
        _log.error("the daemon ends", reason=self._redactor.exception(error))
        return False

    def _clear(self) -> None:
        """What was shown is another's to show."""
        for environment in self._board.all():
            self._board.forget(environment)
            self._metrics.forget(environment)

    def _stop(self) -> None:
        """Take nothing new, finish the steps in hand, close. Ends the program where a step does not end in time."""
        self._systemd.stopping()
        self._watch.stop()
        tenure = self._tenure
        if tenure is not None:
            tenure.halt()
            if not tenure.join(STOP_SECONDS):
                # Its thread would keep the interpreter from ending. The journal has the intent; the next start looks.
                _log.error("a step did not end in time", remedy="the next start looks at what became of it")
                os._exit(self._code if tenure.holds() else EXIT_NOT_LEADER)
        self._server.stop(timeout=2.0)
        if tenure is not None:
            tenure.close()
        if self._candidacy is not None:
            # Not before all of it is over: with the lease goes the right of another to act.
            self._candidacy.close()
        _log.info("stopped")

    def _reload(self, command: str) -> None:
        """Take on changed settings as a whole, or keep the ones from before as a whole."""
        before = self._settings
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
            self._systemd.ready(self._what())
            # What changed while this was under way brought no event.
            self._commands.put("changed")

    def _swap(self, settings: Settings) -> None:
        secrets = wiring.credentials(settings)
        wiring.tell_redactor(self._redactor, settings)
        if self._tenure is not None:
            self._tenure.swap(settings)
        else:
            self._clear()
        self._settings, self._secrets = settings, secrets
        configure_logs(settings.log, self._redactor)
        self._watch.apply(settings)

    def _request(self, environment: str, cause: Cause) -> None:
        """A hint from outside goes to the one who acts. Each daemon hears of files by itself."""
        if self._tenure is not None:
            self._tenure.request(environment, cause)
        elif self._candidacy is not None and cause.kind != "file":
            self._candidacy.ask(environment)

    def _asked_by_another(self, environment: str) -> None:
        if environment in self._settings.environments:
            self._request(environment, Cause("peer", self._clock.now(), git=True))

    def _web_house(self) -> WebHouse:
        webhook = Webhook(
            settings=lambda: self._settings,
            secret=lambda repository: self._secrets.get(f"webhook {repository}", b""),
            request=self._request,
            clock=self._clock,
            metrics=self._metrics,
            redactor=self._redactor,
        )
        journal = self._candidacy.journal if self._candidacy is not None else None
        if journal is None:
            assert self._tenure is not None
            journal = self._tenure.journal
        self._journal = journal
        return WebHouse(
            settings=lambda: self._settings,
            token=lambda: self._secrets["http"],
            board=self._board,
            journal=journal,
            look=self._request,
            webhook=webhook.respond,
            clock=self._clock,
            metrics=self._metrics,
            redactor=self._redactor,
            live=self._liveness,
            ready=self._readiness,
            leads=lambda: self._tenure is not None,
        )

    def _liveness(self) -> Mapping[str, str]:
        tenure, candidacy = self._tenure, self._candidacy
        stuck = tenure is not None and tenure.stuck()
        found = {"workers": "a cycle takes longer than it can" if stuck else ""}
        if candidacy is not None:
            found["election"] = "nothing looks at the lease" if candidacy.silent() else ""
        return found

    def _readiness(self) -> Mapping[str, str]:
        """Not red for trouble with Git or an engine alone: that is for the metrics to tell.

        A daemon that stands by is ready: to take over is its work. If it were not, a rollout of the daemon would hang.
        """
        tenure, candidacy = self._tenure, self._candidacy
        if tenure is not None or candidacy is None:
            looked = tenure is not None and tenure.looked()
            recovery = "" if looked else "the first look at each environment is not over"
            return {"settings": "", "recovery": recovery, "journal": self._journal_problem()}
        lease = candidacy.lease_problem()
        return {"settings": "", "lease": lease, "journal": candidacy.journal_problem()}

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
        settings, candidacy = self._settings, self._candidacy
        found = banner.Banner(
            settings=settings,
            epoch=self._tenure.journal.epoch if self._tenure is not None else None,
            engines=banner.reach(settings, wiring.engine_version),
            warnings=banner.warnings(settings),
            candidate=candidacy.me if candidacy is not None else "",
            lease=candidacy.place if candidacy is not None else "",
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
