"""Deliveries over the real server: every forge, GitHub's own payloads, and what the answer tells the sender."""

import asyncio
import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from reconciler.settings import EnvironmentSettings
from reconciler.triggers import webhook
from reconciler.triggers.webhook_forges import FORGES
from tests.support.webhook_payloads import body_of, github_examples, headers_for, push
from tests.support.webhouse import running


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with running(tmp_path_factory.mktemp("house")) as it:
        yield it


@pytest.fixture(autouse=True)
def _empty(house):
    yield
    house.take_all()


def deliver(house, forge, payload, **options):
    body = body_of(payload)
    return house.client.post(f"/webhook/{forge}", content=body, headers=headers_for(forge, body, **options))


@pytest.mark.parametrize("forge", FORGES)
def test_a_push_to_a_followed_branch_is_a_hint(house, forge):
    answer = deliver(house, forge, push(forge, delivery="main"), delivery="main")
    assert answer.status_code == 202
    assert answer.json() == {
        "matched": [f"{forge}-production"],
        "ignored": [f"{forge}-staging follows release, not refs/heads/main"],
    }
    name, causes = house.inbox.take(0)
    house.inbox.done(name)
    assert name == f"{forge}-production"
    assert [(cause.kind, cause.git) for cause in causes] == [("webhook", True)]


@pytest.mark.parametrize("forge", FORGES)
@pytest.mark.parametrize(
    ("ref", "deleted", "said"),
    [
        ("refs/heads/other", False, "follows main, not refs/heads/other"),
        ("refs/tags/main", False, "follows main, not refs/tags/main"),
        ("refs/heads/main", True, "refs/heads/main was deleted: what runs stays"),
    ],
)
def test_other_branches_tags_and_deletions_are_fine_but_no_hint(house, forge, ref, deleted, said):
    identity = f"{ref}{deleted}"
    answer = deliver(house, forge, push(forge, ref=ref, deleted=deleted, delivery=identity), delivery=identity)
    assert answer.status_code == 200
    assert answer.json()["matched"] == []
    assert said in " ".join(answer.json()["ignored"])
    assert house.take_all() == []


@pytest.mark.parametrize("forge", [name for name in FORGES if name != "bitbucket-server"])
def test_a_delivery_about_another_repository_is_told_so(house, forge):
    payload = push(forge, host="elsewhere.test", delivery="elsewhere")
    answer = deliver(house, forge, payload, delivery="elsewhere")
    assert (answer.status_code, answer.json()["matched"]) == (200, [])
    assert "elsewhere.test/acme" in answer.json()["ignored"][0]
    assert house.take_all() == []


@pytest.mark.parametrize("forge", FORGES)
def test_the_same_delivery_again_costs_nothing(house, forge):
    payload = push(forge, delivery="again")
    deliver(house, forge, payload, delivery="again")
    house.take_all()
    answer = deliver(house, forge, payload, delivery="again")
    assert answer.status_code == 200
    assert "already seen" in answer.json()["ignored"][0]
    assert house.take_all() == []


def test_a_malformed_delivery_may_come_again_when_it_is_well(house):
    assert deliver(house, "github", {"ref": "refs/heads/main"}, delivery="retry").status_code == 400
    assert deliver(house, "github", push("github"), delivery="retry").status_code == 202


@pytest.mark.parametrize(
    ("forge", "event", "payload"),
    [
        ("github", "ping", {"zen": "Keep it logically awesome.", "hook_id": 1}),
        ("gitlab", "Issue Hook", {"object_kind": "issue"}),
        ("bitbucket-server", "diagnostics:ping", {"test": True}),
        ("azure", "", {"eventType": "build.complete"}),
    ],
)
def test_other_events_are_fine_and_ignored_with_a_reason(house, forge, event, payload):
    answer = deliver(house, forge, payload, event=event)
    assert answer.status_code == 200
    assert "not a push" in answer.json()["ignored"][0]


def test_a_form_from_github_is_understood(house):
    body = b"payload=" + quote(json.dumps(push("github"))).encode()
    headers = headers_for("github", body) | {"Content-Type": "application/x-www-form-urlencoded"}
    assert house.client.post("/webhook/github", content=body, headers=headers).status_code == 202


def test_an_environment_may_follow_a_tag_or_a_full_ref(house):
    before = house.settings
    more = {
        "by-tag": EnvironmentSettings("by-tag", "github", "local", "e", "refs/tags/live"),
        "by-ref": EnvironmentSettings("by-ref", "github", "local", "e", "refs/heads/main"),
    }
    house.settings = replace(before, environments=more)
    try:
        assert deliver(house, "github", push("github", ref="refs/tags/live")).json()["matched"] == ["by-tag"]
        assert deliver(house, "github", push("github")).json()["matched"] == ["by-ref"]
    finally:
        house.settings = before


def test_every_payload_that_github_publishes_gets_a_sane_answer(house):
    """Also through all of their other events: none is a server error, and only pushes to a followed branch match."""
    before = house.settings
    hello = replace(before.repositories["github"], url="git@github.com:codertocat/hello-world.git")
    master = replace(before.environments["github-production"], ref="master")
    house.settings = replace(
        before,
        repositories={**before.repositories, "github": hello},
        environments={**before.environments, "github-production": master},
    )
    answers = Counter()
    try:
        for event, payload in github_examples():
            answer = deliver(house, "github", payload, event=event)
            answers[event == "push", answer.status_code, bool(answer.json()["matched"])] += 1
            if event == "push":
                assert bool(answer.json()["matched"]) is (payload["ref"] == "refs/heads/master")
    finally:
        house.settings = before
    assert answers[True, 202, True] == 2
    assert answers[True, 200, False] == 5
    assert answers[False, 200, False] == sum(answers.values()) - 7 > 250


def test_what_became_of_deliveries_is_counted(house):
    before = house.count("gogs", "accepted"), house.count("unknown", "unknown")
    deliver(house, "gogs", push("gogs"))
    house.client.post("/webhook/nobody", content=b"{}")
    assert (house.count("gogs", "accepted"), house.count("unknown", "unknown")) == (before[0] + 1, before[1] + 1)


def test_half_a_character_in_a_branch_name_is_no_server_error(house):
    payload = push("github")
    payload["ref"] = "refs/heads/\ud800"
    assert deliver(house, "github", payload).status_code == 200
    payload["ref"], payload["repository"] = "refs/heads/main", {"url": "https://\ud800.test/x"}
    assert deliver(house, "github", payload).status_code == 200


class StandingLoop:
    """What the endpoint asks of its event loop, with a time that stands until it is moved."""

    def __init__(self):
        self.seconds, self.calls = 0.0, []

    def time(self):
        return self.seconds

    def call_later(self, delay, act, *arguments):
        self.calls.append((self.seconds + delay, act, arguments))

    def move(self, seconds):
        self.seconds += seconds
        due = [call for call in self.calls if call[0] <= self.seconds]
        self.calls = [call for call in self.calls if call not in due]
        for _, act, arguments in due:
            act(*arguments)


def test_a_burst_is_passed_on_twice_however_quick_the_looks_are(tmp_path, monkeypatch):
    """Each look here is over before the next delivery comes: only the silence after them may ask for another one."""
    loop = StandingLoop()
    with running(tmp_path, silence=3.0) as it:
        monkeypatch.setattr(webhook, "asyncio", SimpleNamespace(timeout=asyncio.timeout, get_running_loop=lambda: loop))
        looks = []
        for number in range(50):
            assert deliver(it, "github", push("github"), delivery=f"{number}").status_code == 202
            looks += it.take_all()
            loop.move(0.01)
        assert looks == ["github-production"]
        loop.move(2.8)
        assert it.take_all() == []
        loop.move(0.2)
        assert it.take_all() == ["github-production"]
        loop.move(600.0)
        assert it.take_all() == []
