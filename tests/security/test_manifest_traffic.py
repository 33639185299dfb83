"""What hostile files may not do through the proxy: write its configuration, smuggle requests, take time without bound.

Rows of the table of threats: option injection through names, request smuggling, one poison value.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.delivery import Route
from reconciler.core.policy import Allow
from reconciler.core.proxy_config import RouteWish, refusal
from reconciler.schemas import load_schemas
from tests.support.fleet import DIRECTORY, Repository, problems_of, service


@pytest.mark.parametrize(
    "host",
    [
        "",
        "A.test",
        "a b",
        "a.test:80",
        "a.test/x",
        "a..b",
        ".a",
        "a.",
        "-a",
        "a-",
        "*",
        "*.",
        "a.*",
        "*a.test",
        "a_b",
        "a\\nb",
        "ä.test",
        "a.test }",
        "{a}",
        "a#b",
        "a\\\\b",
        "$a",
        "'a'",
        "%[src]",
        "a" * 64,
        f"{'a.' * 127}aa",
    ],
)
def test_no_host_name_is_a_directive(host):
    """What becomes a part of the proxy's configuration fits a strict grammar, whatever quotes or breaks it uses."""
    for field in (f'hosts: ["{host}"]', f'preview: "{host}"'):
        problems = problems_of(f"traffic: {{port: 80, {field}}}", Allow(proxy=True))
        assert problems
        assert all("not valid here" in each or "too long" in each for each in problems)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "//",
        "/a//b",
        "/a/",
        "/..",
        "/a/../b",
        "/./a",
        "/a b",
        "/%2e%2e",
        "/a?b",
        "/a#b",
        "/{a}",
        "/a\\nb",
        "/$a",
        "/ä",
        "/a;b",
        "/a|b",
        "/'a'",
        "/a\\\\b",
        "/%[src]",
        f"/{'a' * 200}",
    ],
)
def test_no_path_is_a_directive(path):
    (problem,) = problems_of(f'traffic: {{port: 80, paths: ["{path}"]}}', Allow(proxy=True))
    assert "not valid here" in problem or "too long" in problem


@pytest.mark.parametrize("header", ["X: 1", "X\\r\\nY", "", "X Y", "Transfer-Encoding", "CONTENT-LENGTH", "connection"])
def test_a_warm_up_cannot_write_more_than_one_request(header):
    value = "x" if header else "x\\r\\nY: 1"
    name = header or "X"
    text = f'traffic: {{port: 80}}\nwarmUp: {{requests: [{{path: /, headers: {{"{name}": "{value}"}}}}]}}'
    assert problems_of(text, Allow(proxy=True))
    assert problems_of('traffic: {port: 80}\nwarmUp: {requests: [{path: "/ HTTP/1.1"}]}', Allow(proxy=True))


def test_many_claims_at_the_proxy_are_told_apart_in_reasonable_time():
    """Each service may name many hosts and paths: the work grows with their number, not with its square."""
    hosts = ", ".join(f"h{n}" for n in range(20))
    paths = ", ".join(f"/p{n}" for n in range(10))
    same = f"traffic: {{port: 80, hosts: [{hosts}], paths: [{paths}]}}"
    files = {f"{DIRECTORY}/s{n}.yaml": service(f"s{n}", same) for n in range(100)}
    state = Repository(files).state(Allow(proxy=True))
    assert not state.services
    assert len(state.problems) == 100
    assert all(len(problems) == 20 for problems in state.problems.values())


TRAFFIC = load_schemas()["service"]["$defs"]["traffic"]["properties"]
hosts = st.from_regex(TRAFFIC["hosts"]["items"]["pattern"], fullmatch=True, alphabet="ab1.-*").filter(
    lambda host: len(host) <= TRAFFIC["hosts"]["items"]["maxLength"]
)
previews = st.from_regex(TRAFFIC["preview"]["pattern"], fullmatch=True, alphabet="ab1.-").filter(
    lambda host: len(host) <= TRAFFIC["preview"]["maxLength"]
)
paths = st.from_regex(TRAFFIC["paths"]["items"]["pattern"], fullmatch=True, alphabet="aB1/.-_~@:+=%").filter(
    lambda path: len(path) <= TRAFFIC["paths"]["items"]["maxLength"]
)


@given(hosts, previews, paths)
@settings(max_examples=100, deadline=None)
def test_what_a_manifest_may_say_fits_the_grammar_of_the_proxy(host, preview, path):
    """Two grammars, one in the schema and one before the configuration: the outer one lets nothing more through."""
    assert refusal(RouteWish("web", Route(80, hosts=(host,), paths=(path,), preview=preview), 1)) == ""
