"""An environment as a whole: its own file, the services beside each other, isolation of the bad ones, and the cache."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from reconciler.core import manifest
from reconciler.core.errors import Reason, Rejected
from reconciler.core.model import DriftPolicy, Problem, Prune, Revision, ServiceSpec
from reconciler.core.policy import Allow
from reconciler.schemas import load_schemas
from tests.support.fleet import DIRECTORY, Repository, environment, service

OWN = f"{DIRECTORY}/environment.yaml"


def web(name: str = "web", spec: str = "") -> dict[str, str]:
    return {f"{DIRECTORY}/{name}.yaml": service(name, spec)}


def said(problems: tuple[Problem, ...]) -> list[str]:
    return [str(problem).removeprefix(f"{DIRECTORY}/") for problem in problems]


def test_the_environment_sets_prune_suspend_and_the_default_of_drift():
    own = environment("{prune: {maxPercent: 10}, suspend: true, drift: report}")
    state = Repository({OWN: own, **web(), **web("api", "drift: correct")}).state()
    assert (state.environment, state.prune, state.suspend) == ("prod", Prune(10), True)
    assert {name: each.drift for name, each in state.services.items()} == {
        "web": DriftPolicy.REPORT,
        "api": DriftPolicy.CORRECT,
    }


def test_an_environment_without_services_says_so_by_being_empty():
    state = Repository({}).state()
    assert (state.services, state.problems, state.prune, state.suspend) == ({}, {}, Prune(), False)


def test_without_its_own_file_an_environment_is_missing():
    refusal = Repository({**web(), f"{DIRECTORY}/environment.yml": environment()}, own=False).refusal()
    assert refusal.reason is Reason.ENVIRONMENT_MISSING
    assert said(refusal.problems) == [
        "environment.yaml:1:1: there is no environment.yaml in this directory; add one with kind Environment",
        "environment.yml:1:1: this file is not read; rename it to environment.yaml",
    ]


@pytest.mark.parametrize(
    ("own", "problem"),
    [
        (
            environment().replace("prod", "staging"),
            'environment.yaml:3:18: metadata.name is "staging", but this is the environment "prod"; make them equal',
        ),
        (environment("{prun: 5}"), 'environment.yaml:4:8: unknown field "prun"; did you mean "prune"?'),
        (environment("{prune: {maxPercent: 101}}"), "environment.yaml:4:28: 101 is too large; at most 100"),
        (environment("{suspend: no}"), 'environment.yaml:4:17: value no is true or false here; quote it: "no"'),
        (
            environment().replace("Environment", "Envronment"),
            'environment.yaml:2:7: unknown kind "Envronment"; did you mean "Environment"?',
        ),
        (environment() + "extends: none\n", "environment.yaml:4:10: there is no file none in this revision; a path"),
        ("", "environment.yaml:1:1: the file is empty; write a manifest or delete it"),
    ],
)
def test_a_problem_in_its_own_file_refuses_all_of_it(own, problem):
    refusal = Repository({OWN: own, **web("bad", "replica: 1")}).refusal()
    assert refusal.reason is Reason.MANIFEST_INVALID
    first, last = said(refusal.problems)
    assert first.startswith(problem)
    assert last == 'bad.yaml:7:3: unknown field "replica"; did you mean "replicas"?'


def test_an_environment_may_extend():
    repository = Repository({OWN: environment() + "extends: base/e.yaml\n", "base/e.yaml": "spec: {suspend: true}\n"})
    assert repository.state().suspend


def test_a_file_that_may_not_be_read_is_the_problem_of_its_service():
    repository = Repository({**web(), **web("api")})
    repository.refusals[f"{DIRECTORY}/web.yaml"] = Rejected(Reason.REPOSITORY_HOSTILE, "too large")
    state = repository.state()
    assert list(state.services) == ["api"]
    assert said(state.problems["web"]) == ["web.yaml:1:1: too large"]
    assert state.problems["web"][0].reason is Reason.REPOSITORY_HOSTILE


def test_only_yaml_files_of_the_directory_itself_are_services():
    others = {
        f"{DIRECTORY}/{name}": "x" for name in ("README.md", "files/app.yaml", "files/app.conf", ".web.yaml", "x")
    }
    assert list(Repository({**web(), **others, "base/web.yaml": "x"}).state().services) == ["web"]


def test_a_file_with_another_suffix_is_named_and_not_guessed():
    state = Repository({**web(), f"{DIRECTORY}/web.yml": service(), f"{DIRECTORY}/api.YAML": service("api")}).state()
    assert state.services == {}
    assert said(state.problems["web"]) == ["web.yml:1:1: this file is not read; rename it to web.yaml"]
    assert said(state.problems["api"]) == ["api.YAML:1:1: this file is not read; rename it to api.yaml"]


def test_a_dependency_must_exist():
    state = Repository({**web("web", "dependsOn: [ap, bad]"), **web("api"), **web("bad", "x: 1")}).state()
    assert list(state.services) == ["api"]
    assert said(state.problems["web"]) == [
        'web.yaml:7:15: there is no service ap in this environment; did you mean "api"?'
    ]


def test_a_circle_of_dependencies_is_named_and_stops_nobody_else():
    state = Repository(
        {
            **web("a", "dependsOn: [b]"),
            **web("b", "dependsOn: [c]"),
            **web("c", "dependsOn: [d, a]"),
            **web("d"),
            **web("e", "dependsOn: [e]"),
            **web("f", "dependsOn: [a, d]"),
        }
    ).state()
    assert set(state.services) == {"d", "f"}
    circle = state.problems["c"][0].message.removeprefix("dependsOn goes in a circle: ").partition(";")[0]
    steps = circle.split(" -> ")
    assert steps[0] == steps[-1]
    assert set(steps) == {"a", "b", "c"}
    assert all(after in {"a": "b", "b": "c", "c": "a"}[name] for name, after in pairwise(steps))
    assert (state.problems["c"][0].line, state.problems["c"][0].column) == (7, 18)
    assert said(state.problems["e"]) == ["e.yaml:7:15: dependsOn goes in a circle: e -> e; remove one of these"]


def test_a_host_port_belongs_to_one_service():
    allow = Allow(host_ports=((1, 65535),))
    port = "ports: [{{name: p, container: 1, host: {}, address: {}}}]"
    state = Repository(
        {
            **web("a", port.format(80, "0.0.0.0")),
            **web("b", port.format(80, "127.0.0.1")),
            **web("c", port.format(81, "127.0.0.1")),
            **web("d", port.format(81, "127.0.0.2")),
        }
    ).state(allow)
    assert set(state.services) == {"c", "d"}
    assert said(state.problems["a"]) == ["a.yaml:7:41: host port 80 is also wanted by b; give each its own"]
    assert said(state.problems["b"]) == ["b.yaml:7:41: host port 80 is also wanted by a; give each its own"]


def test_the_number_of_services_is_capped():
    repository = Repository({f"{DIRECTORY}/s{n}.yaml": "" for n in range(manifest.MAX_SERVICES + 1)})
    refusal = repository.refusal()
    assert refusal.reason is Reason.MANIFEST_INVALID
    assert "5001 services here, more than 5000" in refusal.problems[0].message
    assert repository.reads == []


FILES = {
    f"{DIRECTORY}/web.yaml": service("web", "files: [{path: /a, source: shared.conf}]", top="extends: base.yaml\n"),
    f"{DIRECTORY}/api.yaml": service("api", "replica: 1"),
    "shared.conf": "one",
    "base.yaml": "spec: {replicas: 2}\n",
}


class TestCache:
    """What did not change is neither read nor judged again; what did is."""

    def test_an_unchanged_revision_is_not_read_again(self):
        repository = Repository(FILES)
        first = repository.state()
        repository.reads.clear()
        second = repository.state()
        assert second == first
        assert second.services["web"] is first.services["web"]
        assert sorted(repository.reads) == ["base.yaml", "shared.conf"]

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            (f"{DIRECTORY}/web.yaml", service("web", "replicas: 3")),
            ("base.yaml", "spec: {replicas: 3}\n"),
            ("shared.conf", "two"),
        ],
    )
    def test_every_file_of_a_service_counts(self, path, text):
        repository = Repository(FILES)
        before = repository.state().services["web"]
        repository.files[path] = text.encode()
        after = repository.state().services["web"]
        assert after != before
        assert after == Repository(repository.files).state().services["web"]

    def test_a_file_that_appears_or_goes_counts(self):
        repository = Repository(FILES)
        del repository.files["shared.conf"]
        assert set(repository.state().problems) == {"api", "web"}
        repository.files["shared.conf"] = b"back"
        assert repository.state().services["web"].files[0].content == b"back"

    def test_permissions_and_the_default_of_drift_count(self):
        repository = Repository({f"{DIRECTORY}/web.yaml": service("web", "security: {privileged: true}")})
        assert repository.state().problems
        assert repository.state(Allow(privileged=True)).services["web"].drift is DriftPolicy.CORRECT
        repository.files[OWN] = environment("{drift: report}").encode()
        assert repository.state(Allow(privileged=True)).services["web"].drift is DriftPolicy.REPORT

    def test_a_cache_that_forgets_changes_nothing(self):
        class Forgetful(dict):  # type: ignore[type-arg]
            def get(self, key, default=None):
                return default

        repository = Repository(FILES)
        repository.cache = Forgetful()
        assert repository.state() == Repository(FILES).state()

    def test_the_same_content_at_another_path_keeps_its_own_places(self):
        text = service("web", "replica: 1")
        repository = Repository({f"{DIRECTORY}/web.yaml": text, f"{DIRECTORY}/api.yaml": text})
        problems = repository.state().problems
        assert {problem.file for problem in problems["api"]} == {f"{DIRECTORY}/api.yaml"}
        assert len(problems["api"]) == 2
        assert len(problems["web"]) == 1


class TestOneService:
    """One service of an older revision, for a rollback."""

    def parse(self, repository: Repository, name: str = "web") -> ServiceSpec | tuple[Problem, ...]:
        return manifest.parse_service(
            "prod", name, repository.fleet, schemas=load_schemas(), allow=Allow(), cache=repository.cache
        )

    def test_it_is_that_of_the_whole_environment(self):
        repository = Repository({OWN: environment("{drift: report}"), **web("web", "replicas: 2"), **web("api")})
        assert self.parse(repository) == repository.state().services["web"]

    def test_neither_the_environment_nor_the_neighbours_are_asked(self):
        repository = Repository({OWN: "broken: [", **web("web", "dependsOn: [gone]")})
        found = self.parse(repository)
        assert isinstance(found, ServiceSpec)
        assert found.drift is DriftPolicy.CORRECT
        assert isinstance(self.parse(Repository(web(), own=False)), ServiceSpec)

    def test_its_problems_come_as_values(self):
        found = self.parse(Repository(web("web", "replica: 1")))
        assert isinstance(found, tuple)
        assert said(found) == ['web.yaml:7:3: unknown field "replica"; did you mean "replicas"?']

    @pytest.mark.parametrize("name", ["gone", "environment"])
    def test_one_that_is_not_there_is_a_problem(self, name):
        found = self.parse(Repository(web()), name)
        assert isinstance(found, tuple)
        assert found[0].message == f"there is no service {name} in this revision of prod"


def test_the_revision_is_carried_along():
    other = Revision("d" * 40, (), "Bo", "Bo", datetime(2026, 2, 1, tzinfo=UTC), "other")
    repository = Repository(web())
    found = manifest.parse("prod", other, repository.fleet, schemas=load_schemas(), allow=Allow(), cache={})
    assert not isinstance(found, manifest.Refusal)
    assert found.revision is other
