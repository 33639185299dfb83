"""Prometheus' own tool for rules, out of the distribution's package without installing that: nothing is started."""

from __future__ import annotations

import platform
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tools.daemon_image_packages import Apt
from tools.kept import cache, locked


def promtool() -> str:
    """The program, fetched once and kept."""
    home = cache()
    kept = home / f"promtool-{platform.freedesktop_os_release().get('VERSION_CODENAME', '')}-{platform.machine()}"
    with locked(home / "promtool.lock"):
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=home, prefix="promtool-") as directory:
                made = _fetch(Path(directory))
                made.chmod(0o755)
                made.rename(kept)
    return str(kept)


def _fetch(work: Path) -> Path:
    apt = Apt(work)
    apt.run("update")
    apt.run("download", "prometheus", cwd=work)
    (package,) = work.glob("prometheus_*.deb")
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as unpacking:
        assert unpacking.stdout is not None
        with tarfile.open(fileobj=unpacking.stdout, mode="r|") as tar:
            for entry in tar:
                stream = tar.extractfile(entry) if entry.name == "./usr/bin/promtool" else None
                if stream is not None:
                    (work / "promtool").write_bytes(stream.read())
    return work / "promtool"
