"""The bundled schemas, and what is made of their verdicts: sound, described, strict and bounded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from reconciler.core.document import read
from reconciler.core.overlay import MAX_PROBLEMS, ordered, single
from reconciler.core.schema import Checker, Finding
from reconciler.core.words import LONGEST, nearest, shown
from reconciler.schemas import NAMES, load_schemas

ROOT = Path(__file__).resolve().parents[2]


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from parts(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from parts(value)


@pytest.mark.parametrize("name", NAMES)
class TestBundled:
    def test_it_is_a_schema_and_its_examples_fit(self, name):
        schema = load_schemas()[name]
        Draft202012Validator.check_schema(schema)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["$id"] == f"https://reconciler.dev/schemas/v1/{name}.schema.json"
        for example in schema["examples"]:
            assert Checker(schema).findings(example, lambda path: None) == ()

    def test_the_package_carries_what_the_repository_shows(self, name):
        assert load_schemas()[name] == json.loads((ROOT / "schemas" / f"{name}.schema.json").read_text())

    def test_every_field_is_described_and_every_mapping_is_closed(self, name):
        schema = load_schemas()[name]
        for part in parts(schema):
            if part.get("type") == "object":
                assert "additionalProperties" in part
            if "properties" in part and part.get("type") == "object":
                for key, field in part["properties"].items():
                    target = field
                    while "description" not in target and "$ref" in target:
                        target = schema["$defs"][target["$ref"].removeprefix("#/$defs/")]
                    assert len(target.get("description", "")) > 5, key

    def test_patterns_are_whole_and_lists_are_bounded(self, name):
        for part in parts(load_schemas()[name]):
            if isinstance(part.get("pattern"), str):
                assert part["pattern"].startswith("^")
                assert part["pattern"].endswith("$")
                assert part["patternErrorMessage"]
                re.compile(part["pattern"])
            if part.get("type") == "array":
                assert "maxItems" in part

    def test_references_stay_inside(self, name):
        schema = load_schemas()[name]
        for part in parts(schema):
            if "$ref" in part:
                assert part["$ref"].removeprefix("#/$defs/") in schema["$defs"]


def findings(schema: dict[str, Any], text: str) -> list[Finding]:
    manifest = single("f", read(text.encode()))
    return list(manifest.findings(Checker(schema)))


@pytest.mark.parametrize(
    ("schema", "text", "message"),
    [
        ({"type": "string", "pattern": "^a$"}, '"b"', '"b" is not valid here: it must match ^a$'),
        ({"type": "string", "pattern": "^a$"}, '"a\\n"', '"a\\n" is not valid here: it must match ^a$'),
        ({"type": "integer", "multipleOf": 2}, "3", "3 is not valid here (multipleOf)"),
        ({"not": {}, "errorMessage": "no"}, "3", "no"),
        ({"type": "string", "maxLength": 2}, "abc", "this is too long: 3, at most 2"),
        ({"type": ["string", "integer"]}, "[]", "a list cannot stand here; write text or a whole number"),
        ({"type": "number"}, "x", '"x" cannot stand here; write a number'),
        ({"type": "string", "minSize": "1Ki"}, "1", 'value 1 is a number here; quote it: "1"'),
        ({"minSize": "1Ki"}, '"1"', '"1" is too small; at least 1Ki'),
        ({"minSize": "1Ki"}, '"x"', None),
        ({"minSize": "1Ki"}, '"1Ki"', None),
        ({"minSize": "1Ki"}, "5", None),
        ({"required": ["a"]}, "5", None),
        ({"pattern": "^a$"}, "5", None),
        ({"type": "object", "required": ["a", "b"]}, "{b: 1}", 'missing field "a"; add it'),
    ],
)
def test_a_verdict_becomes_a_sentence(schema, text, message):
    assert [finding.message for finding in findings(schema, text)] == ([message] if message else [])


def test_a_name_is_found_again_whatever_its_case():
    assert nearest("REPLICA", ["replicas", "ports"]) == '; did you mean "replicas"?'
    assert nearest("zzz", ["a", "b"]) == "; one of: a, b"
    assert nearest("zzz", [f"name{n}" for n in range(13)]) == ""
    assert nearest("zzz", []) == ""


@given(st.text(), st.booleans())
def test_what_people_wrote_is_shown_bounded_and_printable(text, quote):
    found = shown(text, quote=quote)
    assert len(found) <= LONGEST
    assert found.isprintable()


def test_problems_are_bounded():
    text = "".join(f"k{n}: 1\n" for n in range(2 * MAX_PROBLEMS))
    manifest = single("f", read(text.encode()))
    problems = manifest.problems(manifest.findings(Checker(load_schemas()["service"])))
    assert len(problems) > MAX_PROBLEMS
    assert len(ordered(problems)) == MAX_PROBLEMS
