"""The daemon's own container image: the distribution's Python, git and ssh, the locked packages, and the program.

`python -m tools.daemon_image` builds it on Debian or Ubuntu, as any user, without pulling an image and without an
engine; `--load HOST` gives it to one, `--to DIR` copies image and bill of materials. It is kept under the hash of what
it is made of: the larger part, packages and modules, changes only with the locks. `--fresh` asks the distribution anew.
It must not install or start anything on this machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import docker
import yaml

import reconciler
from tools import daemon_image_archive, daemon_image_packages, daemon_image_sbom, daemon_image_wheels
from tools.kept import cache, locked, remove_unused

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "deploy" / "image"
USER = 65532
"""The uid and gid of the daemon in the image; directories that are mounted for it have to be its own."""
DATA = "var/lib/reconciler"
SBOM = "usr/share/sbom/reconciler.cdx.json"
REPOSITORY = "reconciler"
IMAGES_KEPT = 3
EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: its archive, its bill of materials, its tag, the digests of its config and its manifest.

    `base` is what is kept of its larger part."""

    archive: Path
    sbom: Path
    tag: str
    config: str
    manifest: str
    base: str


def build(*, fresh: bool = False) -> Image:
    """The image, from what is kept or built. Raises SystemExit with what to do."""
    home = cache()
    with locked(home / "daemon-image.lock"):
        base = _kept_base(home)
        if fresh:
            shutil.rmtree(base, ignore_errors=True)
        if not base.exists():
            remove_unused("daemon-base-*", "building-image-*")
            _build_base(base)
        os.utime(base)
        kept = home / f"daemon-image-{_hash([base.name], _program())}"
        if fresh:
            shutil.rmtree(kept, ignore_errors=True)
        if not kept.exists():
            _remove_older(home)
            _build_image(base, kept)
        os.utime(kept)
    found = json.loads((kept / "image.json").read_text())
    return Image(kept / "image.tar", kept / "reconciler.cdx.json", **found)


def load(host: str) -> str:
    """Give the image to the engine at `host`; its tag there, which names exactly this build."""
    image = build()
    client = docker.APIClient(host, version="auto", timeout=300)
    try:
        if not client.images(image.tag, quiet=True):
            with image.archive.open("rb") as data:
                for _ in client.load_image(data):  # type: ignore[no-untyped-call]
                    pass
    finally:
        client.close()
    return image.tag


def _program() -> list[Path]:
    made_by = [Path(__file__), Path(daemon_image_sbom.__file__)]
    return [*(ROOT / name for name in daemon_image_wheels.PARTS), SOURCES / "health.py", *made_by]


def _kept_base(home: Path) -> Path:
    """The larger part, by what it is made from. The distribution's own news count with `--fresh` only."""
    made_by = [Path(__file__).with_name(f"daemon_image_{part}.py") for part in ("archive", "packages", "wheels")]
    sources = [ROOT / "requirements.txt", SOURCES / "contents.yaml", *made_by]
    system = platform.freedesktop_os_release()
    return home / f"daemon-base-{_hash([system.get('VERSION_CODENAME', ''), platform.machine()], sources)}"


def _files(*paths: Path) -> Iterator[Path]:
    for path in paths:
        below = (one for one in path.rglob("*") if "__pycache__" not in one.parts) if path.is_dir() else [path]
        yield from sorted(one.relative_to(ROOT) for one in below if one.is_file())


def _hash(words: list[str], paths: list[Path]) -> str:
    total = hashlib.sha256("\0".join([*words, str(EPOCH)]).encode())
    for name in _files(*paths):
        content = (ROOT / name).read_bytes()
        total.update(f"{name}\0{len(content)}\0".encode() + content)
    return total.hexdigest()[:16]


def _build_base(kept: Path) -> None:
    for program, package in (("apt-get", "apt"), ("dpkg-deb", "dpkg")):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} was not found ({package}): the daemon's image is built on Debian or Ubuntu")
    print("image  packages and modules: about a minute, then they are kept", file=sys.stderr)
    contents = yaml.safe_load((SOURCES / "contents.yaml").read_text())
    with _building(kept) as made:
        system, python = made / "system", made / "python"
        packages = daemon_image_packages.unpack(system, made / "apt", contents)
        _configure(system)
        missing = list(daemon_image_packages.unresolved(system))
        if missing:
            raise SystemExit("these need libraries that deploy/image/contents.yaml leaves out:\n" + "\n".join(missing))
        version = daemon_image_wheels.python_of(system)
        wheels = daemon_image_wheels.install_locked(python, version, contents["modules_dropped"])
        standard = Path("usr") / "lib" / f"python{version}"
        daemon_image_wheels.compile_modules(system, version, [standard])
        folder = daemon_image_wheels.packages_folder(version)
        daemon_image_wheels.compile_modules(python, version, [folder], system)
        for root, name in ((system, "system.tar"), (python, "python.tar")):
            daemon_image_archive.write_layer(root, made / name, _owner, EPOCH)
        facts = {
            "python": version,
            "distribution": _distribution(system),
            "packages": [asdict(package) for package in packages],
            "wheels": [asdict(wheel) for wheel in wheels],
        }
        (made / "facts.json").write_text(json.dumps(facts, indent=1))
        for name in ("apt", "python"):
            shutil.rmtree(made / name)
        # `system` stays: its Python compiles the program, too.


def _distribution(system: Path) -> tuple[str, str]:
    text = (system / "usr" / "lib" / "os-release").read_text()
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return found["ID"].strip('"'), found["VERSION_ID"].strip('"')


def _configure(root: Path) -> None:
    """Accounts and the few files that the packages' own scripts would have written."""
    etc = root / "etc"
    (etc / "os-release").symlink_to("../usr/lib/os-release")
    home = f"/{DATA}"
    (etc / "passwd").write_text(
        f"root:x:0:0:root:/root:/usr/sbin/nologin\nreconciler:x:{USER}:{USER}:reconciler:{home}:/usr/sbin/nologin\n"
    )
    (etc / "group").write_text(f"root:x:0:\nreconciler:x:{USER}:\n")
    (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    for name, mode in ((DATA, 0o700), ("etc/reconciler", 0o755), ("run", 0o755), ("tmp", 0o1777)):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(mode)
    (root / "var" / "run").symlink_to("../run")


def _owner(name: str) -> int:
    return USER if name == DATA else 0


def _build_image(base: Path, kept: Path) -> None:
    facts = json.loads((base / "facts.json").read_text())
    version = facts["python"]
    packages = [
        daemon_image_packages.Package(**{**one, "licences": tuple(one["licences"])}) for one in facts["packages"]
    ]
    wheels = [daemon_image_wheels.Wheel(**one) for one in facts["wheels"]]
    sbom = daemon_image_sbom.bill(reconciler.__version__, tuple(facts["distribution"]), packages, wheels, EPOCH)
    with _building(kept) as made:
        (made / "reconciler.cdx.json").write_bytes(sbom)
        root = made / "program"
        daemon_image_wheels.install_program(root, version)
        folder = daemon_image_wheels.packages_folder(version)
        daemon_image_wheels.compile_modules(root, version, [folder / "reconciler"], base / "system")
        for name, content in (
            (SBOM, sbom),
            ("usr/local/lib/reconciler/health.py", (SOURCES / "health.py").read_bytes()),
        ):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        layers = [daemon_image_archive.known_layer(base / name) for name in ("system.tar", "python.tar")]
        layers.append(daemon_image_archive.write_layer(root, made / "program.tar", _owner, EPOCH))
        tag = f"{REPOSITORY}:{reconciler.__version__}-{_hash([base.name], _program())}"
        digests = daemon_image_archive.write(made / "image.tar", layers, _config(sbom), tag)
        for path in (root, made / "program.tar"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        (made / "image.json").write_text(json.dumps({"tag": tag, **digests, "base": base.name}))


def _config(sbom: bytes) -> dict[str, Any]:
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EPOCH))
    labels = {
        "org.opencontainers.image.title": "reconciler",
        "org.opencontainers.image.description": "Keeps running systems equal to a Git repository",
        "org.opencontainers.image.version": reconciler.__version__,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.documentation": "https://reconciler.dev",
        "dev.reconciler.sbom": f"/{SBOM}",
        "dev.reconciler.sbom.digest": f"sha256:{hashlib.sha256(sbom).hexdigest()}",
    }
    health = ["CMD", "/usr/bin/python3", "-I", "/usr/local/lib/reconciler/health.py"]
    seconds = 1_000_000_000
    return {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": created,
        "history": [
            {"created": created, "comment": comment}
            for comment in ("packages of the distribution", "locked Python packages", "reconciler")
        ],
        "config": {
            "User": f"{USER}:{USER}",
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", f"HOME=/{DATA}", "LANG=C.UTF-8"],
            "WorkingDir": f"/{DATA}",
            "Entrypoint": ["/usr/bin/tini", "--", "/usr/local/bin/reconciler"],
            "Cmd": ["run", "--settings", "/etc/reconciler/reconciler.yaml"],
            "ExposedPorts": {"8480/tcp": {}},
            "StopSignal": "SIGTERM",
            "Labels": labels,
            "Healthcheck": {
                "Test": health,
                "Interval": 15 * seconds,
                "Timeout": 6 * seconds,
                "StartPeriod": 120 * seconds,
                "Retries": 3,
            },
        },
    }


@contextmanager
def _building(kept: Path) -> Iterator[Path]:
    """A directory that becomes `kept` when everything in it is made."""
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix="building-image-") as directory:
        made = Path(directory) / "made"
        made.mkdir()
        yield made
        made.rename(kept)


def _remove_older(home: Path) -> None:
    """Each change of the sources leaves an image behind: the newest few stay, for runs that use them now."""
    images = sorted(home.glob("daemon-image-*/"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in images[IMAGES_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def main() -> None:
    """The command: what was built, one fact a line."""
    parser = argparse.ArgumentParser(prog="python -m tools.daemon_image", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="build all of it anew, with the distribution's newest")
    parser.add_argument("--load", metavar="HOST", help="load it into the engine there, as unix:///var/run/docker.sock")
    parser.add_argument("--to", type=Path, metavar="DIR", help="copy image.tar and reconciler.cdx.json there")
    chosen = parser.parse_args()
    image = build(fresh=chosen.fresh)
    print(f"archive   {image.archive} ({image.archive.stat().st_size / 1e6:.0f} MB)\nsbom      {image.sbom}")
    print(f"tag       {image.tag}\nid        {image.config}\nmanifest  {image.manifest}")
    if chosen.to:
        chosen.to.mkdir(parents=True, exist_ok=True)
        for path in (image.archive, image.sbom):
            shutil.copy2(path, chosen.to / path.name)
        print(f"copied to {chosen.to}")
    if chosen.load:
        print(f"loaded    {load(chosen.load)}")


if __name__ == "__main__":
    main()
