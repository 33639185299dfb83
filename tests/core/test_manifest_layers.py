"""`extends`: the merge of RFC 7386, paths, circles and depth, and the place of everything that was inherited."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.errors import Reason, Rejected
from reconciler.core.overlay import MAX_EXTENDS, NoFileError, merge, resolve
from tests.support.fleet import DIGEST, DIRECTORY, Repository, service

WEB = f"{DIRECTORY}/web.yaml"
HEAD = "apiVersion: reconciler.dev/v1\nkind: Service\nmetadata: {name: web}\n"


# RFC 7386, appendix A.
@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_the_rfc(target, patch, merged):
    assert merge(target, patch) == merged


values = st.recursive(
    st.none() | st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return value


@given(values, values)
def test_a_merge_changes_neither_side_and_twice_is_once(target, patch):
    before = copy.deepcopy((target, patch))
    merged = merge(target, patch)
    assert (target, patch) == before
    assert merge(merged, patch) == merged


@given(values)
def test_merging_into_nothing_leaves_out_the_nulls(patch):
    assert merge(None, patch) == without_nulls(patch)


@pytest.mark.parametrize(
    ("file", "written", "path"),
    [
        ("environments/prod/web.yaml", "base/web.yaml", "base/web.yaml"),
        ("environments/prod/web.yaml", "./files/a", "environments/prod/files/a"),
        ("environments/prod/web.yaml", "../staging/web.yaml", "environments/staging/web.yaml"),
        ("environments/prod/web.yaml", "../../base/web.yaml", "base/web.yaml"),
        ("web.yaml", "./a//b/./c", "a/b/c"),
        ("a/web.yaml", "b/../c", "c"),
    ],
)
def test_a_path_begins_at_the_root_or_at_the_file(file, written, path):
    assert resolve(file, written) == path


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("/etc/passwd", "absolute"),
        ("../../../x", "leaves the repository"),
        ("a/../../x", "leaves the repository"),
        ("..", "leaves the repository"),
        (".", "leaves the repository"),
        ("../..", "leaves the repository"),
        ("", "not a path"),
        ("a\nb", "not a path"),
        ("a\\b", "not a path"),
        ("a" * 501, "not a path"),
    ],
)
def test_a_path_stays_in_the_repository(written, why):
    with pytest.raises(NoFileError, match=why):
        resolve("environments/prod/web.yaml", written)


def problems(files: dict[str, str]) -> list[str]:
    state = Repository(files).state()
    assert not state.services
    return [str(problem) for problem in state.problems["web"]]


def test_a_service_inherits_over_several_files():
    repository = Repository(
        {
            WEB: HEAD + "extends: base/web.yaml\nspec: {env: {A: null, B: '2'}, replicas: 3}\n",
            "base/web.yaml": f"extends: ./all.yaml\nspec: {{image: 'r/web@{DIGEST}', env: {{A: '1', C: '3'}}}}\n",
            "base/all.yaml": "spec: {drain: {grace: 5s}, args: [x]}\n",
        }
    )
    found = repository.state().services["web"]
    assert dict(found.env) == {"B": "2", "C": "3"}
    assert (found.replicas, found.args, found.drain.grace.seconds) == (3, ("x",), 5)


def test_a_problem_points_at_the_file_and_line_where_the_value_was_written():
    assert problems(
        {
            WEB: HEAD + "extends: base/web.yaml\nspec:\n  replica: 1\n  files: [{path: /a, source: ./own}]\n",
            "base/web.yaml": f"spec:\n  image: 'r/web@{DIGEST}'\n  env: {{A: 1.10, B: no}}\n  drain:\n    grac: 5s\n",
        }
    ) == [
        'base/web.yaml:3:12: value 1.10 is a number here; quote it: "1.10"',
        'base/web.yaml:3:21: value no is true or false here; quote it: "no"',
        'base/web.yaml:5:5: unknown field "grac"; did you mean "grace"?',
        f'{WEB}:6:3: unknown field "replica"; did you mean "replicas"?',
        f"{WEB}:7:30: there is no file {DIRECTORY}/own in this revision; a path begins at the repository's root, "
        "or with ./ or ../ at the file that says it",
    ]


def test_a_source_in_a_base_is_relative_to_the_base():
    repository = Repository(
        {
            WEB: HEAD + "extends: base/web.yaml\n",
            "base/web.yaml": f"spec: {{image: 'r/web@{DIGEST}', files: [{{path: /a, source: ./a.conf}}]}}\n",
            "base/a.conf": "hello",
        }
    )
    assert repository.state().services["web"].files[0].content == b"hello"


def test_a_missing_base_leaves_the_other_problems_visible():
    assert problems({WEB: HEAD + "extends: base/none.yaml\nspec: {replica: 1, health: {http: {port: x}}}\n"}) == [
        f"{WEB}:4:10: there is no file base/none.yaml in this revision; a path begins at the repository's root, "
        "or with ./ or ../ at the file that says it",
        f'{WEB}:5:8: unknown field "replica"; did you mean "replicas"?',
    ]


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({WEB: HEAD + "extends: 5\n"}, f'{WEB}:4:10: extends must be the path of a file, as in "base/web.yaml"'),
        (
            {WEB: HEAD + "extends: ../../../x\n"},
            f'{WEB}:4:10: path "../../../x" leaves the repository; keep the file inside it',
        ),
        (
            {WEB: HEAD + "extends: b\n", "b": "extends: c\n", "c": "extends: b\n"},
            "c:1:10: extends goes in a circle: b -> c -> b; remove one of these",
        ),
        (
            {WEB: HEAD + "extends: b\n", "b": "[1]\n"},
            "b:1:1: a file that is extended must hold a mapping of fields",
        ),
        (
            {WEB: HEAD + "extends: b\n", "b": "[\n"},
            "b:2:1: this is not YAML: did not find expected node content; look at the indentation and quotes here "
            "and just above",
        ),
    ],
)
def test_what_is_wrong_with_extending(files, problem):
    assert problems(files) == [problem]


def test_the_depth_of_extending_is_capped():
    files = {WEB: HEAD + "extends: b0\n"} | {f"b{n}": f"extends: b{n + 1}\n" for n in range(MAX_EXTENDS + 3)}
    assert problems(files) == [f"b{MAX_EXTENDS - 1}:1:10: extends goes over more than 8 files; merge some of them"]


def test_a_base_that_may_not_be_read_says_why():
    repository = Repository({WEB: HEAD + "extends: base/web.yaml\n", "base/web.yaml": ""})
    repository.refusals["base/web.yaml"] = Rejected(Reason.REPOSITORY_HOSTILE, "a symlink", where="base/web.yaml")
    (problem,) = repository.state().problems["web"]
    assert (problem.reason, problem.line, problem.message) == (Reason.REPOSITORY_HOSTILE, 4, "base/web.yaml: a symlink")


def test_a_base_is_read_once_for_all_who_extend_it():
    files = {f"{DIRECTORY}/s{n}.yaml": service(f"s{n}", top="extends: base/all.yaml\n") for n in range(20)}
    repository = Repository({**files, "base/all.yaml": "spec: {replicas: 2}\n"})
    assert {each.replicas for each in repository.state().services.values()} == {2}
    assert repository.reads.count("base/all.yaml") == 1


def test_an_empty_base_outside_is_read_once_too():
    files = {f"{DIRECTORY}/s{n}.yaml": service(f"s{n}", "files: [{path: /a, source: empty}]") for n in range(5)}
    repository = Repository({**files, "empty": ""})
    assert len(repository.state().services) == 5
    assert repository.reads.count("empty") == 1
