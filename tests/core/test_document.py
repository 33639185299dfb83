"""YAML as people may write it: values and places, every kind of flaw with its place, and arbitrary bytes."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from reconciler.core import yaml_reader
from reconciler.core.document import MAX_BYTES, MAX_DEPTH, MAX_ENTRIES, MAX_FLAWS, Document, read


def flaws(text: str | bytes) -> list[str]:
    found = read(text.encode() if isinstance(text, str) else text)
    return [f"{flaw.line}:{flaw.column}: {flaw.message}" for flaw in found.flaws]


def test_values_and_their_places():
    found = read(b"name: web\nspec:\n  ports:\n  - 80\n  - {host: true}\n  ratio: 0.5\n  none:\n  text: '1.10'\n")
    assert found.flaws == ()
    assert found.value == {
        "name": "web",
        "spec": {"ports": [80, {"host": True}], "ratio": 0.5, "none": None, "text": "1.10"},
    }
    assert found.marks[("spec",)][:4] == (3, 3, 2, 1)
    assert found.marks[("spec", "ports", 0)] == (4, 5, 4, 5, "80")
    assert found.marks[("spec", "ports", 1, "host")] == (5, 12, 5, 6, "true")
    assert found.marks[("spec", "text")].plain is None


@pytest.mark.parametrize("text", ["-5", "0", "-0.25", "true", "false", "null", "~"])
def test_plain_values_mean_what_json_says(text):
    assert read(text.encode()).value == (None if text == "~" else json.loads(text))


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("no", "true or false"),
        ("On", "true or false"),
        ("YES", "true or false"),
        ("0o17", "a number"),
        ("017", "a number"),
        ("0x1F", "a number"),
        ("1_000", "a number"),
        ("1e3", "a number"),
        (".5", "a number"),
        ("22:22", "a number"),
        (".inf", "a number"),
        ("12345678901234567", "a number"),
        ("2026-01-01", "a date"),
        ("2026-01-01T10:00:00Z", "a date"),
        ("NULL", "empty"),
        ("=", "a default"),
        ("<<", "a merge"),
    ],
)
def test_what_versions_of_yaml_read_differently_must_be_quoted(text, meaning):
    assert flaws(f"key: {text}") == [f'1:6: value {text} is {meaning} here; quote it: "{text}"']
    assert flaws(f'key: "{text}"') == []


def test_a_truth_value_is_written_in_lower_case():
    assert flaws("a: True") == ['1:4: write true for the truth value, or quote it if it is text: "True"']


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("a: 1\nb: 2\na: 3", '3:1: duplicate key "a", first in line 1; remove one of the two'),
        ("a: &x 1", "1:4: anchor &x is not allowed; share values with extends"),
        ("&x a: 1", "1:1: anchor &x is not allowed; share values with extends"),
        ("a: !!str 1", '1:4: tag "tag:yaml.org,2002:str" is not allowed; remove it, and quote the value if it is text'),
        ("a: !x {b: 1}", '1:4: tag "!x" is not allowed; remove it, and quote the value if it is text'),
        ("<<: {a: 1}", "1:1: merge keys (<<) are not allowed; share values with extends"),
        ("? [a, b]\n: 1", "1:3: a key must be plain text"),
        ("? {a: 1}\n: 1", "1:3: a key must be plain text"),
        ('"": 1', "1:1: a key must be text; write a name before the colon"),
        ('"\\0": 1', "1:1: a key must be text; write a name before the colon"),
        ('a: "x\\0"', "1:4: the value contains a character that is not text; remove the escape"),
        ("a: 1\n---\nb: 2", "2:1: one file holds one document; move what follows --- into a file of its own"),
        ("", "1:1: the file is empty; write a manifest or delete it"),
        ("# only a remark\n", "2:1: the file is empty; write a manifest or delete it"),
        ("a: b: c", "1:5: this is not YAML: mapping values are not allowed in this context; look at the indentation"),
        ("a:\n\tb: 1", "2:1: this is not YAML: found character that cannot start any token"),
        ("a: [1", "2:1: this is not YAML"),
        (b"a: 1\nb: \xc3(", "2:4: the file is not UTF-8; save it as UTF-8"),
        (b"\xff\xfea\x00", "1:1: the file is not UTF-8; save it as UTF-8"),
        (b"a: 1\nb: \x07", "2:4: character U+0007 is not allowed; remove it"),
        (b"a: \x00", "1:4: character U+0000 is not allowed; remove it"),
    ],
)
def test_a_flaw_is_named_with_its_place(text, flaw):
    found = flaws(text)
    assert found, text
    assert found[0].startswith(flaw), found


def test_an_alias_is_refused_beside_its_anchor():
    assert [flaw.partition(";")[0] for flaw in flaws("a: &x 1\nb: *x\nc: {*x : 1}")] == [
        "1:4: anchor &x is not allowed",
        "2:4: alias *x is not allowed",
        "3:5: a key must be plain text",
        "3:5: alias *x is not allowed",
    ]


def test_every_flaw_is_found_at_once():
    assert [flaw.split(":")[0] for flaw in flaws("a: no\nb: &x 1\na: 2\nc: 1_0\n")] == ["1", "2", "3", "4"]


def test_what_stands_under_a_refused_key_leaves_no_trace():
    found = read(b"a: 1\na: {b: 2}\n")
    assert found.value == {"a": 1}
    assert set(found.marks) == {(), ("a",)}


def test_a_byte_order_mark_is_no_flaw():
    assert read(b"\xef\xbb\xbfa: 1").value == {"a": 1}


def test_a_syntax_error_leaves_nothing_to_judge():
    found = read(b"a: no\nb: [")
    assert not found.readable
    assert len(found.flaws) == 2
    assert set(found.marks) == {()}


@pytest.mark.parametrize("bracket", ["[", "{", "- ", "? ", "{a: ", "[{a: "])
@pytest.mark.parametrize("count", [MAX_DEPTH + 2, 50_000])
def test_depth_is_capped_before_anything_is_built(bracket, count):
    found = read((bracket * count).encode()[: MAX_BYTES - 2])
    assert [flaw.message for flaw in found.flaws if "levels" in flaw.message] == [
        f"the file has over {MAX_DEPTH} levels; make it smaller"
    ]


def test_the_deepest_allowed_value_is_read():
    assert read(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH).flaws == ()


def test_size_entries_and_flaws_are_capped():
    assert "more than the 262144 allowed" in flaws(b"a" * (MAX_BYTES + 1))[0]
    assert flaws("[" + "1," * MAX_ENTRIES + "]")[-1].endswith(f"more than {MAX_ENTRIES} entries; make it smaller")
    many = flaws("[" + "no," * (MAX_FLAWS + 50) + "]")
    assert len(many) == MAX_FLAWS + 1
    assert many[-1].endswith("there are more errors; correct those above first")


def test_the_parser_in_python_reads_the_same(monkeypatch):
    texts = [b"a: [1, {b: 'no'}]\n", b"a: no\nb: *x\n", b"a: !!int 1\n", b"a: b: c", b"[" * 500]
    fast = [read(text) for text in texts]
    monkeypatch.setattr(yaml_reader, "_LOADER", yaml.SafeLoader)
    for text, expected in zip(texts, fast, strict=True):
        found = read(text)
        assert (found.value, found.readable, len(found.flaws)) == (
            expected.value,
            expected.readable,
            len(expected.flaws),
        )


def whole(found: Document) -> None:
    """Every part of a readable value has its place, and a value that cannot be judged says why."""
    assert found.readable or found.flaws
    assert () in found.marks
    for flaw in found.flaws:
        assert flaw.line >= 1
        assert flaw.column >= 1
        assert flaw.message.isprintable() or "U+" in flaw.message

    def walk(value: object, path: tuple[str | int, ...]) -> None:
        assert path in found.marks
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, each in items:
            walk(each, (*path, key))

    walk(found.value, ())


@given(st.binary(max_size=400) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
@example(b"\xef\xbb\xbf\xef\xbb\xbf")
def test_arbitrary_bytes_never_crash(data):
    whole(read(data))


@given(st.text("ab:-?[]{}&*!|>'\"%@#, \n\t~<=0.\x85\u2028\ufeff\\", max_size=60))
def test_arbitrary_punctuation_never_crashes(text):
    whole(read(text.encode()))


printable = st.characters(exclude_categories=["Cs", "Cc", "Cn", "Zl", "Zp"], exclude_characters="\ufeff")
trees = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**14), 10**14) | st.text(printable),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(printable, min_size=1), inner, max_size=4),
    max_leaves=12,
)


@given(trees)
def test_what_is_written_quoted_is_read_back(value):
    found = read(json.dumps(value, ensure_ascii=False).encode())
    assert found.flaws == ()
    assert found.value == value
    whole(found)
