"""Real repositories for tests, served from a directory, over HTTP by `git http-backend`, and over ssh by a real sshd.

Everything listens on loopback and ends with the test. Repositories are written by `git fast-import`, so no worktree is
needed and hostile content is as easy to write as any other.
"""

from __future__ import annotations

import base64
import getpass
import http.server
import os
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_source import ADA, START, Change, Content, Link, Module

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}


def git(path: Path, *arguments: str, stdin: bytes = b"") -> str:
    """Run git on the bare repository `path`; its output."""
    command = ["git", f"--git-dir={path}", *arguments]
    done = subprocess.run(command, input=stdin, env=ENVIRONMENT, check=True, stdout=subprocess.PIPE)
    return done.stdout.decode().strip()


class Upstream:
    """A bare repository that tests write to, with the words of `FakeRepository`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count = 0
        self._heads: dict[str, str] = {}
        git(path, "init", "--quiet", "--bare", "--initial-branch=main", str(path))

    def commit(
        self,
        files: Change,
        *,
        branch: str = "main",
        parent: str | None = "",
        subject: str = "change",
        author: str = ADA,
    ) -> str:
        base = self._heads.get(branch) if parent == "" else parent
        when = int(START.timestamp()) + self._count
        self._count += 1
        text = subject.encode()
        who = author.encode()
        stream = b"reset refs/heads/%s\ncommit refs/heads/%s\nmark :1\n" % (branch.encode(), branch.encode())
        stream += b"author %s %d +0000\ncommitter %s %d +0000\ndata %d\n%s\n" % (who, when, who, when, len(text), text)
        stream += f"from {base}\n".encode() if base else b""
        stream += b"".join(_change(path, content) for path, content in files.items()) + b"\nget-mark :1\n"
        sha = git(self.path, "-c", "core.compression=1", "fast-import", "--quiet", "--force", stdin=stream)
        self._heads[branch] = sha
        return sha

    def delete(self, branch: str) -> None:
        del self._heads[branch]
        git(self.path, "update-ref", "-d", f"refs/heads/{branch}")

    def tag(self, name: str, sha: str) -> None:
        """An annotated tag: a ref to an object that is no commit."""
        git(self.path, "tag", "--annotate", "--message=tag", name, sha)

    def point(self, branch: str, sha: str) -> None:
        self._heads[branch] = sha
        git(self.path, "update-ref", f"refs/heads/{branch}", sha)


def _change(path: str, content: Content | None) -> bytes:
    name = path.encode()
    match content:
        case None:
            return b"D %s\n" % name
        case Link(target):
            return b"M 120000 inline %s\ndata %d\n%s\n" % (name, len(target), target.encode())
        case Module(sha):
            return b"M 160000 %s %s\n" % (sha.encode(), name)
        case bytes():
            return b"M 100644 inline %s\ndata %d\n%s\n" % (name, len(content), content)


@pytest.fixture
def upstream(tmp_path: Path) -> Upstream:
    """A repository to follow, in a directory that a server may serve."""
    return Upstream(tmp_path / "served" / "fleet.git")


@dataclass
class HttpGit:
    """What the HTTP server does, changed by tests as they go, and what it has seen.

    `token` is the password it wants; `status` answers everything with that code; `location` redirects there;
    `body` goes with a refusal; `complaint` is what git is told instead of refs; `drip` sends bytes for as long
    as it is set.
    """

    url: str
    token: str = ""
    status: int = 0
    location: str = ""
    body: bytes = b""
    complaint: str = ""
    drip: bool = False
    credentials: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    dripping: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


@contextmanager
def http_git(root: Path) -> Iterator[HttpGit]:
    """Serve the repositories below `root` on a loopback port."""

    class Handler(_Handler):
        state: HttpGit

    Handler.root = root
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Handler.state = HttpGit(f"http://127.0.0.1:{server.server_address[1]}")
    with _serving(server):
        yield Handler.state
        Handler.state.ended.set()


class _Handler(http.server.BaseHTTPRequestHandler):
    root: Path
    state: HttpGit

    def do_GET(self) -> None:
        state = self.state
        state.paths.append(self.path)
        authorization = self.headers.get("Authorization")
        if authorization:
            state.credentials.append(authorization)
        if state.token and not self._knows(authorization or ""):
            self._refuse(401, {"WWW-Authenticate": 'Basic realm="git"'})
        elif state.drip:
            self._drip()
        elif state.complaint:
            self._complain()
        elif state.location:
            self._refuse(302, {"Location": state.location + self.path})
        elif state.status:
            self._refuse(state.status, {})
        else:
            self._backend()

    do_POST = do_GET

    def _knows(self, authorization: str) -> bool:
        given = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        return given.partition(":")[2] == self.state.token

    def _refuse(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(self.state.body)))
        self.end_headers()
        self.wfile.write(self.state.body)

    def _complain(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
        self.end_headers()
        text = f"ERR {self.state.complaint}".encode()
        self.wfile.write(b"001e# service=git-upload-pack\n0000%04x%s" % (len(text) + 4, text))

    def _drip(self) -> None:
        self.state.dripping.set()
        try:
            self.send_response(200)
            self.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
            self.end_headers()
            while self.state.drip and not self.state.ended.wait(0.05):
                self.wfile.write(b"0")
        except OSError:
            pass

    def _backend(self) -> None:
        path, _, query = self.path.partition("?")
        variables = ENVIRONMENT | {
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        done = subprocess.run(["git", "http-backend"], input=body, env=variables, stdout=subprocess.PIPE, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        lines = [line.split(": ", 1) for line in head.decode().split("\r\n")]
        status = next((int(value.split()[0]) for name, value in lines if name == "Status"), 200)
        self.send_response(status)
        for name, value in lines:
            if name != "Status":
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Tests look at `HttpGit` instead."""


@dataclass
class SshGit:
    """An ssh server: `url` is what comes before the path of a repository."""

    url: str
    key: Path
    known_hosts: Path
    authorized: Path


@contextmanager
def ssh_git(directory: Path) -> Iterator[SshGit]:
    """A real sshd, one for each connection as inetd starts it, with its own keys and configuration in `directory`."""
    directory.mkdir()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists on it when root starts it
    for name in ("host", "key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(directory / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    shutil.copy(directory / "key.pub", directory / "authorized")
    config = directory / "sshd_config"
    config.write_text(
        f"HostKey {directory}/host\nAuthorizedKeysFile {directory}/authorized\nPidFile none\nStrictModes no\n"
        "UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
        "AcceptEnv GIT_PROTOCOL\n"
    )
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ["PATH"])
    assert sshd is not None, "install openssh-server"

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            request: socket.socket = self.request
            command = [sshd, "-i", "-e", "-f", str(config)]
            subprocess.run(command, stdin=request, stdout=request, stderr=subprocess.DEVNULL, check=False)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection)
    server.daemon_threads = True
    port = server.server_address[1]
    host_key = " ".join((directory / "host.pub").read_text().split()[:2])
    (directory / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    url = f"ssh://{getpass.getuser()}@127.0.0.1:{port}"
    with _serving(server):
        yield SshGit(url, directory / "key", directory / "known_hosts", directory / "authorized")


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
