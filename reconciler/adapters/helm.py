"""How helm is called: a template is made of files only, without a cluster, plugins, the network, or names looked up."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.core.bundle_rendering import Rendering

PROGRAMS = (("helm", "template"),)
"""What is looked for, with the word that comes first."""


def arguments(rendering: Rendering) -> Sequence[str]:
    """The arguments after that word.

    The schema of a chart's values is not looked at: it may refer to other files of this machine and to addresses, and
    helm would read them.
    """
    found = [rendering.release, f"./{rendering.root}", "--namespace", rendering.namespace]
    found += ["--include-crds", "--skip-tests", "--skip-schema-validation"]
    for path in rendering.values:
        found += ["--values", path]
    if rendering.kube_version:
        found += ["--kube-version", rendering.kube_version]
    for each in rendering.api_versions:
        found += ["--api-versions", each]
    return found
