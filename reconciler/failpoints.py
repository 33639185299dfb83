"""Failpoints: named places at which a test makes the program die as if the power went. Inert without the variable.

`RECONCILER_FAILPOINT=name` dies at the first time `name` is hit, `name:N` at the Nth. `RECONCILER_FAILPOINT_SIGNAL`
names another signal than SIGKILL: with SIGSTOP the program stands still there until it is continued.
"""

from __future__ import annotations

import os
import signal
import threading

_DOCKER_EFFECTS = (
    "network_create",
    "network_remove",
    "volume_create",
    "filler_create",
    "fill",
    "filler_remove",
    "create",
    "start",
    "disconnect",
    "connect",
    "terminate",
    "kill",
    "remove",
    "volume_remove",
    "pull",
)
DOCKER_FAILPOINTS = tuple(f"docker.{when}_{effect}" for effect in _DOCKER_EFFECTS for when in ("before", "after"))
FAILPOINTS = ("loop.after_intent", "loop.after_effect", *DOCKER_FAILPOINTS)
"""Those of a release without a proxy."""
_PROXY_EFFECTS = ("state", "config", "create", "start", "stop", "remove", "reload")
PROXY_FAILPOINTS = tuple(f"proxy.{when}_{effect}" for effect in _PROXY_EFFECTS for when in ("before", "after"))
"""Those of a proxy that we run, while it is made or changed."""
_TRAFFIC_EFFECTS = ("raise", "settle", "save")
TRAFFIC_FAILPOINTS = tuple(f"traffic.{when}_{effect}" for effect in _TRAFFIC_EFFECTS for when in ("before", "after"))
"""Those of a shift: new addresses are brought up, the table becomes exact, the state of the servers is saved."""

_KUBERNETES_EFFECTS = ("create", "adopt", "claim", "apply", "hand_over", "remove")
KUBERNETES_FAILPOINTS = tuple(
    f"kubernetes.{when}_{effect}" for effect in _KUBERNETES_EFFECTS for when in ("before", "after")
)
"""Those of a release on Kubernetes: one call to the API each."""

_lock = threading.Lock()
_hits: dict[str, int] = {}


def hit(name: str) -> None:
    """Die here by a signal if the environment variable says so."""
    wanted = os.environ.get("RECONCILER_FAILPOINT")
    if not wanted:
        return
    chosen, _, nth = wanted.partition(":")
    if chosen != name:
        return
    with _lock:
        _hits[name] = _hits.get(name, 0) + 1
        count = _hits[name]
    if count == int(nth or "1"):
        sent = os.environ.get("RECONCILER_FAILPOINT_SIGNAL", "SIGKILL")
        # To this very thread: one for the program is taken by any of its threads, and this one runs on until then.
        signal.pthread_kill(threading.get_ident(), signal.Signals[sent])
