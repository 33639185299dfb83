"""The port for what renders kustomizations and charts. No implementation, no library."""

from __future__ import annotations

from typing import Protocol

from reconciler.core.bundle_rendering import Rendering


class Renderer(Protocol):
    """Programs that make plain manifests out of kustomizations and charts."""

    def render(self, rendering: Rendering) -> bytes:
        """The YAML that `rendering` comes to. Asking again for the same costs nothing.

        Raises Rejected(MANIFEST_INVALID) when its files are at fault, Stalled(SETTINGS_INVALID) when there is no
        program for it, Retryable when that was ended before it was done.
        """
