"""Durations, sizes and shares of a processor: examples, round trips, and agreement with the schemas' patterns."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.quantity import duration, duration_text, nano_cpus, size
from reconciler.schemas import load_schemas

DEFINITIONS = load_schemas()["service"]["$defs"]


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("500ms", 500),
        ("30s", 30_000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("720h", 2_592_000_000),
        ("0s", 0),
        ("1h2m3s4ms", 3_723_004),
        ("1m1ms", 60_001),
    ],
)
def test_a_duration_is_read(text, milliseconds):
    assert duration(text) == timedelta(milliseconds=milliseconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5d", "1.5h", "-5s", "5 s", "5s5m", "5s\n", "٣s", "1234567s", "1e3s"])
def test_other_text_is_not_a_duration(text):
    with pytest.raises(ValueError, match="not a duration"):
        duration(text)


@given(st.integers(0, 10**10).map(lambda ms: timedelta(milliseconds=ms)))
def test_a_duration_is_read_back_as_it_was_written(value):
    assert duration(duration_text(value)) == value


@pytest.mark.parametrize(("value", "text"), [(0, "0s"), (5_400, "1h30m"), (0.5, "500ms"), (61, "1m1s"), (0.0004, "0s")])
def test_a_duration_is_written_in_the_shortest_way(value, text):
    assert duration_text(timedelta(seconds=value)) == text


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1024", 1024),
        ("64Ki", 65_536),
        ("128Mi", 2**27),
        ("1Gi", 2**30),
        ("2Ti", 2**41),
        ("500M", 5 * 10**8),
        ("3k", 3000),
    ],
)
def test_a_size_is_read(text, number):
    assert size(text) == number


@pytest.mark.parametrize("text", ["", "Mi", "1.5Gi", "-1", "1KB", "1mi", "1Mi\n", "1" * 16])
def test_other_text_is_not_a_size(text):
    with pytest.raises(ValueError, match="not a size"):
        size(text)


@pytest.mark.parametrize(
    ("text", "billionths"),
    [("0.5", 5 * 10**8), ("500m", 5 * 10**8), ("2", 2 * 10**9), ("0.000000001", 1), ("1.25", 1_250_000_000)],
)
def test_a_share_of_a_processor_is_read(text, billionths):
    assert nano_cpus(text) == billionths


@pytest.mark.parametrize("text", ["", ".5", "0.5m", "1.", "-1", "1.0000000001", "all"])
def test_other_text_is_not_a_share_of_a_processor(text):
    with pytest.raises(ValueError, match="not a share"):
        nano_cpus(text)


PATTERNS = [
    (duration, DEFINITIONS["duration"]["pattern"]),
    (size, DEFINITIONS["size"]["pattern"]),
    (nano_cpus, DEFINITIONS["resources"]["properties"]["cpus"]["pattern"]),
]


@pytest.mark.parametrize(("read", "pattern"), PATTERNS)
@given(data=st.data())
def test_the_schema_and_the_reader_agree(read, pattern, data):
    text = data.draw(st.from_regex(pattern) | st.text("0123456789.hmsKMGTik", max_size=8))
    try:
        read(text)
        accepted = True
    except ValueError:
        accepted = False
    assert accepted == (re.fullmatch(pattern, text) is not None)
