"""Trailers are what Git takes for trailers: tables, and Git itself asked about messages made of all kinds of lines."""

from __future__ import annotations

import random
import subprocess

import pytest

from reconciler.adapters.git_run import environment
from reconciler.adapters.git_trailers import KEY_LIMIT, TRAILERS_LIMIT, VALUE_LIMIT, trailers_of

LINES = (
    *("title", "", "", "plain text", " ", "---", "# note", "  more", "\tfurther"),
    *("Foo: bar", "Foo : x", "Trailing: space  ", "Empty:", "x:y:z", "-: a", "Acked: é"),
    *("a b: c", "Bug #43: x", ":a", "Signed-off-by: A <a@b>", "(cherry picked from commit abc)"),
    *("Reconciler-Confirm: removals, changes", "REconciler-emergency:fire"),
)


def by_git(message: str) -> dict[str, str]:
    """What Git makes of a message: names in lower case, the last of each."""
    command = ["git", "interpret-trailers", "--parse", "--no-divider"]
    said = subprocess.run(command, input=message.encode(), capture_output=True, check=True, env=environment(), cwd="/")
    pairs = [line.split(":", 1) for line in said.stdout.decode().split("\n") if line]
    return {name.lower(): value.strip() for name, value in pairs}


@pytest.mark.parametrize("seed", range(4))
def test_git_agrees(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(100):
        lines = [chance.choice(LINES) for _ in range(chance.randrange(9))]
        message = "\n".join((["title", ""] if chance.random() < 0.7 else []) + lines + [""] * chance.randrange(2))
        assert trailers_of(message) == by_git(message), message


@pytest.mark.parametrize(
    ("message", "trailers"),
    [
        ("", {}),
        ("Foo: bar", {}),
        ("Foo: bar\n", {}),
        ("title\n\nFoo: bar", {"foo": "bar"}),
        ("title\r\n\r\nFoo: bar\r\nBar: x\r\n", {"foo": "bar", "bar": "x"}),
        ("title\n\nFoo: bar\n\nnot a trailer\n", {}),
        ("title\n\nText and\nFoo: bar\n", {}),
        ("title\n\nText and\nFoo: bar\nSigned-off-by: A <a@b>\n", {"foo": "bar", "signed-off-by": "A <a@b>"}),
        ("title\n\na\nb\nc\nd\nSigned-off-by: A\n", {}),
        ("title\n\nReconciler-Emergency: the shop\n is down\n", {"reconciler-emergency": "the shop is down"}),
        ("title\n\nFOO: first\nfoo: second\n", {"foo": "second"}),
        ("title\n\nFoo:\n", {"foo": ""}),
        ("title\n\nFoo: a: b\n", {"foo": "a: b"}),
        # `---` divides a message from a patch in a mail; in a commit it is text.
        ("title\n\n---\nFoo: bar\n", {}),
    ],
)
def test_the_last_paragraph_may_be_one_of_trailers(message: str, trailers: dict[str, str]) -> None:
    assert trailers_of(message) == trailers


def test_what_cannot_be_printed_is_no_part_of_a_value() -> None:
    message = "title\n\nFoo: a\x1b[31mb\x00c\u202ed\u2028e\tf\x7f\n"
    assert trailers_of(message) == {"foo": "a [31mb c d e f"}


def test_trailers_are_bounded() -> None:
    many = "".join(f"K{number}: v\n" for number in range(TRAILERS_LIMIT + 5))
    assert list(trailers_of(f"title\n\n{many}")) == [f"k{number}" for number in range(5, TRAILERS_LIMIT + 5)]
    long = (
        f"title\n\n{'k' * KEY_LIMIT}: v\n{'l' * (KEY_LIMIT + 1)}: v\nV: {'é' * VALUE_LIMIT}\nW: x{'é' * VALUE_LIMIT}\n"
    )
    found = trailers_of(long)
    assert set(found) == {"k" * KEY_LIMIT, "v", "w"}
    assert found["v"] == "é" * (VALUE_LIMIT // 2)
    assert found["w"] == "x" + "é" * (VALUE_LIMIT // 2 - 1)


def test_a_value_of_many_lines_is_cut() -> None:
    lines = "Foo: x\n" + " y\n" * 300_000
    found = trailers_of(f"title\n\n{lines}")
    assert found["foo"] == ("x" + " y" * VALUE_LIMIT)[: VALUE_LIMIT - 1], "it would end with a space"
