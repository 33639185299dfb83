"""How kustomize is called: without plugins, functions, charts, or files outside of the directories it is given."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.core.bundle_rendering import Rendering

PROGRAMS = (("kustomize", "build"), ("kubectl", "kustomize"))
"""What is looked for, in this order, with the words that come first. Both have the same parts inside."""


def arguments(rendering: Rendering) -> Sequence[str]:
    """The arguments after those words. A path with ./ in front is never taken for an address."""
    return (f"./{rendering.root}", "--load-restrictor", "LoadRestrictionsRootOnly")
