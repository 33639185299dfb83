"""Calls to the Kubernetes API end in time and say what is wrong: statuses, waits, credentials, pages, watches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler.adapters import kubernetes_client, kubernetes_credentials
from reconciler.adapters.kubernetes_client import Api, ApiError, translated
from reconciler.adapters.kubernetes_errors import target
from reconciler.core.errors import Reason, ReconcilerError, Rejected, Retryable, Stalled
from reconciler.settings import KubernetesSettings
from tests.support.kube_house import HANG, Fault, KubeHouse, kube_house

MAPS = "/api/v1/namespaces/prod/configmaps"
Making = Callable[..., Api]


@pytest.fixture
def house() -> Iterator[KubeHouse]:
    with kube_house() as built:
        yield built


@pytest.fixture
def settings(house: KubeHouse, tmp_path: Path) -> KubernetesSettings:
    return KubernetesSettings("here", house.kubeconfig(tmp_path), timeout=timedelta(seconds=60))


@pytest.fixture
def making(settings: KubernetesSettings) -> Iterator[Making]:
    """Make an Api with other settings than usual."""
    made: list[Api] = []

    def make(**changes: Any) -> Api:
        made.append(Api(replace(settings, **changes)))
        return made[-1]

    yield make
    for api in made:
        api.close()


@pytest.fixture
def api(making: Making) -> Api:
    return making()


def map_of(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def failure(api: Api, call: Callable[[], object]) -> ReconcilerError:
    with pytest.raises((ApiError, ReconcilerError)) as caught:
        call()
    return translated(caught.value, api.where)


def test_an_object_is_created_applied_and_read(api: Api) -> None:
    api.call("POST", MAPS, body=map_of("a", x="1"))
    assert api.apply(f"{MAPS}/a", map_of("a", y="2"))["data"] == {"x": "1", "y": "2"}
    assert api.call("GET", f"{MAPS}/a")["metadata"]["managedFields"][-1]["manager"] == "reconciler"
    assert api.counts == {"create": 1, "patch": 1, "get": 1}


def test_pages_are_put_together_and_say_what_they_hold(api: Api, house: KubeHouse) -> None:
    for number in range(7):
        api.call("POST", MAPS, body=map_of(f"m{number}"))
    found, version = api.pages(MAPS, limit=3)
    assert [one["metadata"]["name"] for one in found] == [f"m{number}" for number in range(7)]
    assert {(one["kind"], one["apiVersion"]) for one in found} == {("ConfigMap", "v1")}
    assert version == str(house.version)
    assert api.counts["list"] == 3
    names, _ = api.pages(MAPS, limit=3, keep=lambda one: name if (name := one["metadata"]["name"]) == "m3" else None)
    assert names == ["m3"]


def test_a_list_whose_pages_expired_begins_anew(api: Api, house: KubeHouse) -> None:
    for number in range(4):
        api.call("POST", MAPS, body=map_of(f"m{number}"))
    seen: list[str] = []

    def keep(one: dict[str, Any]) -> str:
        if not seen:
            house.forget()  # while the first page is read
        seen.append(one["metadata"]["name"])
        return seen[-1]

    assert api.pages(MAPS, limit=2, keep=keep)[0] == ["m0", "m1", "m2", "m3"]
    assert seen == ["m0", "m1", "m0", "m1", "m2", "m3"]


@pytest.mark.parametrize(
    ("status", "reason", "message", "error", "code"),
    [
        (401, "Unauthorized", "no", Retryable, Reason.FORBIDDEN),
        (403, "Forbidden", "configmaps is forbidden", Stalled, Reason.FORBIDDEN),
        (403, "Forbidden", "exceeded quota: q, requested: pods=1", Retryable, Reason.QUOTA_EXCEEDED),
        (404, "NotFound", "gone", Retryable, Reason.ENGINE_REFUSED),
        (409, "Conflict", "try again", Retryable, Reason.ENGINE_REFUSED),
        (422, "Invalid", "bad", Rejected, Reason.ENGINE_REFUSED),
        (
            500,
            "",
            "failed to create typed patch object: .spec.x: field not declared in schema",
            Rejected,
            Reason.ENGINE_REFUSED,
        ),
        (500, "InternalError", "etcd", Retryable, Reason.ENGINE_REFUSED),
        (302, "", "elsewhere", Retryable, Reason.ENGINE_REFUSED),
    ],
)
def test_refusals_are_told_apart(
    api: Api, house: KubeHouse, status: int, reason: str, message: str, error: type[Exception], code: Reason
) -> None:
    house.faults.append(Fault("GET", status, reason, message, times=9))
    found = failure(api, lambda: api.call("GET", f"{MAPS}/a"))
    assert type(found) is error
    assert found.reason is code
    assert message.split(":", maxsplit=1)[0] in str(found)


def test_another_object_in_its_place_is_no_refusal(api: Api) -> None:
    api.call("POST", MAPS, body=map_of("a"))
    other = {**map_of("a"), "metadata": {"name": "a", "uid": "1"}}
    found = failure(api, lambda: api.apply(f"{MAPS}/a", other))
    assert (type(found), found.reason) == (Retryable, Reason.ENGINE_REFUSED)


def test_what_is_forbidden_is_named_as_a_role_does(api: Api, house: KubeHouse) -> None:
    house.faults.append(Fault("WATCH", 403, "Forbidden", "no"))
    path = "/apis/apps/v1/namespaces/prod/deployments"
    found = failure(api, lambda: list(api.watch(path, "1", 600)))
    assert "watch deployments.apps in namespace prod" in str(found)
    assert "Allow watch on deployments.apps in a Role of namespace prod" in str(found)


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", "/api/v1/namespaces/a", "get namespaces a"),
        ("GET", "/api/v1/namespaces/a/pods/p/log", "get pods/log p in namespace a"),
        ("PATCH", "/apis/apps/v1/namespaces/a/deployments/d", "patch deployments.apps d in namespace a"),
        ("DELETE", "/apis/x/v1/namespaces/a/routes/r", "delete routes.x r in namespace a"),
        ("GET", "/version", "get /version"),
    ],
)
def test_a_call_is_described_by_verb_and_resource(method: str, path: str, words: str) -> None:
    assert str(target(method, path)) == words


def test_a_missing_namespace_is_not_a_missing_object(api: Api) -> None:
    found = failure(api, lambda: api.call("POST", MAPS.replace("prod", "nowhere"), body=map_of("a")))
    assert (type(found), found.reason) == (Stalled, Reason.NAMESPACE_MISSING)
    assert "nowhere" in str(found)


def test_a_busy_api_is_waited_for(api: Api, house: KubeHouse) -> None:
    api.call("POST", MAPS, body=map_of("a"))
    house.faults.append(Fault("GET", 429, "TooManyRequests", "slow down", after="0", times=2))
    assert api.call("GET", f"{MAPS}/a")["kind"] == "ConfigMap"
    assert api.counts["get"] == 3


def test_a_wait_beyond_the_deadline_is_left_to_the_caller(api: Api, house: KubeHouse) -> None:
    house.faults.append(Fault("GET", 503, "ServiceUnavailable", "later", after="60"))
    began = time.monotonic()
    found = failure(api, lambda: api.call("GET", f"{MAPS}/a", seconds=30))
    assert time.monotonic() - began < 30
    assert isinstance(found, Retryable)
    assert found.after == timedelta(seconds=60)


def test_a_hung_server_is_left_by_the_deadline(api: Api, house: KubeHouse) -> None:
    house.faults.append(Fault("GET", HANG, times=9))
    found = failure(api, lambda: api.call("GET", f"{MAPS}/a", seconds=0.3))
    assert found.reason is Reason.ENGINE_UNREACHABLE
    assert "in time" in str(found)


def test_closing_ends_a_call_that_waits_for_a_hung_server(api: Api, house: KubeHouse) -> None:
    house.faults.append(Fault("GET", HANG, times=9))
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            api.call("GET", f"{MAPS}/a", seconds=60)
        except ApiError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not house.calls and house.faults[0].times == 9:
        time.sleep(0.01)
    api.close()
    thread.join(60)
    assert not thread.is_alive()
    assert len(errors) == 1
    assert failure(api, lambda: api.call("GET", f"{MAPS}/a")).reason is Reason.ENGINE_UNREACHABLE


def test_nobody_listening_is_unreachable(making: Making, tmp_path: Path) -> None:
    dead = KubeHouse(address="http://127.0.0.1:1").kubeconfig(tmp_path)
    api = making(kubeconfig=dead)
    found = failure(api, lambda: api.call("GET", f"{MAPS}/a"))
    assert (type(found), found.reason) == (Retryable, Reason.ENGINE_UNREACHABLE)


def test_a_huge_answer_is_not_read_to_its_end(api: Api, house: KubeHouse) -> None:
    api.call("POST", MAPS, body=map_of("a", x="y" * 300_000))
    found = failure(api, lambda: api.read("GET", f"{MAPS}/a", most=100_000))
    assert "larger than 100000 bytes" in str(found)
    assert api.call("GET", f"{MAPS}/a")["data"]["x"].startswith("yy")  # the connection after it is a good one


def test_an_event_that_is_too_large_ends_the_watch(api: Api, house: KubeHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_client, "MAX_EVENT", 100_000)
    start = str(house.version)
    api.call("POST", MAPS, body=map_of("a", x="y" * 300_000))
    with pytest.raises(ApiError, match="larger"):
        list(api.watch(MAPS, start, 600))


def test_a_watch_tells_events_and_bookmarks(api: Api, house: KubeHouse) -> None:
    opened = threading.Event()
    events = api.watch(MAPS, str(house.version), 600, opened=opened.set)
    api.call("POST", MAPS, body=map_of("a"))
    assert next(events)[0] == "ADDED"
    assert opened.is_set()
    house.bookmark()
    kind, found = next(events)
    assert (kind, found["metadata"]["resourceVersion"]) == ("BOOKMARK", str(house.version))


def test_an_old_version_cannot_be_watched(api: Api, house: KubeHouse) -> None:
    house.forget()
    with pytest.raises(ApiError) as caught:
        list(api.watch(MAPS, "50", 600))
    assert caught.value.status == 410


def test_a_watch_that_is_cut_is_an_error(api: Api, house: KubeHouse) -> None:
    events = api.watch(MAPS, str(house.version), 600)
    api.call("POST", MAPS, body=map_of("a"))
    next(events)
    house.cut()
    with pytest.raises(ApiError) as caught:
        next(events)
    assert caught.value.status == 0


def test_a_silent_watch_is_left(api: Api, house: KubeHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_client, "SILENCE", 0.2)
    with pytest.raises(ApiError, match="in time"):
        list(api.watch(MAPS, str(house.version), 60))


def test_a_rotated_token_is_read_anew(
    making: Making, house: KubeHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_client, "RELOAD", 0.0)
    token = tmp_path / "token"
    token.write_text("first")
    api = making(kubeconfig=house.kubeconfig(tmp_path, tokenFile=str(token)))
    house.token = "first"
    api.call("POST", MAPS, body=map_of("a"))
    house.token = "second"
    assert failure(api, lambda: api.call("GET", f"{MAPS}/a")).reason is Reason.FORBIDDEN
    token.write_text("second")
    assert api.call("GET", f"{MAPS}/a")["kind"] == "ConfigMap"


def test_no_more_calls_are_made_than_settled(making: Making) -> None:
    api = making(requests=20)
    began = time.monotonic()
    for _ in range(40):
        api.pages(MAPS)
    assert time.monotonic() - began > 0.9  # 20 at once, then 20 a second


@pytest.mark.parametrize("plugin", ["exec", "auth-provider"])
def test_a_kubeconfig_starts_no_program(making: Making, house: KubeHouse, tmp_path: Path, plugin: str) -> None:
    marker = tmp_path / "marker"
    users = {
        "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "touch", "args": [str(marker)]},
        "auth-provider": {"name": "gcp", "config": {"cmd-path": "touch", "cmd-args": str(marker)}},
    }
    api = making(kubeconfig=house.kubeconfig(tmp_path, **{plugin: users[plugin]}))
    found = failure(api, lambda: api.call("GET", f"{MAPS}/a"))
    assert (type(found), found.reason) == (Stalled, Reason.SETTINGS_INVALID)
    assert plugin in str(found)
    assert not marker.exists()


def test_a_program_runs_where_the_operator_allows_it(making: Making, house: KubeHouse, tmp_path: Path) -> None:
    version = "client.authentication.k8s.io/v1"
    answer = f'{{"apiVersion": "{version}", "kind": "ExecCredential", "status": {{"token": "of-the-program"}}}}'
    path = house.kubeconfig(tmp_path, exec={"apiVersion": version, "command": "echo", "args": [answer]})
    house.token = "of-the-program"
    api = making(kubeconfig=path, run_plugins=True)
    assert api.call("POST", MAPS, body=map_of("a"))["kind"] == "ConfigMap"


def test_a_program_that_does_not_end_is_left(making: Making, house: KubeHouse, tmp_path: Path) -> None:
    run = {"apiVersion": "client.authentication.k8s.io/v1", "command": "sleep", "args": ["600"]}
    api = making(kubeconfig=house.kubeconfig(tmp_path, exec=run), run_plugins=True, timeout=timedelta(milliseconds=200))
    assert failure(api, lambda: api.call("GET", f"{MAPS}/a")).reason is Reason.ENGINE_UNREACHABLE


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("http://192.0.2.1:6443", "plain HTTP"),
        ("ftp://127.0.0.1", "no URL"),
    ],
)
def test_an_unsafe_server_is_refused(making: Making, tmp_path: Path, server: str, words: str) -> None:
    api = making(kubeconfig=KubeHouse(address=server).kubeconfig(tmp_path))
    assert words in str(failure(api, lambda: api.call("GET", f"{MAPS}/a")))


@pytest.mark.parametrize("content", ["", "[]", "{", "contexts: 3", "current-context: gone", "a" * 2_000_000])
def test_a_kubeconfig_that_is_none_is_a_setting(making: Making, tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken"
    path.write_text(content)
    found = failure(api := making(kubeconfig=path), lambda: api.call("GET", f"{MAPS}/a"))
    assert (type(found), found.reason) == (Stalled, Reason.SETTINGS_INVALID)


def test_tls_that_is_not_verified_is_refused(making: Making, house: KubeHouse, tmp_path: Path) -> None:
    path = house.kubeconfig(tmp_path)
    path.write_text(path.read_text().replace("server:", "insecure-skip-tls-verify: true\n    server:"))
    api = making(kubeconfig=path)
    assert "insecure-skip-tls-verify" in str(failure(api, lambda: api.call("GET", f"{MAPS}/a")))


def test_inside_a_cluster_the_service_account_is_used(
    making: Making, house: KubeHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_credentials, "TOKEN", tmp_path / "token")
    monkeypatch.setattr(kubernetes_credentials, "AUTHORITY", tmp_path / "ca.crt")
    api = making(kubeconfig=None, in_cluster=True)
    assert failure(api, lambda: api.call("GET", "/version")).reason is Reason.SETTINGS_INVALID
    (tmp_path / "token").write_text("of-the-pod")
    (tmp_path / "ca.crt").write_text("not read before a connection is made")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    found = kubernetes_credentials.configuration(api.settings)
    assert str(found.host) == "https://127.0.0.1:1"
    assert found.get_api_key_with_prefix("BearerToken") == "bearer of-the-pod"


def test_no_proxy_is_taken_from_the_environment(
    making: Making, house: KubeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert making().call("POST", MAPS, body=map_of("a"))["kind"] == "ConfigMap"
