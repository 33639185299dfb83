"""What `validate` remarks on in plain manifests: allowed, and not as it should be."""

import json

import pytest

from reconciler.core import bundle
from tests.support.bundles import Bundles


def test_images_that_are_not_pinned_are_remarked():
    def pod(*images: str) -> str:
        containers = json.dumps([{"name": "c", "image": image} for image in images])
        return f"apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{containers: {containers}}}\n"

    def said(*images: str) -> list[str]:
        found = Bundles({"apps/shop/a": pod(*images)}, "{path: apps/shop/a}").bundle()
        return [text.partition(":1")[0] for text in bundle.remarks(found)]

    assert said("a@sha256:" + "0" * 64) == []
    assert said("b:1", "a@sha256:" + "0" * 64) == ["1 image is not pinned by digest (b"]
    assert said("b:1", "c:1") == ["2 images are not pinned by digest (b"]


@pytest.mark.parametrize(
    ("group", "spec", "told"),
    [
        ("batch", "{}", 0),
        ("batch", "{ttlSecondsAfterFinished: 9}", 1),
        ("batch.volcano.sh", "{ttlSecondsAfterFinished: 9}", 0),
    ],
)
def test_a_job_that_the_cluster_would_remove_is_remarked(group, spec, told):
    job = f"apiVersion: {group}/v1\nkind: Job\nmetadata: {{name: once}}\nspec: {spec}\n"
    said = list(bundle.remarks(Bundles({"apps/shop/a.yaml": job}).bundle()))
    assert sum(text.startswith("Job once is applied without ttlSecondsAfterFinished") for text in said) == told
