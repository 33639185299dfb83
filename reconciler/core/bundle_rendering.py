"""What is handed to a renderer of kustomizations and charts: files and arguments, chosen and checked beforehand.

Nothing else of a repository reaches the programs, and no argument of theirs comes from it but as the content of a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class Tool(StrEnum):
    """Which program renders."""

    KUSTOMIZE = "kustomize"
    HELM = "helm"


@dataclass(frozen=True, slots=True)
class Rendering:
    """Render the directory `root` of `files` (relative paths with their content, sorted).

    For a chart: the `release` and `namespace` it is rendered for, `values`: which of the files hold its values, the
    last one counts most; `kube_version` and `api_versions`: what it is told of the cluster, as it is not asked.
    """

    tool: Tool
    files: tuple[tuple[str, bytes], ...] = field(repr=False)
    root: str
    release: str = ""
    namespace: str = ""
    values: tuple[str, ...] = ()
    kube_version: str = ""
    api_versions: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """64 hex digits over all of it."""
        total = hashlib.sha256()
        words = (self.tool, self.root, self.release, self.namespace, self.kube_version, *self.values, "", "")
        for part in (*words, *self.api_versions, "", ""):
            total.update(f"{part}\0".encode())
        for path, content in self.files:
            total.update(f"{path}\0{len(content)}\0".encode() + content)
        return total.hexdigest()


Render = Callable[[Rendering], bytes]
"""Gives the YAML that a rendering comes to. Raises Rejected where its files are at fault, Stalled and Retryable where
the surroundings are: no such program, no time."""
