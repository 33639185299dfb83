"""Real HAProxy in trouble: killed, stopped, with a stale or broken state file; and sockets that answer nonsense."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.adapters import haproxy_socket
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.haproxy_count import Counts
from reconciler.adapters.haproxy_front import OwnFront
from reconciler.adapters.haproxy_socket import ask
from reconciler.adapters.haproxy_watch import Watcher
from reconciler.core.errors import Reason, ReconcilerError, Retryable, Stalled
from reconciler.core.live import ProxyStatus, ServerMode
from reconciler.core.steps import EnsureProxy
from reconciler.settings import ProxySettings
from tests.support.cluster import eventually
from tests.support.haproxy_house import PATIENCE, RealHouse, until

READY, DRAIN, MAINT = ServerMode.READY, ServerMode.DRAIN, ServerMode.MAINT
Answer = Callable[[bytes], bytes]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[RealHouse]:
    built = RealHouse(tmp_path)
    yield built
    built.close()


@contextlib.contextmanager
def between(path: Path, answer: Answer) -> Iterator[str]:
    """A runtime socket of ours: what comes in is given to `answer`, what that returns goes back."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(16)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with contextlib.suppress(OSError), connection:
                        connection.sendall(answer(connection.recv(65536)))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"unix://{path}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def relay(house: RealHouse) -> Answer:
    def pass_on(line: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(house.proxies[0].socket))
            connection.sendall(line)
            pieces = []
            while piece := connection.recv(65536):
                pieces.append(piece)
            return b"".join(pieces)

    return pass_on


def test_killed_and_started_again_it_is_as_it_was(house: RealHouse) -> None:
    a, b, c = (house.instance(name) for name in "abc")
    house.shift(a.share(weight=70), b.share(weight=30), c.share(weight=0))
    house.shift(a.share(weight=70), b.share(DRAIN, 30), c.share(MAINT, 0))
    before = house.table()
    house.proxies[0].kill()
    house.proxies[0].start()
    assert house.table() == before == {a.at: (READY, 70), b.at: (DRAIN, 30), c.at: (MAINT, 0)}
    assert {house.proxies[0].get()[:2] for _ in range(5)} == {(200, "a")}


def test_what_was_changed_by_hand_is_saved_too(house: RealHouse) -> None:
    a = house.instance("a")
    house.shift(a.share(weight=70))
    house.traffic.watch(house.hint)
    house.look()
    house.by_hand(a.at, 9)
    until(lambda: any("weight 9" in hint for hint in house.hints), "a hint")
    until(lambda: " 9 1 " in house.proxies[0].state.read_text(), "saved")
    house.proxies[0].kill()
    house.proxies[0].start()
    assert house.table() == {a.at: (READY, 9)}


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\xff" * 3000, b"1\n# be_id be_name\n3 rec.prod.web 1\n", b"7\nnonsense\n"],
    ids=["empty", "binary", "cut", "of another version"],
)
def test_a_broken_state_file_is_only_a_table_to_be_made_again(house: RealHouse, content: bytes) -> None:
    a = house.instance("a")
    house.shift(a.share(weight=70))
    house.proxies[0].kill()
    house.proxies[0].state.write_bytes(content)
    house.proxies[0].start()
    assert house.look().servers == ()
    house.shift(a.share(weight=70))
    assert house.table() == {a.at: (READY, 70)}


def test_a_stale_state_file_leads_to_an_old_table_that_is_seen(house: RealHouse) -> None:
    a, b = house.instance("a"), house.instance("b")
    house.shift(a.share())
    stale = house.proxies[0].state.read_bytes()
    house.shift(b.share())
    house.proxies[0].kill()
    house.proxies[0].state.write_bytes(stale)
    house.proxies[0].start()
    assert house.table() == {a.at: (READY, 100)}
    house.shift(b.share())
    assert house.table() == {b.at: (READY, 100)}


def test_an_answer_lost_after_the_command_was_applied(house: RealHouse, tmp_path: Path) -> None:
    a, b = house.instance("a"), house.instance("b")
    house.shift(a.share())
    swallow, left, done = threading.Event(), threading.Semaphore(0), relay(house)

    def answer(line: bytes) -> bytes:
        said = done(line)
        if swallow.is_set() and b"set server" in line:
            left.acquire(timeout=60)
            return b""
        return said

    with between(tmp_path / "between.sock", answer) as address:
        house.timeout = 1.0
        traffic = house.build([address])
        swallow.set()
        house.traffic, kept = traffic, house.traffic
        for _ in range(3):
            with pytest.raises(Retryable) as caught:
                house.shift(b.share())
            assert caught.value.reason is Reason.PROXY_UNREACHABLE
            left.release()
        swallow.clear()
        assert eventually(lambda: house.shift(b.share()) is None, during=Retryable)
        house.traffic = kept
    assert house.table() == {b.at: (READY, 100)}
    house.proxies[0].kill()
    house.proxies[0].start()
    assert house.table() == {b.at: (READY, 100)}, "what was applied unheard is saved with the next success"


def test_a_proxy_that_hangs_is_unreachable_in_time(house: RealHouse) -> None:
    a = house.instance("a")
    house.shift(a.share())
    house.within(1.0)
    house.proxies[0].signal(signal.SIGSTOP)
    state = house.traffic.observe("prod")
    with pytest.raises(Retryable) as caught:
        house.shift()
    house.proxies[0].signal(signal.SIGCONT)
    assert state.status is ProxyStatus.UNREACHABLE
    assert "within 1 s" in str(caught.value)
    until(lambda: house.traffic.observe("prod").status is ProxyStatus.READY, "it answers again")
    house.within(PATIENCE)
    assert house.table() == {a.at: (READY, 100)}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "answers nothing"),
        (b"1\n# be_id be_name\n", "ends too early"),
        (b"\0\xff\xfe" * 4000, "ends too early"),
        (b"\0\xff\xfe\n\nadmin\n\n", "cannot be read"),
        (b"1\n# be_id be_name srv_name srv_addr\n3 x\n\n# pxname,svname\n\nadmin\n\n", "cannot be read"),
        (b"# pxname,svname,status,scur,qcur,stot,econ,eresp\na,b,UP,-1,0,0,0,0\n\nadmin\n\n", "the column scur"),
        (b"# pxname,svname,status,scur,qcur,stot,econ,eresp\na,b,UP," + b"9" * 99 + b",0,0,0,0\n\nadmin\n\n", "scur"),
    ],
    ids=["nothing", "cut", "binary", "binary and an end", "a cut line", "a negative number", "a huge number"],
)
def test_nonsense_is_an_unreachable_proxy(house: RealHouse, tmp_path: Path, said: bytes, words: str) -> None:
    with between(tmp_path / "between.sock", lambda _line: said) as address:
        traffic = house.build([address])
        state = traffic.observe("prod")
        house.traffic, kept = traffic, house.traffic
        with pytest.raises(Retryable) as caught:
            house.shift()
        house.traffic = kept
    assert state.status is ProxyStatus.UNREACHABLE
    assert words in state.said
    assert caught.value.where == address
    assert caught.value.remedy


def test_an_answer_without_end_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haproxy_socket, "MAX_ANSWER", 100_000)
    with (
        between(tmp_path / "between.sock", lambda _line: b"x" * 1_000_000) as address,
        pytest.raises(Retryable, match="longer than"),
    ):
        ask(address, "show stat", 60)


def test_a_socket_of_a_lower_level_is_refused(tmp_path: Path) -> None:
    with (
        between(tmp_path / "between.sock", lambda _line: b"\noperator\n\n") as address,
        pytest.raises(Stalled, match="level operator") as caught,
    ):
        ask(address, "show stat", 60)
    assert caught.value.reason is Reason.PROXY_REFUSED


@pytest.mark.parametrize("address", ["unix:///nowhere/a.sock", "tcp://127.0.0.1:1", "tcp://127.0.0.1", "udp://x:1", ""])
def test_an_address_that_leads_nowhere(address: str) -> None:
    with pytest.raises(Retryable) as caught:
        ask(address, "show stat", 1)
    assert caught.value.reason is Reason.PROXY_UNREACHABLE
    assert caught.value.remedy


def test_many_commands_go_on_several_lines(house: RealHouse) -> None:
    weights = [f"set server {house.backend}/s1 weight {number % 256}" for number in range(500)]
    ask(house.proxies[0].address, weights, 60)
    assert f" {499 % 256} 1 " in house.proxies[0].say("show servers state")


def test_backends_that_the_operators_proxy_lacks(house: RealHouse) -> None:
    text = f"backend {house.backend}\nbackend rec.prod.api\nbackend rec.prod.shop\n"
    with pytest.raises(Stalled) as caught:
        house.traffic.apply("prod", EnsureProxy("prod", "d", text))
    assert caught.value.reason is Reason.PROXY_REFUSED
    assert "rec.prod.api, rec.prod.shop" in str(caught.value)
    assert "`reconciler proxy config prod`" in caught.value.remedy


def test_a_state_that_cannot_be_saved_is_said(house: RealHouse) -> None:
    a = house.instance("a")
    house.proxies[0].state.with_name("0.state.new").mkdir()
    with pytest.raises(ReconcilerError) as caught:
        house.shift(a.share())
    assert "cannot be saved" in str(caught.value)
    assert house.table() == {a.at: (READY, 100)}
    house.proxies[0].state.with_name("0.state.new").rmdir()
    house.shift(a.share())
    assert f" {a.at[1]} " in house.proxies[0].state.read_text(), "with nothing to change, it is still saved"


def test_who_got_idle_between_two_looks_is_heard_of(house: RealHouse) -> None:
    a, b = house.instance("a"), house.instance("b")
    house.shift(a.share(DRAIN), b.share())
    address = house.proxies[0].address
    front = OwnFront("prod", ProxySettings(sockets=(address,)))
    watcher = Watcher("prod", front, 5.0, Counts(), SystemClock(), lambda _index: None)
    assert watcher.turn() == []
    assert watcher.turn() == []
    watcher.expect([(address, (house.backend, "s1"))])
    assert [said for said in watcher.turn() if "idle" in said]
    assert watcher.turn() == []


def test_a_runtime_socket_over_tcp(house: RealHouse) -> None:
    house.traffic.close()
    house.traffic = house.build([f"tcp://127.0.0.1:{house.proxies[0].admin}"])
    a = house.instance("a")
    house.shift(a.share())
    assert house.table() == {a.at: (READY, 100)}
