"""Services and HTTPRoutes as the route of a service: who of its groups gets the requests. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.core.kubernetes_json import Json, condition, items, number, one_line, table, text
from reconciler.core.kubernetes_labels import GROUP, OPERATED, Ref, annotation
from reconciler.core.kubernetes_read_groups import companions_of, few, missing, of_other, surplus
from reconciler.core.kubernetes_route import NOBODY, PREVIEW
from reconciler.core.kubernetes_slim import differences
from reconciler.core.live import GroupRoute


def route(service: str, others: Mapping[Ref, Json]) -> GroupRoute:
    """The route of a service out of `others`, all of its Services and HTTPRoutes.

    `operated` is empty where they do not agree on it: the way was being changed when it was cut off, or the Service is
    gone while others of its objects are left.
    """
    address = others.get(Ref("Service", service))
    if address is None:
        return GroupRoute(service, {}, "")
    companions = companions_of(address)
    found = list(differences(address, "Service"))
    for each in companions:
        found += of_other(each, others[each]) if each in others else [missing(each)]
    wanted = {Ref("Service", service), *companions}
    found += [surplus(each) for each in sorted(others.keys() - wanted)]
    operated = annotation(address, OPERATED)
    agreed = all(annotation(others[each], OPERATED) == operated for each in companions if each in others)
    way, shown = (others.get(each) if each in wanted else None for each in _ways(service))
    return GroupRoute(
        service,
        _weights(address, way, others),
        operated if agreed else "",
        preview=next(iter(_backends(shown, others)), "") if shown is not None else "",
        differences=few(found),
        refusal=refusal(way) if way is not None else "",
    )


def refusal(way: Json) -> str:
    """Why the Gateway does not lead requests as an HTTPRoute declares; empty when it does.

    By its own word about the present generation, as the Gateway API has it in `status.parents`. Others may have left
    theirs there: one that accepts is enough.
    """
    gateway = next(iter(items(way, "spec", "parentRefs")), {})
    place = _parent(gateway, way)
    said = [each for each in items(way, "status", "parents") if _parent(table(each, "parentRef"), way) == place]
    found = [_hindrance(each, number(way, "metadata", "generation")) for each in said]
    where = f"Gateway {text(gateway, 'name')}, HTTPRoute {text(way, 'metadata', 'name')}"
    if "" in found:
        return ""
    return f"{where}: {found[0] if found else 'it has said nothing yet; is there such a Gateway, and who serves it?'}"


def _parent(reference: object, way: Json) -> tuple[str, ...]:
    """Which Gateway and listener is meant: by its own namespace where none is named."""
    namespace = text(reference, "namespace") or text(way, "metadata", "namespace")
    return namespace, text(reference, "name"), text(reference, "sectionName")


def _hindrance(parent: Mapping[str, Any], generation: int) -> str:
    for kind, wanted in (("Accepted", "True"), ("ResolvedRefs", "True"), ("PartiallyInvalid", "False")):
        found = condition({"status": parent}, kind)
        stale = number(found, "observedGeneration") < generation
        if (not found or stale) and kind == "Accepted":
            return "it has not said yet whether it takes the last change"
        if found and not stale and text(found, "status") != wanted:
            return one_line(f"{kind} is {text(found, 'status')} ({text(found, 'reason')}): {text(found, 'message')}")
    return ""


def _ways(service: str) -> tuple[Ref, Ref]:
    return Ref("HTTPRoute", service), Ref("HTTPRoute", f"{service}{PREVIEW}")


def _weights(address: Json, way: Json | None, others: Mapping[Ref, Json]) -> dict[str, int] | None:
    chosen = _selected(address)
    if chosen is None:
        return None
    if way is not None:
        return _backends(way, others)
    return {} if chosen == NOBODY else {chosen: 100}


def _selected(address: Json | None) -> str | None:
    """The group that a Service leads to; None where it leads to all."""
    selector = table(address, "spec", "selector")
    return text(selector, GROUP) if GROUP in selector else None


def _backends(way: Json, others: Mapping[Ref, Json]) -> dict[str, int]:
    """The weights of the groups behind an HTTPRoute. A Service of which nothing is known stands for itself."""
    found: dict[str, int] = {}
    for rule in items(way, "spec", "rules")[:1]:
        for backend in items(rule, "backendRefs"):
            name = text(backend, "name")
            group = _selected(others.get(Ref("Service", name)))
            found[group or name] = number(backend, "weight", default=1)
    return found
