"""Threats at the engine's edge: loosened isolation, foreign containers, secrets out of place, hostile registries."""

from __future__ import annotations

import base64
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import docker
import pytest

from reconciler.adapters.docker_create import ROLE_INSTANCE, create_request, file_volumes, instance_labels, placed_files
from reconciler.adapters.docker_filesystem import changed_by_hand
from reconciler.adapters.docker_images import classified, credentials_for, registry_of
from reconciler.adapters.secrets import MAX_BYTES, DirectorySecrets
from reconciler.core import names
from reconciler.core.errors import Reason, Rejected, Retryable, Stalled
from reconciler.core.live import HealthStatus
from reconciler.core.model import File, ImageRef, Port, Security, ServiceSpec
from reconciler.core.steps import (
    CreateInstance,
    KillInstance,
    RemoveInstance,
    StartInstance,
    SweepOrphan,
    TerminateInstance,
)
from tests.support.runtime_house import House, demolish, real_house

_serial = itertools.count()
IMAGE = ImageRef("registry.example/app", "sha256:" + "1" * 64)
NAME = "rec.prod.web.aaaaaaaaaaaa.0"


def requested(image_user: str = "", **changes: object) -> dict[str, object]:
    spec = ServiceSpec(name="web", image=IMAGE, **changes)  # type: ignore[arg-type]
    effect = CreateInstance(NAME, "prod", spec, "a" * 64, "f" * 40, 0)
    image = {"Id": "sha256:2", "Config": {"User": image_user}}
    return create_request(effect, "house", image, {}, {}, ())


def test_every_dangerous_field_is_at_its_safe_value_by_default() -> None:
    host = requested()["HostConfig"]
    assert isinstance(host, dict)
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["RestartPolicy"] == {"Name": "no"}
    for dangerous in ("CapAdd", "Privileged", "PortBindings", "Mounts"):
        assert not host[dangerous]
    for never in ("Binds", "Devices", "PidMode", "IpcMode", "UTSMode", "UsernsMode", "VolumesFrom", "DeviceRequests"):
        assert never not in host
    assert host["NetworkMode"] == "rec.prod"


@pytest.mark.parametrize(
    ("security", "field", "value"),
    [
        (Security(writable_root=True), "ReadonlyRootfs", False),
        (Security(privileged=True), "Privileged", True),
        (Security(host_network=True), "NetworkMode", "host"),
        (Security(capabilities=("NET_BIND_SERVICE",)), "CapAdd", ["NET_BIND_SERVICE"]),
    ],
)
def test_only_what_was_asked_is_loosened(security: Security, field: str, value: object) -> None:
    strict, loose = requested()["HostConfig"], requested(security=security)["HostConfig"]
    assert isinstance(strict, dict)
    assert isinstance(loose, dict)
    assert loose[field] == value
    also = {"CapDrop", "SecurityOpt"} if security.privileged else set()
    assert {key for key in strict if strict[key] != loose[key]} == {field, *also}


@pytest.mark.parametrize(
    ("asked", "own", "used"),
    [
        (None, "", "65532:65532"),
        (None, "root", "65532:65532"),
        (None, "0:0", "65532:65532"),
        (None, "nginx", "nginx"),
        ("0", "nginx", "0"),
    ],
)
def test_nobody_is_root_unless_asked(asked: str | None, own: str, used: str) -> None:
    assert requested(own, security=Security(user=asked))["User"] == used


def test_a_spec_cannot_overwrite_our_labels() -> None:
    spec = ServiceSpec(name="web", image=IMAGE, labels={names.LABEL_OWNER: "evil", "team": "a"})
    labels = instance_labels("house", CreateInstance(NAME, "prod", spec, "a" * 64, "f" * 40, 0))
    assert (labels[names.LABEL_OWNER], labels["team"]) == ("house", "a")
    assert labels[names.LABEL_ROLE] == ROLE_INSTANCE


def test_ports_are_published_only_when_declared() -> None:
    host = requested(ports=(Port("a", 80), Port("b", 81, host=8081)))["HostConfig"]
    assert isinstance(host, dict)
    assert host["PortBindings"] == {"81/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8081"}]}


@pytest.mark.parametrize("path", ["/app.yaml", "app/x", "/a/../etc/passwd", "/a/./b", "/a//b", "/"])
def test_files_go_only_below_a_directory(path: str) -> None:
    with pytest.raises(Rejected) as caught:
        file_volumes(NAME, placed_files(ServiceSpec(name="web", image=IMAGE, files=(File(path, b""),)), {}))
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ([("/tmp", 1), ("/etc", 0), ("/etc/hosts", 0), ("/config", 1)], ""),
        ([("/bin", 0), ("/bin/sh", 0)], "changed /bin/sh"),
        ([("/x", 1), ("/hello", 2)], "deleted /hello, added /x"),
        ([("/data", 0), ("/data/a", 1), ("/database", 1)], "added /database"),
        ([(f"/{i}", 1) for i in range(9)], "added /0, added /1, added /2 and 6 more"),
    ],
)
def test_what_somebody_changed_is_told_from_what_the_engine_made(changes: list[tuple[str, int]], found: str) -> None:
    assert changed_by_hand(changes, ("/tmp", "/config"), ("/data",)) == found


class TestSecrets:
    """The operator's directory of secrets."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        (tmp_path / "root" / "prod").mkdir(parents=True)
        (tmp_path / "outside").write_text("canary")
        (tmp_path / "root" / "prod" / "password").write_bytes(b"1234")
        return tmp_path / "root"

    def test_the_version_changes_with_the_content_only(self, root: Path) -> None:
        secrets, file = DirectorySecrets(root), root / "prod" / "password"
        first = secrets.versions("prod", ["password", "none"])
        assert list(first) == ["password"]
        os.utime(file, ns=(1, 1))
        assert secrets.versions("prod", ["password"]) == first
        file.write_bytes(b"1235")
        changed = secrets.versions("prod", ["password"])
        assert changed != first
        file.write_bytes(b"1234")
        assert DirectorySecrets(root).versions("prod", ["password"]) == first

    def test_the_same_secret_elsewhere_has_another_version(self, root: Path) -> None:
        (root / "stage").mkdir()
        for place in ("stage/password", "prod/second"):
            (root / place).write_bytes(b"1234")
        secrets = DirectorySecrets(root)
        prod = secrets.versions("prod", ["password", "second"])
        assert len({*prod.values(), *secrets.versions("stage", ["password"]).values()}) == 3

    def test_a_missing_one_says_what_to_do(self, root: Path) -> None:
        with pytest.raises(Stalled) as caught:
            DirectorySecrets(root).reveal("prod", "none")
        assert caught.value.reason is Reason.SECRET_MISSING
        assert "prod/none" in caught.value.remedy

    @pytest.mark.parametrize("name", ["../../outside", "..", ".", "", "a/b", "link", "pipe", "directory", "x\0y"])
    def test_nothing_outside_is_read(self, root: Path, name: str) -> None:
        (root / "prod" / "link").symlink_to(root.parent / "outside")
        (root / "prod" / "directory").mkdir()
        os.mkfifo(root / "prod" / "pipe")
        with pytest.raises(Stalled):
            DirectorySecrets(root).reveal("prod", name)
        assert DirectorySecrets(root).versions("prod", [name]) == {}

    @pytest.mark.parametrize("environment", ["..", "../root/prod", "", "linked"])
    def test_no_environment_leads_outside(self, root: Path, environment: str) -> None:
        (root / "linked").symlink_to(root / "prod")
        with pytest.raises(Stalled):
            DirectorySecrets(root).reveal(environment, "password")

    def test_size_is_bounded(self, root: Path) -> None:
        file = root / "prod" / "large"
        file.write_bytes(b"x" * MAX_BYTES)
        assert len(DirectorySecrets(root).reveal("prod", "large")) == MAX_BYTES
        file.write_bytes(b"x" * (MAX_BYTES + 1))
        with pytest.raises(Stalled) as caught:
            DirectorySecrets(root).reveal("prod", "large")
        assert str(MAX_BYTES) in caught.value.what

    def test_without_a_directory_there_are_none(self) -> None:
        assert DirectorySecrets(None).versions("prod", ["password"]) == {}


class TestCredentials:
    """Registry credentials go to exactly the host they were made for."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        coded = base64.b64encode(b"ada:canary").decode()
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"auths": {"registry.example": {"auth": coded}}}))
        return path

    def test_the_right_host(self, file: Path) -> None:
        found = credentials_for("registry.example/app@sha256:1", file)
        assert found == {"username": "ada", "password": "canary", "serveraddress": "registry.example"}

    @pytest.mark.parametrize(
        "image", ["registry.example.evil/app@x", "registry.example:5000/app@x", "evil/registry.example@x", "app@x"]
    )
    def test_any_other_host_gets_none(self, file: Path, image: str) -> None:
        assert credentials_for(image, file) == {}

    @pytest.mark.parametrize(
        "text", ["", "[]", "canary", '{"auths": {"registry.example": {"auth": "canary!"}}}', "[" * 10**4]
    )
    def test_a_bad_file_is_told_without_its_content(self, file: Path, text: str) -> None:
        file.write_text(text)
        with pytest.raises(ValueError, match=r"config\.json") as caught:
            credentials_for("registry.example/app@x", file)
        assert "canary" not in str(caught.value)

    def test_registries(self) -> None:
        assert registry_of("nginx@x") == registry_of("library/nginx@x") == registry_of("docker.io/a/b@x") == "docker.io"
        assert registry_of("localhost/a@x") == "localhost"
        assert registry_of("127.0.0.1:5000/a@x") == "127.0.0.1:5000"

    @pytest.mark.parametrize(
        ("said", "reason"),
        [
            ("manifest for a@b not found: manifest unknown", Reason.IMAGE_NOT_FOUND),
            ("pull access denied for a, repository does not exist or may require login", Reason.IMAGE_UNAUTHORIZED),
            ("unauthorized: authentication required", Reason.IMAGE_UNAUTHORIZED),
            ("write /x: no space left on device", Reason.OUT_OF_DISK),
            ("dial tcp 127.0.0.1:1: connect: connection refused", Reason.IMAGE_UNAVAILABLE),
        ],
    )
    def test_failures_are_told_apart(self, said: str, reason: Reason) -> None:
        assert classified(said) is reason


@pytest.fixture
def house(engine: str, hello: Mapping[str, str], raw: docker.APIClient) -> Iterator[House]:
    environment = f"s{os.getpid():x}-{next(_serial)}"
    built = real_house(environment, engine, hello, raw).ready()
    yield built
    built.runtime.close()
    built.other.close()
    demolish(raw, environment)


def test_no_effect_reaches_another_environments_or_anybodys_container(house: House, raw: docker.APIClient) -> None:
    """A container with our owner label, in another environment, squats a name of this one; beside it a stranger's."""
    effect = house.creation(house.spec())
    theirs = {**instance_labels(house.runtime._owned.owner, effect), names.LABEL_ENVIRONMENT: f"{house.environment}-2"}  # type: ignore[attr-defined]
    for labels in (theirs, {}, {names.LABEL_OWNER: "house"}):
        made = raw.create_container(house.image.pinned, name=effect.name, labels=labels)["Id"]
        raw.start(made)
        for forbidden in (StartInstance, TerminateInstance, KillInstance, RemoveInstance, SweepOrphan):
            with pytest.raises(Stalled) as caught:
                house.runtime.apply(forbidden(effect.name))
            assert caught.value.reason is Reason.NOT_OWNED
        with pytest.raises(Stalled) as taken:
            house.runtime.apply(effect)
        assert taken.value.reason is Reason.NAME_TAKEN
        assert raw.inspect_container(made)["State"]["Running"]
        assert house.observe().instances == ()
        raw.remove_container(made, force=True)


def test_a_foreign_volume_with_one_of_our_names_is_not_removed(house: House, raw: docker.APIClient) -> None:
    effect = house.creation(house.spec(files=(File("/config/a", b"a"),)))
    volume = f"{effect.name}.files.0"
    raw.create_volume(volume)
    with pytest.raises(Stalled) as caught:
        house.runtime.apply(effect)
    assert caught.value.reason is Reason.NOT_OWNED
    assert raw.inspect_volume(volume)["Name"] == volume
    raw.remove_volume(volume)


def test_docker_variables_do_not_lead_elsewhere(house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"HttpHeaders": {"X-Canary": "1"}, "credsStore": "evil"}')
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    house.start()
    house.one(lambda i: i.health is HealthStatus.HEALTHY)


def test_an_engine_without_the_image_never_falls_back_to_a_tag(house: House, raw: docker.APIClient) -> None:
    other = ImageRef(house.image.repository, "sha256:" + "0" * 64, "1.0")
    with pytest.raises(Retryable):
        house.runtime.apply(house.creation(house.spec(image=other)))
    assert house.observe().instances == ()
