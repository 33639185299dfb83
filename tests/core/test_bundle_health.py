"""What a bundle says is not to be waited for: marked in the objects, and refused where there is no such object."""

from __future__ import annotations

import json

from tests.support.bundles import Bundles, config

SHOP = {"apps/shop/a.yaml": config("a", "b")}
JOB = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: a}\n"


def test_what_is_not_waited_for_is_marked():
    kept = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, annotations: {x: z}}\n"
    files = {"apps/shop/a.yaml": f"{kept}---\n{config('b')}---\n{JOB}"}

    def marked(health: str) -> list[tuple[str, str, dict[str, str]]]:
        found = [json.loads(each) for each in Bundles(files, f"{{path: apps/shop{health}}}").bundle().objects]
        return [(each["kind"], each["metadata"]["name"], each["metadata"].get("annotations", {})) for each in found]

    ignored = {"reconciler.dev/health": "ignore"}
    plain = [("ConfigMap", "a", {"x": "z"}), ("ConfigMap", "b", {}), ("Job", "a", {})]
    assert marked("") == marked(", health: {}") == marked(", health: {ignore: []}") == plain
    assert marked(", health: {ignore: [{kind: Job}]}") == [*plain[:2], ("Job", "a", ignored)]
    named = marked(", health: {ignore: [{kind: ConfigMap, name: a}]}")
    assert named == [("ConfigMap", "a", {"x": "z"} | ignored), *plain[1:]]
    other = Bundles(files, "{path: apps/shop, health: {ignore: [{kind: Job}]}}").bundle()
    assert other.digest != Bundles(files).bundle().digest, "it is part of the version"


def test_what_is_not_waited_for_has_to_be_there():
    spec = "{path: apps/shop, health: {ignore: [{kind: ConfigMap}, {kind: ConfigMap, name: c}, {kind: Job}]}}"
    assert Bundles(SHOP, spec).said() == [
        "shop.yaml:4:62: there is no ConfigMap c in apps/shop; correct or remove this",
        "shop.yaml:4:90: there is no Job in apps/shop; correct or remove this",
    ]
