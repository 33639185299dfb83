"""Roads to an engine other than its own socket: a real sshd, certificates for TLS, and a plain TCP port.

Everything listens on loopback and ends with the test; the person's own ssh configuration and keys are never used.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.git_server import SshGit, ssh_git

PATIENCE = 60.0


@pytest.fixture
def ssh_road(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshGit]:
    """An sshd, and an `ssh` on the PATH whose user configuration knows its host key and has a key of its own."""
    with ssh_git(tmp_path / "ssh") as server:
        config = tmp_path / "ssh" / "config"
        config.write_text(
            f"Host *\nIdentityFile {server.key}\nIdentitiesOnly yes\nUserKnownHostsFile {server.known_hosts}\n"
            "GlobalKnownHostsFile /dev/null\n"
        )
        program = tmp_path / "bin" / "ssh"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        yield server


def tunnels(parent: int) -> list[int]:
    """The pids of the ssh programs that `parent` started for an engine."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes()
            above = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if above == parent and b"reconciler-ssh-" in words:
            found.append(int(directory.name))
    return found


@contextmanager
def ending(pid: int) -> Iterator[None]:
    """After the block, wait until that program has ended."""
    handle = os.pidfd_open(pid)
    try:
        yield
        assert select.select([handle], [], [], PATIENCE)[0], f"{pid} still runs"
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Papers:
    """Files of one side: the authority it trusts, its certificate and its key."""

    ca: Path
    cert: Path
    key: Path


def papers(directory: Path, *owners: str) -> list[Papers]:
    """An authority in `directory`, new if there is none yet, and a certificate by it for each of `owners`."""
    directory.mkdir(exist_ok=True)
    config = directory / "openssl.cnf"
    config.write_text(
        "[req]\nprompt = no\ndistinguished_name = name\n[name]\nCN = test\n"
        "[authority]\nbasicConstraints = critical, CA:true\nkeyUsage = critical, keyCertSign\n"
        "subjectKeyIdentifier = hash\n"
        "[owner]\nbasicConstraints = critical, CA:false\nkeyUsage = critical, digitalSignature\n"
        "extendedKeyUsage = serverAuth, clientAuth\nsubjectAltName = IP:127.0.0.1\n"
        "subjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\n"
    )

    def issue(name: str, section: str, *signed: str) -> Papers:
        made = Papers(directory / "ca.pem", directory / f"{name}.pem", directory / f"{name}.key")
        command = [
            *("openssl", "req", "-x509", "-config", str(config), "-extensions", section, "-subj", f"/CN={name}"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", *signed),
            *("-out", str(made.cert), "-keyout", str(made.key)),
        ]
        subprocess.run(command, check=True, capture_output=True)
        return made

    ca = issue("ca", "authority")
    return [issue(name, "owner", "-CA", str(ca.cert), "-CAkey", str(ca.key)) for name in owners]


@contextmanager
def plain_port(path: Path) -> Iterator[int]:
    """A loopback TCP port that leads to the socket at `path`."""

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as engine:
                engine.connect(str(path))
                back = threading.Thread(target=_copy, args=(engine, self.request))
                back.start()
                _copy(self.request, engine)
                back.join()

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other side is gone; this one hears of it by itself
