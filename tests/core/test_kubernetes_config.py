"""ConfigMaps and Secrets are named after what is in them, and no name or annotation tells a secret."""

from __future__ import annotations

import base64
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings

from reconciler.core import kubernetes_config as config
from reconciler.core.errors import Reason, Stalled
from reconciler.core.model import File, SecretTarget, SecretUse, ServiceSpec
from tests.support.kube_specs import ENVIRONMENT, PLACE, PLAIN, RICH, SECRETS, specs

SUBDOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


def maps(spec: ServiceSpec) -> list[dict]:
    return list(config.config_maps(spec, PLACE, ENVIRONMENT))


def skeletons(spec: ServiceSpec, versions: dict[str, str] | None = None) -> list[dict]:
    return list(config.secrets(spec, PLACE, ENVIRONMENT, versions or SECRETS))


def test_files_are_text_where_they_can_be() -> None:
    (found,) = maps(RICH)
    assert found["data"] == {"0": "hello"}
    assert found["binaryData"] == {"1": base64.b64encode(b"\xff\x00").decode()}
    assert found["immutable"] is True
    assert found["metadata"]["labels"] == {
        "dev.reconciler.owner": "default",
        "dev.reconciler.environment": ENVIRONMENT,
        "dev.reconciler.service": "web",
    }
    assert "annotations" not in found["metadata"]


def test_another_content_is_another_name_and_the_same_content_the_same() -> None:
    (before,) = maps(RICH)
    (again,) = maps(replace(RICH, files=RICH.files[::-1], env={}))
    (after,) = maps(replace(RICH, files=(File("/etc/app/a.conf", b"bye"), RICH.files[1])))
    assert before == again
    assert before["metadata"]["name"] != after["metadata"]["name"]


def test_what_does_not_fit_into_one_map_goes_into_the_next() -> None:
    files = tuple(File(f"/etc/{index}", bytes([65 + index]) * size) for index, size in enumerate((2**20, 1, 2**20 - 1)))
    batches = config.batches(replace(PLAIN, files=files))
    assert [[len(file.content) for _, file in batch.files] for batch in batches] == [[2**20], [1, 2**20 - 1]]
    assert [each["metadata"]["name"] for each in maps(replace(PLAIN, files=files))] == [b.name for b in batches]
    assert len({batch.name for batch in batches}) == 2


def test_a_secret_has_the_keys_that_are_asked_for() -> None:
    found = {config.secret_of(each): each["data"] for each in skeletons(RICH)}
    assert found == {"Db_password": {"content": "", "variable": ""}, "token": {"content": ""}}
    assert config.secret_of(maps(RICH)[0]) is None


def test_a_new_version_of_a_secret_is_a_new_object() -> None:
    before = {each["metadata"]["name"] for each in skeletons(RICH)}
    after = {each["metadata"]["name"] for each in skeletons(RICH, {**SECRETS, "token": "v3"})}
    assert len(before & after) == 1
    assert len(after) == 2


def test_a_secret_is_filled_as_a_file_and_as_a_variable() -> None:
    skeleton = skeletons(RICH)[0]
    filled = config.filled(skeleton, b"very secret\n")
    assert {key: base64.b64decode(value) for key, value in filled["data"].items()} == {
        "content": b"very secret\n",
        "variable": b"very secret",
    }
    assert filled["metadata"] == skeleton["metadata"]
    assert skeleton["data"] == {"content": "", "variable": ""}


@pytest.mark.parametrize("content", [b"\xff", b"a\0b"])
def test_what_cannot_be_a_variable_is_refused_without_being_shown(content: bytes) -> None:
    with pytest.raises(Stalled) as caught:
        config.filled(skeletons(RICH)[0], content)
    assert caught.value.reason is Reason.SECRET_MISSING
    assert str(caught.value) == (
        "secret Db_password: its content cannot be an environment variable. Give it to the service as a file"
    )
    as_file = replace(PLAIN, secrets=(SecretUse("token", SecretTarget.FILE, "/run/token"),))
    assert base64.b64decode(config.filled(skeletons(as_file)[0], content)["data"]["content"]) == content


@settings(max_examples=40)
@given(specs)
def test_names_are_valid_and_are_referred_to(spec: ServiceSpec) -> None:
    found = [each["metadata"]["name"] for each in (*maps(spec), *skeletons(spec))]
    assert len(set(found)) == len(found)
    assert all(SUBDOMAIN.fullmatch(name) for name in found)
