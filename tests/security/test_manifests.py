"""What hostile files in a repository, or a careless settings file, may not do.

Rows of the table of threats: YAML, JSON Schema, paths, one poison value, privileged workloads, cross-environment
writes, and option injection through URLs and refs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from referencing.exceptions import Unresolvable

from reconciler.core.addresses import url_problem
from reconciler.core.errors import Reason
from reconciler.core.model import DesiredState
from reconciler.core.policy import Allow
from reconciler.core.schema import Checker
from reconciler.schemas import load_schemas
from tests.support.fleet import DIRECTORY, Repository, environment, problems_of, service, spec_of
from tests.support.listener import listening

WEB = f"{DIRECTORY}/web.yaml"


@given(st.binary(max_size=300), st.binary(max_size=300))
@settings(max_examples=50)
def test_arbitrary_bytes_as_a_service_or_its_base_give_problems_only(own, base):
    state = Repository({WEB: own, f"{DIRECTORY}/api.yaml": service("api", top="extends: base\n"), "base": base}).parse()
    assert isinstance(state, DesiredState)
    assert WEB in str(state.problems["web"])


fields = st.sampled_from(sorted(load_schemas()["service"]["$defs"]["spec"]["properties"]))
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields | st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(fields, junk, max_size=5))
@settings(max_examples=150)
def test_values_of_any_type_in_any_field_never_crash(spec):
    import json

    own = {"apiVersion": "reconciler.dev/v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}
    state = Repository({WEB: json.dumps(own, ensure_ascii=False)}).parse()
    assert isinstance(state, DesiredState)
    assert "web" in state.services or state.problems["web"]


def test_yaml_runs_nothing_and_a_bomb_of_aliases_stays_small():
    bomb = "a: &a [x]\n" + "".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}' if n else '*a'] * 9)}]\n" for n in range(9))
    for text in (bomb, "a: !!python/object/apply:os.system ['touch /tmp/x']", "[" * 50_000, "{a: " * 50_000):
        assert Repository({WEB: text}).state().problems["web"]


def test_one_bad_service_never_stops_the_others():
    good = {f"{DIRECTORY}/s{n}.yaml": service(f"s{n}") for n in range(99)}
    state = Repository({**good, WEB: "&a [*a"}).state()
    assert len(state.services) == 99
    assert list(state.problems) == ["web"]


def test_a_reference_is_never_fetched_or_read(tmp_path):
    with listening(b"true") as (address, hits):
        url = f"{address}/schema.json"
        (tmp_path / "schema.json").write_text("true")
        for reference in (url, (tmp_path / "schema.json").as_uri()):
            with pytest.raises(Unresolvable):
                Checker({"$ref": reference}).findings({}, lambda path: None)
        text = f"$schema: {url}\n$ref: {url}\npattern: '^(a+)+$'\n" + service()
        (first, *_) = Repository({WEB: text}).state().problems["web"]
        assert first.message.startswith("unknown field")
        assert hits == []


@pytest.mark.parametrize("name", ["service", "environment", "settings"])
def test_our_own_patterns_do_not_explode(name):
    def patterns(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("pattern"), str):
                yield value["pattern"]
            for each in value.values():
                yield from patterns(each)
        elif isinstance(value, list):
            for each in value:
                yield from patterns(each)

    for pattern in set(patterns(load_schemas()[name])):
        for part in ("a", "1", "/", "-", ".", "a-", "a.", "/a", "1h", "ssh://a", "tcp://1"):
            assert re.fullmatch(pattern, part * 2_000 + "\n") is None


@pytest.mark.parametrize(
    "source", ["/etc/passwd", "../../../../etc/passwd", "./../../../x", "a/../../x", "..", "file:///etc/passwd", "~/x"]
)
def test_no_path_leaves_the_repository(source):
    repository = Repository(
        {WEB: service(spec=f"files: [{{path: /a, source: '{source}'}}]", top=f"extends: '{source}'\n")}
    )
    assert repository.state().problems["web"]
    inside = {f"{DIRECTORY}/environment.yaml", WEB, "file:/etc/passwd", "~/x"}
    assert set(repository.reads) <= inside, "a path outside of the repository was asked for"


@pytest.mark.parametrize("target", ["/etc/../x", "/", "//a", "a", "/a/", "/a/./b", "/proc/1/mem", "/sys/x", "/dev/sda"])
def test_no_path_in_the_instance_is_a_trick(target):
    for field in (
        f"files: [{{path: '{target}', content: x}}]",
        f"secrets: [{{secret: s, file: '{target}'}}]",
        f"tmpfs: [{{path: '{target}', size: 1Mi}}]",
    ):
        assert len(problems_of(field)) == 1


DANGEROUS = {
    "security: {privileged: true}": Allow(privileged=True),
    "security: {hostNetwork: true}": Allow(host_network=True),
    "security: {writableRoot: true}": Allow(writable_root=True),
    "security: {capabilities: [SYS_ADMIN]}": Allow(capabilities=("SYS_ADMIN",)),
    'security: {user: "0"}': Allow(root_user=True),
    "security: {user: root}": Allow(root_user=True),
    "ports: [{name: a, container: 1, host: 80}]": Allow(host_ports=((80, 80),)),
    "volumes: [{name: a, path: /a, shared: true}]": Allow(volumes=True),
    "traffic: {port: 80}": Allow(proxy=True),
}


@pytest.mark.parametrize("text", DANGEROUS)
def test_git_alone_cannot_loosen_anything_on_create_or_on_update(text):
    state = Repository({WEB: service(spec=text)}).state()
    assert {problem.reason for problem in state.problems["web"]} == {Reason.POLICY_DENIED}
    repository = Repository({WEB: service()})
    assert repository.state().services
    repository.files[WEB] = service(spec=text).encode()
    assert {problem.reason for problem in repository.state().problems["web"]} == {Reason.POLICY_DENIED}
    assert not repository.state().services
    assert spec_of(text, DANGEROUS[text])


def test_a_permission_taken_back_holds_for_what_was_parsed_before():
    repository = Repository({WEB: service(spec="security: {privileged: true}")})
    assert repository.state(Allow(privileged=True)).services
    assert not repository.state().services


@pytest.mark.parametrize(
    "text",
    [
        "privileged: true",
        "binds: [/:/host]",
        "volumes: [{name: a, path: /a, source: /}]",
        "volumes: [{name: a, path: /a, driver: local}]",
        "volumes: [{name: /etc, path: /a}]",
        "volumes: [{name: ../etc, path: /a}]",
        "volumes: [{name: other.web.data, path: /a}]",
        "traffic: {port: 80, server: 10.0.0.1}",
        "traffic: {port: 80, config: option x}",
        "warmUp: {requests: [{path: /, url: 'http://10.0.0.1/'}]}",
        "warmUp: {requests: [{path: //10.0.0.1/, host: x}]}",
        "rollout: {gate: {prometheus: 'http://10.0.0.1/'}}",
        "devices: [/dev/sda]",
        "pid: host",
        "ipc: host",
        "security: {seccomp: unconfined}",
        "security: {capabilities: [CAP_SYS_ADMIN]}",
        'security: {user: "00"}',
        'security: {user: "+0"}',
        "labels: {dev.reconciler.owner: other}",
        "runtime: other",
    ],
)
def test_there_is_no_field_for_more(text):
    allow = Allow(True, True, True, True, ("SYS_ADMIN",), ((1, 65535),), proxy=True, prometheus=True, volumes=True)
    (problem,) = problems_of(text, allow)
    assert "unknown field" in problem or "not valid here" in problem


def test_an_environment_cannot_call_itself_another():
    own = f"{DIRECTORY}/environment.yaml"
    found = Repository({own: environment().replace("prod", "staging"), WEB: service()}).refusal()
    assert '"staging", but this is the environment "prod"' in found.problems[0].message


CANARY = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c touch% /tmp/x",
        "fd::17/x",
        "-u./x",
        "--upload-pack=touch /tmp/x",
        "https://$SECRET/x",
        "https://git.test/%24HOME",
        f"https://user:{CANARY}@git.test/x",
        f"https://{CANARY}@git.test/x",
        f"ssh://git:{CANARY}@git.test/x",
        "ssh://-oProxyCommand=x/y",
        "ssh://git@-x/y",
        "-oProxyCommand=x:y",
        "git@host:-x",
        "git@host:--upload-pack=x",
        "https://git.test/-x",
        "http://git.test/x",
        "git://git.test/x",
        "HTTPS://git.test/x",
        "ftp://git.test/x",
        "file:///srv/x",
        "/srv/x",
        "./x",
        "x",
        "",
        "https://",
        "https:///x",
        "https://git.test",
        "https://git.test/x y",
        "https://git.test/x\n",
        "https://git.test/x?y=z",
        "https://git.test/x#y",
        "ssh://host::x/y",
    ],
)
def test_a_url_that_is_more_than_an_address_is_refused(url):
    problem = url_problem(url, allow_file=False)
    assert problem
    assert CANARY not in problem
    assert (CANARY in url) == problem.startswith("credentials stand in the URL")
    if not url.startswith("file://"):
        assert url_problem(url, allow_file=True)


@pytest.mark.parametrize("url", ["file://host/x", "file://", "file:///-x", "file:////x"])
def test_a_file_url_is_an_absolute_path_where_it_is_allowed(url):
    assert url_problem("file:///srv/x.git", allow_file=True) == ""
    assert url_problem(url, allow_file=True)


REF = load_schemas()["settings"]["$defs"]["environment"]["properties"]["ref"]["pattern"]
PATH = load_schemas()["settings"]["$defs"]["environment"]["properties"]["path"]["pattern"]


@pytest.mark.parametrize(
    "ref",
    [
        "-x",
        "--upload-pack=x",
        "a..b",
        "a b",
        "a~1",
        "a^",
        "a:b",
        "a?b",
        "a*",
        "a[b",
        "a\\b",
        "a@{1}",
        "/a",
        "a/",
        "a//b",
        "a.lock",
        "a.lock/b",
        ".a",
        "a/.b",
        "a.",
        "",
        "a\n",
        "a\x00",
    ],
)
def test_a_ref_is_a_plain_name(ref):
    assert re.fullmatch(REF, ref) is None


@pytest.mark.parametrize("ref", ["main", "release/1.0", "refs/heads/main", "v1.2.3", "feature/a-b_c+d"])
def test_a_plain_name_is_a_ref(ref):
    assert re.fullmatch(REF, ref)


@pytest.mark.parametrize("path", ["/a", "a/", "../a", "a/../b", ".", "./a", "a/.", "a//b", "-a", "", "a b", "a\n"])
def test_the_directory_of_an_environment_is_inside_the_repository(path):
    assert re.fullmatch(PATH, path) is None
    assert re.fullmatch(PATH, "environments/prod")
