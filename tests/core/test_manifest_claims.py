"""What services of one environment claim at the proxy: hosts with paths, preview hosts and ports belong to one each."""

from __future__ import annotations

import pytest

from reconciler.core.model import DesiredState
from reconciler.core.policy import Allow
from tests.support.fleet import DIRECTORY, Repository, service

ALLOW = Allow(proxy=True, listen=((1, 65535),))


def state(**traffic: str) -> DesiredState:
    files = {
        f"{DIRECTORY}/{name}.yaml": service(name, f"traffic: {{port: 80{', ' if text else ''}{text}}}")
        for name, text in traffic.items()
    }
    return Repository(files).state(ALLOW)


def said(found: DesiredState) -> list[str]:
    return [str(each).replace(f"{DIRECTORY}/", "") for some in found.problems.values() for each in some]


@pytest.mark.parametrize(
    "traffic",
    [
        {"a": "hosts: [x.test]", "b": "hosts: [y.test]"},
        {"a": "hosts: [x.test]", "b": "hosts: [x.test], paths: [/b, /bb]", "c": "hosts: [x.test], paths: [/b/c]"},
        {"a": "hosts: [x.test]", "b": "hosts: ['*.test']", "c": ""},
        {"a": "paths: [/a]", "b": "paths: [/b]"},
        {"a": "hosts: [x.test], preview: next.x.test", "b": "hosts: ['*.x.test']"},
        {"a": "mode: tcp, listen: 5", "b": "mode: tcp, listen: 6", "c": ""},
    ],
)
def test_places_that_differ_stand_beside_each_other(traffic):
    assert set(state(**traffic).services) == set(traffic)


@pytest.mark.parametrize(
    ("one", "other", "problems"),
    [
        (
            "hosts: [w.test, x.test]",
            "hosts: [x.test], paths: [/, /b]",
            [
                "a.yaml:7:39: host x.test with path / is also wanted by b (b.yaml:7:31); give each its own",
                "b.yaml:7:31: host x.test with path / is also wanted by a (a.yaml:7:39); give each its own",
            ],
        ),
        (
            "",
            "paths: [/b, /]",
            [
                "a.yaml:7:3: any host with path / is also wanted by b (b.yaml:7:35); give each its own",
                "b.yaml:7:35: any host with path / is also wanted by a (a.yaml:7:3); give each its own",
            ],
        ),
        (
            "preview: x.test",
            "paths: [/b], preview: x.test",
            [
                "a.yaml:7:32: host x.test is also wanted by b (b.yaml:7:45); give each its own",
                "b.yaml:7:45: host x.test is also wanted by a (a.yaml:7:32); give each its own",
            ],
        ),
        (
            "preview: x.test",
            "hosts: [x.test], paths: [/b, /c]",
            [
                "a.yaml:7:32: host x.test is also wanted by b (b.yaml:7:31); give each its own",
                "b.yaml:7:31: host x.test with path /b is also wanted by a (a.yaml:7:32); give each its own",
            ],
        ),
        (
            "mode: tcp, listen: 5",
            "mode: tcp, listen: 5",
            [
                "a.yaml:7:42: port 5 of the proxy is also wanted by b (b.yaml:7:42); give each its own",
                "b.yaml:7:42: port 5 of the proxy is also wanted by a (a.yaml:7:42); give each its own",
            ],
        ),
    ],
)
def test_a_place_belongs_to_one_service(one, other, problems):
    found = state(a=one, b=other, c="hosts: [c.test]")
    assert set(found.services) == {"c"}
    assert said(found) == problems


def test_of_many_who_want_a_place_some_are_named():
    found = state(**{f"s{n}": "hosts: [x.test]" for n in range(20)})
    assert found.services == {}
    assert all(len(problems) == 1 for problems in found.problems.values())
    assert found.problems["s19"][0].message.count(".yaml") == 5


def test_a_service_that_is_wrong_by_itself_claims_nothing():
    found = state(a="hosts: [x.test]", b="hosts: [x.test], listen: 5")
    assert set(found.services) == {"a"}
