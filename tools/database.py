"""A private PostgreSQL for the tests and the benchmarks: start, and stop without leaving anything.

`python -m tools.database up|down --dir DIR`. It comes from the distribution's package `postgresql`, whose own service
is not touched: this one has its data, log, socket and a free port of 127.0.0.1 below DIR. PostgreSQL refuses to run as
root; started by root it runs as the package's user. On the socket everybody who reaches it is trusted (root and that
user alone do); on the port a password is asked for, with or without TLS by a certificate made for it.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import shutil
import socket
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.certificate import self_signed
from tools.ports import free_port

DEADLINE = 180
OWNER = "postgres"
USER = "reconciler"
PASSWORD = "of the test database only"
DATABASE = "reconciler"
_HBA = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
_ROLE = f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'; CREATE DATABASE {DATABASE} OWNER {USER};"


@dataclass(frozen=True)
class Server:
    """A running server: where its socket is, the file of its certificate, and that of the user's password."""

    home: str
    port: int
    certificate: str
    password: str

    @property
    def url(self) -> str:
        """The database at its socket, without a schema."""
        return self.url_of(USER)

    def url_of(self, user: str, database: str = DATABASE) -> str:
        """As `url`, for another user or database."""
        return f"postgresql://{user}@/{database}?host={self.home}&port={self.port}"

    @property
    def remote(self) -> str:
        """The same at its port."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{DATABASE}"


def up(directory: Path) -> Server:
    """Start it; the same answer again while it runs. Raises SystemExit with what to do."""
    directory = directory.resolve()
    known = read(directory)
    if known is not None and _answers(known):
        return known
    down(directory)
    home = directory / "postgres"
    home.mkdir(parents=True)
    home.chmod(0o700)
    if os.geteuid() == 0:
        shutil.chown(home, *_account())
    server = Server(str(home), free_port(), str(directory / "server.crt"), str(directory / "password"))
    Path(server.password).write_text(f"{PASSWORD}\n")
    try:
        data = str(home / "data")
        _run("initdb", *("-D", data, "-U", OWNER, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"))
        _certify(directory, home / "data")
        _write(home / "data" / "pg_hba.conf", _HBA)
        _write(home / "data" / "postgresql.auto.conf", _configuration(server))
        start(server)
        address = ("-h", server.home, "-p", str(server.port), "-U", OWNER, "-d", "postgres")
        for statement in _ROLE.split("; "):
            _run("psql", "-q", "-v", "ON_ERROR_STOP=1", *address, "-c", statement)
    except BaseException:
        _end(server)
        shutil.rmtree(home, ignore_errors=True)
        raise
    (directory / "database.json").write_text(json.dumps(asdict(server)))
    return server


def _configuration(server: Server) -> str:
    values = {
        "listen_addresses": "127.0.0.1",
        "port": str(server.port),
        "unix_socket_directories": server.home,
        "unix_socket_permissions": "0700",
        "max_connections": "200",
        "shared_buffers": "16MB",
        "max_wal_size": "128MB",
        "dynamic_shared_memory_type": "mmap",  # /dev/shm is small in many containers
        "ssl": "on",
        "log_checkpoints": "off",
        "jit": "off",
    }
    return "".join(f"{name} = '{value}'\n" for name, value in values.items())


def read(directory: Path) -> Server | None:
    """What `up` wrote down, if anything."""
    try:
        return Server(**json.loads((directory / "database.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def start(server: Server) -> None:
    """Start it on its data, after it was stopped."""
    data, log = f"{server.home}/data", f"{server.home}/log"
    _run("pg_ctl", "start", "-w", "-s", "-t", str(DEADLINE), "-D", data, "-l", log)


def stop(server: Server, mode: str = "fast") -> None:
    """`immediate`: as if it was killed; it recovers at its next start."""
    _run("pg_ctl", "stop", "-w", "-s", "-t", str(DEADLINE), "-D", f"{server.home}/data", "-m", mode)


def down(directory: Path) -> None:
    """Stop what `up` started and remove its files. Nothing where there is nothing."""
    directory = directory.resolve()
    home = directory / "postgres"
    if home.exists():
        _end(Server(str(home), 0, "", ""))
        shutil.rmtree(home)
    for name in ("database.json", "server.crt", "password"):
        (directory / name).unlink(missing_ok=True)


def _end(server: Server) -> None:
    if Path(server.home, "data", "postmaster.pid").exists():
        stop(server, "immediate")


def program(name: str) -> str:
    """The path of one of PostgreSQL's programs: the newest version's. Raises SystemExit where it is not installed."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda home: int(home.parent.name))
    found = next((str(home / name) for home in reversed(homes) if (home / name).exists()), None) or shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} was not found. Install the package postgresql (make setup does)")
    return found


def _account() -> tuple[int, int]:
    for name in (OWNER, "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return found.pw_uid, found.pw_gid
    raise SystemExit("there is no user to run PostgreSQL as, which refuses root. Install the package postgresql")


def _run(name: str, *arguments: str) -> None:
    command = [program(name), *arguments]
    if os.geteuid() == 0:
        user, group = _account()
        command = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", *command]
    # Its output must not be a pipe: the server would keep that open.
    log = subprocess.DEVNULL if name == "pg_ctl" else subprocess.PIPE
    variables = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables, cwd="/", text=True
    )
    if done.returncode != 0:
        said = "\n".join((done.stderr or "").splitlines()[-5:])
        raise SystemExit(f"{name} failed with code {done.returncode}: {said or 'see its log'}")


def _certify(directory: Path, data: Path) -> None:
    """A certificate for the server, signed by itself, that a client can be told to trust."""
    key, certificate = data / "server.key", directory / "server.crt"
    self_signed("IP:127.0.0.1", key, certificate)
    _write(data / "server.crt", certificate.read_text())
    key.chmod(0o600)
    if os.geteuid() == 0:
        shutil.chown(key, *_account())


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)
    if os.geteuid() == 0:
        shutil.chown(path, *_account())


def _answers(server: Server) -> bool:
    """Whether something listens at its socket."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(5)
        return link.connect_ex(f"{server.home}/.s.PGSQL.{server.port}") == 0


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tools.database", description=__doc__)
    parser.add_argument("command", choices=("up", "down"))
    parser.add_argument("--dir", type=Path, required=True, help="where its files live")
    chosen = parser.parse_args()
    if chosen.command == "down":
        down(chosen.dir)
        return
    print(up(chosen.dir).url)


if __name__ == "__main__":
    main()
