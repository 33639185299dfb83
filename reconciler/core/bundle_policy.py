"""What the operator allows the objects of plain manifests: the counterpart of `core/policy.py` for services."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from reconciler.core.bundle_objects import Ask, Found
from reconciler.core.kubernetes_identity import is_cluster_scoped
from reconciler.core.policy import Allow
from reconciler.core.words import shown


def denials(found: Found, allow: Allow) -> Iterator[str]:
    """A sentence for each thing that an object is or asks and `allow` does not permit."""
    group, kind, namespace, _ = found.identity
    who = found.identity.shown
    if is_cluster_scoped(group, kind):
        if not allow.cluster_scoped:
            yield f"{who} lies in no namespace but in the whole cluster{_remedy('set allow.clusterScoped')}"
    elif namespace and namespace != allow.namespace and namespace not in allow.namespaces:
        own = f"the environment's own is {allow.namespace}" if allow.namespace else "only the environment's own is"
        message = f"{who} lies in namespace {namespace}, and {own}{'' if allow.namespace else ' allowed by itself'}"
        yield f"{message}; remove metadata.namespace, or the operator can add it to allow.namespaces"
    for wanted in found.wants:
        match wanted.ask:
            case Ask.PRIVILEGED:
                permitted, setting = allow.privileged, "set allow.privileged"
            case Ask.HOST_NETWORK:
                permitted, setting = allow.host_network, "set allow.hostNetwork"
            case Ask.CAPABILITY:
                permitted, setting = wanted.what in allow.capabilities, "add it to allow.capabilities"
            case _:
                assert_never(wanted.ask)
        if not permitted:
            what = f"capability {shown(wanted.what, quote=False)}" if wanted.ask is Ask.CAPABILITY else wanted.what
            yield f"{who} asks for {what}, which is not allowed here{_remedy(setting)}"


def _remedy(what: str) -> str:
    return f"; the operator can {what}"
