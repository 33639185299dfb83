"""Kubernetes YAML: many documents, scalars as kubectl reads them, places, and caps that hold against hostile files."""

from __future__ import annotations

import json
import string

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import bundle_yaml, yaml_reader
from reconciler.core.bundle_yaml import MARKED, MAX_DEPTH, MAX_DOCUMENTS, MAX_ENTRIES, MAX_FLAWS, read


def values(text: str) -> list[object]:
    parts, flaws = read(text.encode())
    assert flaws == ()
    return [part.value for part in parts]


def said(text: str | bytes) -> list[str]:
    _, flaws = read(text if isinstance(text, bytes) else text.encode())
    return [f"{flaw.line}:{flaw.column}: {flaw.message}" for flaw in flaws]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, True) for word in ("true", "True", "TRUE")),
        *((word, False) for word in ("false", "False", "FALSE")),
        *((word, None) for word in ("null", "Null", "NULL", "~", "")),
        ("nULL", "nULL"),
        ("0", 0),
        ("-12", -12),
        ("+1", 1),
        ("0644", 420),
        ("0o644", 420),
        ("-0o7", -7),
        ("0x1F", 31),
        ("1e3", 1000.0),
        ("1.10", 1.1),
        (".5", 0.5),
        ("1.", 1.0),
        ("010.5", 10.5),
        ("-2.5E-1", -0.25),
        ("1:30", "1:30"),
        ("1.2.3", "1.2.3"),
        ("2024-01-01", "2024-01-01"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("=", "="),
        ("1.4.0-rc1", "1.4.0-rc1"),
        ("0x", "0x"),
        ("'yes'", "yes"),
        ('"0644"', "0644"),
        ("|\n  yes\n", "yes\n"),
        ("9007199254740991", 2**53 - 1),
    ],
)
def test_scalars_are_what_kubectl_makes_of_them(text, value):
    found = values(f"x: {text}")
    assert found == [{"x": value}]
    assert type(found[0]["x"]) is type(value)


@pytest.mark.parametrize("text", ["yes", "No", "on", "OFF", "y", "N"])
def test_words_that_are_truth_values_to_some_are_refused(text):
    assert said(f"x: {text}") == [
        f"1:4: not every reader takes {text} for a truth value; quote it, or write it as JSON has it"
    ]


@pytest.mark.parametrize("text", ["1_000", "0b1", "0O7", ".inf", "-.Inf", ".nan", "08", "1e9999", "0x1_f", "1_0.5"])
def test_numbers_that_are_text_to_some_are_refused(text):
    assert said(f"x: {text}") == [
        f"1:4: not every reader takes {text} for a number; quote it, or write it as JSON has it"
    ]


@pytest.mark.parametrize("text", ["9007199254740992", "-12345678901234567890", "1e999", "0xfffffffffffffff"])
def test_numbers_beyond_json_are_refused(text):
    assert said(f"x: {text}") == [f"1:4: number {text} is too large for JSON; quote it if it is text"]


def test_documents_come_one_by_one_with_their_places():
    parts, flaws = read(b"\xef\xbb\xbf# a comment\n---\n---\na: 1\n---\nb:\n  - c: 2\n...\n")
    assert flaws == ()
    assert [part.value for part in parts] == [{"a": 1}, {"b": [{"c": 2}]}]
    assert parts[0].place(("a",)) == (4, 1)
    assert parts[1].place(("b", 0, "c")) == (7, 5)
    assert parts[1].place(("b", 0, "nothing", "there")) == (7, 5)
    assert parts[1].place(("z",)) == (6, 1)


def test_places_are_kept_for_the_upper_levels_only():
    parts, _ = read(b"a: {b: {c: {d: {e: {f: 1}}}}}")
    assert max(len(path) for path in parts[0].marks) == MARKED


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (b"a: \xff", ["1:4: the file is not UTF-8; save it as UTF-8"]),
        (b"a: 1\nb: \x07", ["2:4: character U+0007 is not allowed; remove it"]),
        ("a: [", ["2:1: this is not YAML: did not find expected node content"]),
        ("a: &x 1", ["1:4: anchor &x is not allowed; write the value out where it is used"]),
        ("a: *x", ["1:4: alias *x is not allowed; write the value out"]),
        ("a: !!binary YQ==", ['1:4: tag "tag:yaml.org,2002:binary" is not allowed; remove it']),
        ("&x a: 1", ["1:1: anchor &x is not allowed; write the value out where it is used"]),
        ("<<: {a: 1}", ["1:1: merge keys (<<) are not allowed; write the values out"]),
        ("'<<': 1", []),
        ("a: 1\na: 2", ['2:1: duplicate key "a"; remove one of the two']),
        ("? [a]\n: 1", ["1:3: a key must be plain text"]),
        ("'': 1", ["1:1: a key must be text; write a name before the colon"]),
        ('"\\0": 1', ["1:1: a key must be text; write a name before the colon"]),
        ('a: "\\0"', ["1:4: the value contains a character that is not text; remove the escape"]),
        ("a: {{ .Values.x }}", ["1:5: a key must be plain text"]),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(text, problems):
    found = said(text)
    assert [line[: len(problem)] for line, problem in zip(found, problems, strict=False)] == problems
    assert bool(found) == bool(problems)


def test_depth_entries_documents_and_errors_are_bounded():
    assert "over 100 levels" in said("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2))[0]
    assert values("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert "levels" in said("[" * 50_000)[0]
    assert said("---\na: 1\n" * (MAX_DOCUMENTS + 1)) == [
        f"{2 * MAX_DOCUMENTS + 1}:1: the file has more than {MAX_DOCUMENTS} documents; split it"
    ]
    many = said("a: [" + "yes, " * 2 * MAX_FLAWS + "]")
    assert len(many) == MAX_FLAWS + 1
    assert many[-1].endswith("there are more errors; correct those above first")


def test_a_bomb_ends_soon(monkeypatch):
    monkeypatch.setattr(bundle_yaml, "MAX_ENTRIES", 100)
    assert said("[" + "1, " * 101 + "]") == ["1:299: the file has more than 100 entries; make it smaller"]
    assert MAX_ENTRIES > 100_000


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(string.printable.replace("\x0b", "").replace("\x0c", "")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(string.ascii_letters, min_size=1, max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.lists(PLAIN.filter(lambda value: value is not None), max_size=3))
def test_json_is_read_as_it_is(documents):
    text = "".join(f"---\n{json.dumps(document)}\n" for document in documents)
    assert json.dumps(values(text)) == json.dumps(documents)


@given(st.text(string.printable) | st.binary())
def test_nothing_at_all_makes_it_raise(text):
    parts, flaws = read(text if isinstance(text, bytes) else text.encode())
    for part in parts:
        assert part.place(("anything",))
    assert len(flaws) <= MAX_FLAWS + 1


def test_without_the_c_parser_it_reads_the_same(monkeypatch):
    monkeypatch.setattr(yaml_reader, "_LOADER", yaml.SafeLoader)
    assert values("a: 0644\n---\nb: [x, {c: ~}]\n") == [{"a": 420}, {"b": ["x", {"c": None}]}]
    assert said("a: [")[0].startswith("1:5: this is not YAML")
    assert said('a: "\\uD800"') == ["1:4: the value contains a character that is not text; remove the escape"]
