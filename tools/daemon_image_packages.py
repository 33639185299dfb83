"""The part of the daemon's image that comes from the distribution: its packages, resolved and checked by apt.

apt works in a directory of its own with this machine's sources and keys, as if nothing were installed: neither what is
installed here nor what apt knows here counts or changes. Nothing that a package would run at its installation is run.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

MERGED = ("bin", "lib", "lib64", "sbin")
"""Directories at the top that are links into usr."""

_CERTIFICATES = "usr/share/ca-certificates"
_LICENCE = re.compile(r"^License:[ \t]*(\S[^\n]*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Package:
    """One package in the image. `sha256` is that of its file, `licences` what its copyright file names."""

    name: str
    version: str
    architecture: str
    sha256: str
    licences: tuple[str, ...]


def unpack(root: Path, work: Path, contents: Mapping[str, Any]) -> list[Package]:
    """Put the packages that `contents` names into `root`, sorted by name. Raises SystemExit with what to do."""
    archives = work / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    apt = Apt(work)
    apt.run("update")
    wanted = [
        f"{name}={version}"
        for name, version in apt.closure([*contents["packages"], "base-files"])
        if not _matches(name, contents["left_out"])
    ]
    apt.run("download", *wanted, cwd=archives)
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    found = []
    for file in sorted(archives.glob("*.deb")):
        name = _field(file, "Package")
        only = ("usr/lib/os-release", "etc/debian_version") if name == "base-files" else ()
        _extract(file, root, contents, only)
        _note(file, root, name)
        found.append(_described(file, root, name))
    _trust(root)
    return found


class Apt:
    """apt with a state of its own below `work`."""

    def __init__(self, work: Path) -> None:
        state, cache = work / "state", work / "cache"
        (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (cache / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        nothing = work / "nothing-installed"
        nothing.touch()
        values = {
            "Dir::State": state,
            "Dir::State::status": nothing,
            "Dir::Cache": cache,
            "Debug::NoLocking": "1",
            "APT::Sandbox::User": "",  # its own user may not write here
            "APT::Install-Recommends": "0",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        self._options = [word for key, value in values.items() for word in ("-o", f"{key}={value}")]

    def run(self, *words: str, cwd: Path | None = None) -> str:
        """What apt-get says. Raises SystemExit."""
        command = ["apt-get", "-q", *self._options, *words]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, env=_variables())
        if done.returncode:
            last = "\n".join(done.stderr.splitlines()[-8:])
            raise SystemExit(f"apt-get {words[0]} failed for the daemon's image:\n{last}")
        return done.stdout

    def closure(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """Name and version of `names` and of all that they depend on."""
        said = self.run("--simulate", "install", *names)
        return re.findall(r"^Inst (\S+) \((\S+)", said, re.MULTILINE)


def _variables() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _field(file: Path, name: str) -> str:
    command = ["dpkg-deb", "--field", str(file), name]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _extract(file: Path, root: Path, contents: Mapping[str, Any], only: Sequence[str]) -> None:
    command = ["dpkg-deb", "--fsys-tarfile", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as unpacking:
        assert unpacking.stdout is not None
        with tarfile.open(fileobj=unpacking.stdout, mode="r|") as tar:
            for entry in tar:
                name = _place(entry.name)
                if (name in only) if only else _kept(name, contents):
                    _put(root, name, entry, tar)
    if unpacking.returncode:
        raise SystemExit(f"{file.name} could not be unpacked")


def _place(name: str) -> str:
    plain = name.removeprefix("./").rstrip("/")
    return f"usr/{plain}" if plain.split("/")[0] in MERGED else plain


def _kept(name: str, contents: Mapping[str, Any]) -> bool:
    path = PurePosixPath(name)
    if _matches(name, contents["dropped"]):
        return False
    if path.parent.name in ("bin", "sbin"):
        return _matches(path.name, contents["programs"])
    if path.parts[:3] == ("usr", "lib", "git-core"):
        return path.name in contents["git_programs"]
    if path.parts[:3] == ("usr", "share", "doc"):
        return path.name == "copyright"
    if path.parent.name == "lib-dynload":
        return path.name.split(".")[0] not in contents["without_library"]
    return True


def _put(root: Path, name: str, entry: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
    target = root / name
    if entry.isdir() or not name:
        return  # made where something is in them
    if target.is_symlink() or target.exists():
        target.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    if entry.issym():
        target.symlink_to(entry.linkname)
    elif entry.islnk():
        os.link(root / _place(entry.linkname), target)
    else:
        stream = tar.extractfile(entry)
        assert stream is not None, "a package holds files, directories and links"
        _write(target, stream, entry.mode & 0o755)


def _write(target: Path, stream: IO[bytes], mode: int) -> None:
    with target.open("wb") as file:
        while block := stream.read(1 << 20):
            file.write(block)
    target.chmod(mode)


def _is_elf(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) == b"\x7fELF"


def _note(file: Path, root: Path, name: str) -> None:
    """What scanners of images read: the package's own description, where distroless images have it."""
    command = ["dpkg-deb", "--field", str(file)]
    said = subprocess.run(command, check=True, capture_output=True).stdout
    folder = root / "var" / "lib" / "dpkg" / "status.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(said)


def _described(file: Path, root: Path, name: str) -> Package:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    copyright_file = root / "usr" / "share" / "doc" / name / "copyright"
    text = copyright_file.read_text(errors="replace") if copyright_file.is_file() else ""
    machine_readable = text.lstrip().lower().startswith("format:")
    licences = sorted({found.strip() for found in _LICENCE.findall(text)}) if machine_readable else []
    return Package(name, _field(file, "Version"), _field(file, "Architecture"), digest, tuple(licences))


def _trust(root: Path) -> None:
    """The bundle that `update-ca-certificates` would write, and where OpenSSL looks for it."""
    certificates = sorted((root / _CERTIFICATES).rglob("*.crt"))
    if not certificates:
        raise SystemExit("the package ca-certificates has no certificates")
    bundle = root / "etc" / "ssl" / "certs" / "ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    with bundle.open("wb") as file:
        for path in certificates:
            file.write(path.read_bytes().rstrip(b"\n") + b"\n")
            path.unlink()
    link = root / "usr" / "lib" / "ssl" / "cert.pem"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("/etc/ssl/certs/ca-certificates.crt")


def unresolved(root: Path) -> Iterator[str]:
    """Programs and libraries in `root` with a library that is not there: `file: library`."""
    loader = loader_of(root)
    for path in sorted((root / "usr").rglob("*")):
        if path.is_symlink() or not path.is_file() or not _is_elf(path) or path.suffix == ".o":
            continue
        done = subprocess.run([*loader, "--list", str(path)], check=False, capture_output=True, text=True)
        for missing in re.findall(r"^\s*(\S+) => not found", done.stdout, re.MULTILINE):
            yield f"{path.relative_to(root)}: {missing}"


def loader_of(root: Path) -> list[str]:
    """A command that runs a program of `root` with the libraries of `root`, whatever is installed here."""
    candidates = [*(root / "usr" / "lib64").glob("ld-linux*"), *(root / "usr" / "lib").glob("ld-linux*")]
    if not candidates:
        raise SystemExit("the distribution's libc6 brings no dynamic loader for this machine")
    found = candidates[0]
    if found.is_symlink():  # its target is written as it is seen from inside
        target = str(found.readlink())
        found = root / _place(target.lstrip("/")) if target.startswith("/") else found.parent / target
    folders = [str(path) for path in (root / "usr" / "lib").glob("*-linux-gnu*") if path.is_dir()]
    return [str(found), "--inhibit-cache", "--library-path", ":".join([*folders, str(root / "usr" / "lib")])]
