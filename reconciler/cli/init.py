"""`reconciler init`: the first files of a new installation. Never overwrites anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.common import RefusedError, say
from reconciler.cli.templates import ENVIRONMENT, README, SERVICE, SETTINGS


def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where. Default: here.")] = Path(),
) -> None:
    """Write commented settings and the skeleton of a fleet repository, and say what to do next."""
    root = directory.absolute()
    fleet = root / "fleet"
    files = {
        root / "reconciler.yaml": SETTINGS.format(fleet=fleet.as_posix()),
        fleet / "README.md": README,
        fleet / "environments" / "staging" / "environment.yaml": ENVIRONMENT,
        fleet / "environments" / "staging" / "hello.yaml": SERVICE,
    }
    for path, content in files.items():
        say(f"{'wrote' if _write(path, content) else 'kept '} {path}")
    settings = root / "reconciler.yaml"
    say(
        f"""
Next:
  1. Put your image, pinned by digest, into {fleet / "environments/staging/hello.yaml"}
  2. reconciler validate {fleet}
  3. git -C {fleet} init -b main && git -C {fleet} add . && git -C {fleet} commit -m "Begin the fleet"
  4. reconciler plan --settings {settings}
  5. reconciler run --settings {settings}"""
    )


def _write(path: Path, content: str) -> bool:
    """Write a file that is not there yet; whether it was written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        return False
    except OSError as error:
        raise RefusedError(f"cannot be written: {error.strerror}", where=str(path)) from error
    return True
