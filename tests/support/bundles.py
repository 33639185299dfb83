"""A fleet repository in memory with plain manifests in it: all its directories can be listed, and what renders is a
function of the test's own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from reconciler.core.bundle_rendering import Rendering
from reconciler.core.errors import ReconcilerError
from reconciler.core.manifest import Fleet
from reconciler.core.model import Bundle, ServiceSpec
from reconciler.core.policy import Allow
from tests.support.fleet import DIRECTORY, Repository

CLUSTER = Allow(native=True, namespace="prod")
CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {}}}\n"


def manifests(spec: str = "{path: apps/shop}", name: str = "shop") -> str:
    """A file of kind Manifests; `spec` is one flow mapping, in line 4 from column 7."""
    return f"apiVersion: reconciler.dev/v1\nkind: Manifests\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def config(*names: str) -> str:
    """ConfigMaps, each in a document of its own."""
    return "---\n".join(CONFIG.format(name) for name in names)


class Bundles(Repository):
    """`rendered`: what comes out of the renderer, or what it raises; `renderings`: what it was asked for."""

    def __init__(self, files: Mapping[str, str | bytes], spec: str = "{path: apps/shop}") -> None:
        super().__init__({f"{DIRECTORY}/shop.yaml": manifests(spec), **files})
        self.rendered: bytes | ReconcilerError = b""
        self.renderings: list[Rendering] = []
        self.hostile: dict[str, ReconcilerError] = {}

    def render(self, rendering: Rendering) -> bytes:
        self.renderings.append(rendering)
        if isinstance(self.rendered, ReconcilerError):
            raise self.rendered
        return self.rendered

    def listing(self, directory: str) -> dict[str, str]:
        if directory in self.hostile:
            raise self.hostile[directory]
        prefix = f"{directory}/"
        return {path: hashlib.sha1(data).hexdigest() for path, data in self.files.items() if path.startswith(prefix)}

    @property
    def fleet(self) -> Fleet:
        return replace(super().fleet, listing=self.listing, render=self.render)

    def spec(self, allow: Allow = CLUSTER, name: str = "shop") -> ServiceSpec:
        state = self.state(allow)
        assert not state.problems, state.problems
        return state.services[name]

    def bundle(self, allow: Allow = CLUSTER) -> Bundle:
        found = self.spec(allow).bundle
        assert found is not None
        return found

    def said(self, allow: Allow = CLUSTER, name: str = "shop") -> list[str]:
        """The problems, without the directory of the environment."""
        state = self.state(allow)
        assert name not in state.services
        return [str(problem).removeprefix(f"{DIRECTORY}/") for problem in state.problems[name]]
