"""A fleet repository in memory, for tests of the manifests: files by path, and what the core makes of them."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from reconciler.core import manifest
from reconciler.core.manifest import Fleet, Refusal
from reconciler.core.model import DesiredState, Revision, ServiceSpec
from reconciler.core.policy import Allow
from reconciler.schemas import load_schemas

DIGEST = "sha256:" + "ab" * 32
REVISION = Revision("c" * 40, (), "Ada", "Ada", datetime(2026, 1, 1, tzinfo=UTC), "subject")
DIRECTORY = "environments/prod"


def environment(spec: str = "") -> str:
    """An environment's own file; `spec` is one flow mapping."""
    return "apiVersion: reconciler.dev/v1\nkind: Environment\nmetadata: {name: prod}\n" + (
        f"spec: {spec}\n" if spec else ""
    )


def service(name: str = "web", spec: str = "", image: str = f"registry.test/web:1@{DIGEST}", top: str = "") -> str:
    """A service's file: `spec` is appended below `spec`, which begins in line 5 with the image in line 6."""
    lines = f"apiVersion: reconciler.dev/v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  image: {image}\n"
    own = textwrap.indent(textwrap.dedent(spec).strip("\n"), "  ")
    return f"{lines}{own}\n{top}"


class Repository:
    """Files and how often they are read. The blob ids of those outside of `DIRECTORY` are not known beforehand."""

    def __init__(self, files: Mapping[str, str | bytes], *, own: bool = True) -> None:
        files = {**({f"{DIRECTORY}/environment.yaml": environment()} if own else {}), **files}
        self.files = {path: text if isinstance(text, bytes) else text.encode() for path, text in files.items()}
        self.reads: list[str] = []
        self.refusals: dict[str, Exception] = {}
        self.cache: dict[Any, Any] = {}

    def read(self, path: str) -> bytes:
        self.reads.append(path)
        if path in self.refusals:
            raise self.refusals[path]
        return self.files[path]

    @property
    def fleet(self) -> Fleet:
        blobs = {
            path: hashlib.sha1(data).hexdigest()
            for path, data in self.files.items()
            if path.startswith(f"{DIRECTORY}/")
        }
        return Fleet(DIRECTORY, blobs, self.read)

    def parse(self, allow: Allow = Allow(), name: str = "prod") -> DesiredState | Refusal:  # noqa: B008
        return manifest.parse(name, REVISION, self.fleet, schemas=load_schemas(), allow=allow, cache=self.cache)

    def state(self, allow: Allow = Allow()) -> DesiredState:  # noqa: B008
        found = self.parse(allow)
        assert isinstance(found, DesiredState), found
        return found

    def refusal(self) -> Refusal:
        found = self.parse()
        assert isinstance(found, Refusal), found
        return found


def spec_of(text: str, allow: Allow = Allow(), **files: str) -> ServiceSpec:  # noqa: B008
    """The service that `text`, appended to a service's spec, means. There must be no problem."""
    state = Repository({f"{DIRECTORY}/web.yaml": service(spec=text), **files}).state(allow)
    assert not state.problems, state.problems
    return state.services["web"]


def problems_of(text: str, allow: Allow = Allow(), files: Mapping[str, str] | None = None) -> list[str]:  # noqa: B008
    """The problems of a service with `text` appended to its spec, as people see them, without the file's name."""
    state = Repository({f"{DIRECTORY}/web.yaml": service(spec=text), **(files or {})}).state(allow)
    assert "web" not in state.services
    return [str(problem).removeprefix(f"{DIRECTORY}/web.yaml:") for problem in state.problems["web"]]
