"""Whatever is to be recorded fits into a record: what is short stays as it is, what is long is cut and says so."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.audit import prepare
from reconciler.core.bounds import fitted
from reconciler.core.entry_codec import UnrecordableError
from reconciler.core.record import Entry, What

AT = datetime(2026, 1, 1, tzinfo=UTC)


def entry(**changes: object) -> Entry:
    return Entry(AT, What.ROLLOUT_FAILED, "prod", "web", **changes)  # type: ignore[arg-type]


def test_what_is_short_is_not_touched() -> None:
    short = entry(details={"log": ["x" * 400] * 50, "count": 3, "deep": {"a": "b"}})
    assert fitted(short) is short


@pytest.mark.parametrize("letter", ["x", "\x00", '"', "\u4e2d", "\U0001f600"])
def test_the_last_words_of_an_instance_fit_whatever_they_are(letter: str) -> None:
    found = fitted(entry(details={"log": [letter * 400] * 50, "said": "why"}))
    prepare(found)
    assert len(found.details["log"]) == 50
    assert found.details["said"] == "why"


def test_names_of_a_thousand_services_fit() -> None:
    found = fitted(entry(details={"invalid": [f"{place:063}" for place in range(1000)]}))
    prepare(found)
    assert found.details["invalid"][0] == f"{0:063}"
    assert found.details["cutAt"] == len(found.details["invalid"])


def test_what_cannot_fit_is_refused_by_the_journal_and_not_here() -> None:
    with pytest.raises(UnrecordableError):
        prepare(fitted(entry(details={f"key {place}": "x" for place in range(5_000)})))


@settings(max_examples=30)
@given(st.text(), st.lists(st.text(), max_size=3), st.integers(1, 40_000), st.integers(1, 2_000))
def test_any_text_and_list_fits(text: str, items: list[str], times: int, many: int) -> None:
    details = {"said": text * times, "log": items * many, "name": "x", "count": 1}
    prepare(fitted(entry(author=text * times, reason=text * times, details=details)))
