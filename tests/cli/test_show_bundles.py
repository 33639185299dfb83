"""What `status` and `plan` draw of plain manifests: objects instead of instances, and what is removed by name."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from rich.console import Console, RenderableType

from reconciler.cli import show
from reconciler.cli.words import describe
from reconciler.core.errors import Reason
from reconciler.core.model import Bundle, ImageRef, ServiceSpec
from reconciler.core.record import VersionRef
from reconciler.core.status import EnvironmentStatus, Plan, ServiceHealth, ServicePlan, Sync
from reconciler.core.steps import EnsureGroup, PruneGroup, Step

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
SPEC = ServiceSpec("shop", ImageRef("manifests/shop", "sha256:" + "b" * 64), bundle=Bundle("apps/shop", (b"{}", b"[]")))
OLD, NEW = (VersionRef(letter * 64, f"manifests/shop@sha256:{letter * 64}", letter * 40) for letter in "ab")
APPLY = EnsureGroup("shop", "production", SPEC, NEW.version, NEW.revision, 1, 1, "digest")
LEFT = ("/ConfigMap/web/old", "apps/Deployment/web/worker", "rbac.authorization.k8s.io/ClusterRole//reader")
PRUNE = PruneGroup("shop", "production", NEW.version, LEFT)


def status(*steps: Step) -> EnvironmentStatus:
    plan = ServicePlan(
        "shop",
        Sync.OUT_OF_SYNC,
        ServiceHealth.DEGRADED,
        steps,
        "shop to become well",
        reason=Reason.UNHEALTHY,
        message="Job web/migrate: BackoffLimitExceeded",
        desired=NEW,
        stable=OLD,
    )
    return EnvironmentStatus("production", NOW, plan=Plan("production", None, {"shop": plan}))


def drawn(what: RenderableType) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=120, markup=False, highlight=False, emoji=False).print(what)
    return out.getvalue().splitlines()


def test_the_status_of_a_bundle_counts_no_instances_and_names_what_is_wrong() -> None:
    assert drawn(show.statuses({"production": status()}, {}, NOW)) == [
        "service          sync       health    version       instances  since  image",
        "production/shop  OutOfSync  Degraded  aaaaaaaaaaaa  -          -      shop@aaaaaaaaaaaa",
        "    -> bbbbbbbbbbbb (shop@bbbbbbbbbbbb)",
        "    why: Unhealthy: Job web/migrate: BackoffLimitExceeded",
        "    waits for shop to become well",
    ]


def test_a_plan_says_from_where_it_applies_and_what_it_removes() -> None:
    assert drawn(show.planned(status(APPLY, PRUNE)))[-2:] == [
        "    + apply shop from apps/shop: 2 objects",
        "    + remove what older versions of shop left: ConfigMap web/old, Deployment web/worker, ClusterRole reader",
    ]


def test_of_many_objects_a_few_are_named() -> None:
    many = tuple(f"/ConfigMap/web/c{number}" for number in range(7))
    said = describe(PruneGroup("shop", "production", NEW.version, many))
    assert said.endswith("ConfigMap web/c3, ConfigMap web/c4 and 2 more")
    assert describe(PruneGroup("shop", "production", NEW.version)) == "remove what older versions of shop left"
